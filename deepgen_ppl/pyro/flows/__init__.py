"""Flows: densities by change of variables, as modules that give native distributions."""

from deepgen_ppl.pyro.flows.actnorm import ActNorm, Standardise
from deepgen_ppl.pyro.flows.affine import Additive, Affine
from deepgen_ppl.pyro.flows.autoregressive import Autoregressive
from deepgen_ppl.pyro.flows.catalogue import IAF, MAF, NICE, NSF, RealNVP
from deepgen_ppl.pyro.flows.catalogue_free import FFJORD, NAF, Glow, Planar, Radial, Sylvester
from deepgen_ppl.pyro.flows.continuous import Continuous
from deepgen_ppl.pyro.flows.coupling import Coupling
from deepgen_ppl.pyro.flows.dequantise import Dequantised, bits_per_dimension, dequantised
from deepgen_ppl.pyro.flows.elementwise import Elementwise
from deepgen_ppl.pyro.flows.flow import Flow, fitted, initialised, program, standardised
from deepgen_ppl.pyro.flows.glow import ImageCoupling, MultiScale
from deepgen_ppl.pyro.flows.layer import (
    Chain,
    FlowDistribution,
    FlowTransform,
    Inverse,
    Layer,
    Stack,
)
from deepgen_ppl.pyro.flows.linear import Householder, LinearLU
from deepgen_ppl.pyro.flows.logit import Logit
from deepgen_ppl.pyro.flows.monotone import Integral, Sigmoids
from deepgen_ppl.pyro.flows.permutation import Permutation, Reverse
from deepgen_ppl.pyro.flows.residual import PlanarLayer, RadialLayer, SylvesterLayer
from deepgen_ppl.pyro.flows.spline import Spline

__all__ = [
    "FFJORD",
    "IAF",
    "MAF",
    "NAF",
    "NICE",
    "NSF",
    "ActNorm",
    "Additive",
    "Affine",
    "Autoregressive",
    "Chain",
    "Continuous",
    "Coupling",
    "Dequantised",
    "Elementwise",
    "Flow",
    "FlowDistribution",
    "FlowTransform",
    "Glow",
    "Householder",
    "ImageCoupling",
    "Integral",
    "Inverse",
    "Layer",
    "LinearLU",
    "Logit",
    "MultiScale",
    "Permutation",
    "Planar",
    "PlanarLayer",
    "Radial",
    "RadialLayer",
    "RealNVP",
    "Reverse",
    "Sigmoids",
    "Spline",
    "Stack",
    "Standardise",
    "Sylvester",
    "SylvesterLayer",
    "bits_per_dimension",
    "dequantised",
    "fitted",
    "initialised",
    "program",
    "standardised",
]

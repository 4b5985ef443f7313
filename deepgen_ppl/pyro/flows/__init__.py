"""Flows: densities by change of variables, as modules that give native distributions."""

from deepgen_ppl.pyro.flows.actnorm import ActNorm, Standardise
from deepgen_ppl.pyro.flows.affine import Additive, Affine
from deepgen_ppl.pyro.flows.autoregressive import Autoregressive
from deepgen_ppl.pyro.flows.catalogue import IAF, MAF, NICE, NSF, RealNVP
from deepgen_ppl.pyro.flows.coupling import Coupling
from deepgen_ppl.pyro.flows.flow import Flow, fitted, initialised, program, standardised
from deepgen_ppl.pyro.flows.layer import (
    Chain,
    FlowDistribution,
    FlowTransform,
    Inverse,
    Layer,
    Stack,
)
from deepgen_ppl.pyro.flows.permutation import Permutation, Reverse
from deepgen_ppl.pyro.flows.spline import Spline

__all__ = [
    "IAF",
    "MAF",
    "NICE",
    "NSF",
    "ActNorm",
    "Additive",
    "Affine",
    "Autoregressive",
    "Chain",
    "Coupling",
    "Flow",
    "FlowDistribution",
    "FlowTransform",
    "Inverse",
    "Layer",
    "Permutation",
    "RealNVP",
    "Reverse",
    "Spline",
    "Stack",
    "Standardise",
    "fitted",
    "initialised",
    "program",
    "standardised",
]

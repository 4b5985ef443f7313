"""The Pyro wing: native Pyro programs fitted, weighed, sampled and checked."""

try:
    import pyro as _pyro  # noqa: F401
    import torch as _torch  # noqa: F401
except ImportError as error:
    raise ImportError(
        "deepgen_ppl.pyro needs PyTorch and Pyro: pip install 'deepgen_ppl[pyro]'"
    ) from error

from deepgen_ppl import (
    BayesNet,
    Bound,
    Calibration,
    Check,
    Diagnosis,
    Evidence,
    EvidenceBounds,
    ExactPosterior,
    Factor,
    FactorGraph,
    Posterior,
)
from deepgen_ppl.amortization import AmortizationGap
from deepgen_ppl.imputation import Imputation
from deepgen_ppl.latents import LatentReport
from deepgen_ppl.loop import NonFiniteError, Progress
from deepgen_ppl.markov_chain import MarkovChain
from deepgen_ppl.pair_graph import grid_edges
from deepgen_ppl.pyro import flows
from deepgen_ppl.pyro.compilation import use_compilation_cache
from deepgen_ppl.pyro.flows.check import check_flow
from deepgen_ppl.pyro.flows.guide import flow_guide
from deepgen_ppl.pyro.infer.ais import ais
from deepgen_ppl.pyro.infer.amortization import amortization_gap
from deepgen_ppl.pyro.infer.bounds import evidence_bounds
from deepgen_ppl.pyro.infer.bridge import bridge
from deepgen_ppl.pyro.infer.contrastive import contrastive
from deepgen_ppl.pyro.infer.em import em
from deepgen_ppl.pyro.infer.exact import exact
from deepgen_ppl.pyro.infer.fit import Fit, load_fit
from deepgen_ppl.pyro.infer.importance import importance
from deepgen_ppl.pyro.infer.latents import LatentMonitor, latent_report
from deepgen_ppl.pyro.infer.learning import learn_bayes_net
from deepgen_ppl.pyro.infer.log_z import log_z, log_z_bounds
from deepgen_ppl.pyro.infer.mcmc import mcmc
from deepgen_ppl.pyro.infer.noise_contrastive import noise_contrastive
from deepgen_ppl.pyro.infer.predict import predict
from deepgen_ppl.pyro.infer.refine import refine
from deepgen_ppl.pyro.infer.sbc import sbc
from deepgen_ppl.pyro.infer.score_matching import score_matching
from deepgen_ppl.pyro.infer.smc import smc
from deepgen_ppl.pyro.infer.svi import svi
from deepgen_ppl.pyro.kernels.chees import ChEES
from deepgen_ppl.pyro.kernels.discrete_langevin import DiscreteLangevin
from deepgen_ppl.pyro.kernels.gibbs import Gibbs
from deepgen_ppl.pyro.kernels.gibbs_with_gradients import GibbsWithGradients
from deepgen_ppl.pyro.kernels.langevin import MALA, Langevin
from deepgen_ppl.pyro.kernels.rwm import RWM
from deepgen_ppl.pyro.kernels.tempering import ParallelTempering
from deepgen_ppl.pyro.objectives import (
    ELBO,
    IWAE,
    EnumeratedELBO,
    ExactMarginal,
    RelaxedELBO,
    Renyi,
)
from deepgen_ppl.pyro.programs import autoregressive, vae
from deepgen_ppl.pyro.programs.bayes_net import bayes_net
from deepgen_ppl.pyro.programs.classifiers import (
    logistic_regression,
    naive_bayes,
    neural_classifier,
)
from deepgen_ppl.pyro.programs.energy.classifier import EnergyClassifier
from deepgen_ppl.pyro.programs.energy.crf import CRF
from deepgen_ppl.pyro.programs.energy.dbm import DBM
from deepgen_ppl.pyro.programs.energy.family import ExponentialFamily
from deepgen_ppl.pyro.programs.energy.field import Ising, PairwiseField
from deepgen_ppl.pyro.programs.energy.mixture_of_experts import MixtureOfExperts
from deepgen_ppl.pyro.programs.energy.neural import EnergyModel
from deepgen_ppl.pyro.programs.energy.noisy import NoiseConditionalEnergy
from deepgen_ppl.pyro.programs.energy.pretraining import pretrain_dbm
from deepgen_ppl.pyro.programs.energy.product import ProductOfExperts
from deepgen_ppl.pyro.programs.energy.rbm import RBM
from deepgen_ppl.pyro.programs.markov import hmm, markov_chain
from deepgen_ppl.pyro.programs.mixture import mixture
from deepgen_ppl.pyro.programs.vae.semi_supervised import SemiSupervisedVAE
from deepgen_ppl.pyro.programs.vae.vae import VAE
from deepgen_ppl.ranking import rank_by_evidence
from deepgen_ppl.report import report
from deepgen_ppl.schedules import KLAnnealing

__all__ = [
    "CRF",
    "DBM",
    "ELBO",
    "IWAE",
    "MALA",
    "RBM",
    "RWM",
    "VAE",
    "AmortizationGap",
    "BayesNet",
    "Bound",
    "Calibration",
    "ChEES",
    "Check",
    "Diagnosis",
    "DiscreteLangevin",
    "EnergyClassifier",
    "EnergyModel",
    "EnumeratedELBO",
    "Evidence",
    "EvidenceBounds",
    "ExactMarginal",
    "ExactPosterior",
    "ExponentialFamily",
    "Factor",
    "FactorGraph",
    "Fit",
    "Gibbs",
    "GibbsWithGradients",
    "Imputation",
    "Ising",
    "KLAnnealing",
    "Langevin",
    "LatentMonitor",
    "LatentReport",
    "MarkovChain",
    "MixtureOfExperts",
    "NoiseConditionalEnergy",
    "NonFiniteError",
    "PairwiseField",
    "ParallelTempering",
    "Posterior",
    "ProductOfExperts",
    "Progress",
    "RelaxedELBO",
    "Renyi",
    "SemiSupervisedVAE",
    "ais",
    "amortization_gap",
    "autoregressive",
    "bayes_net",
    "bridge",
    "check_flow",
    "contrastive",
    "em",
    "evidence_bounds",
    "exact",
    "flow_guide",
    "flows",
    "grid_edges",
    "hmm",
    "importance",
    "latent_report",
    "learn_bayes_net",
    "load_fit",
    "log_z",
    "log_z_bounds",
    "logistic_regression",
    "markov_chain",
    "mcmc",
    "mixture",
    "naive_bayes",
    "neural_classifier",
    "noise_contrastive",
    "predict",
    "pretrain_dbm",
    "rank_by_evidence",
    "refine",
    "report",
    "sbc",
    "score_matching",
    "smc",
    "svi",
    "use_compilation_cache",
    "vae",
]

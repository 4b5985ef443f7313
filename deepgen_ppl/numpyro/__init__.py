"""The NumPyro wing: native NumPyro programs fitted, weighed, sampled and checked."""

try:
    import numpyro as _numpyro  # noqa: F401
    import optax as _optax  # noqa: F401
except ImportError as error:
    raise ImportError(
        "deepgen_ppl.numpyro needs JAX, NumPyro and optax: pip install 'deepgen_ppl[numpyro]'"
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
from deepgen_ppl.numpyro import flows
from deepgen_ppl.numpyro.compilation import use_compilation_cache
from deepgen_ppl.numpyro.flows.check import check_flow
from deepgen_ppl.numpyro.flows.guide import flow_guide
from deepgen_ppl.numpyro.infer.ais import ais
from deepgen_ppl.numpyro.infer.amortization import amortization_gap
from deepgen_ppl.numpyro.infer.bounds import evidence_bounds
from deepgen_ppl.numpyro.infer.bridge import bridge
from deepgen_ppl.numpyro.infer.contrastive import contrastive
from deepgen_ppl.numpyro.infer.em import em
from deepgen_ppl.numpyro.infer.exact import exact
from deepgen_ppl.numpyro.infer.fit import Fit, load_fit
from deepgen_ppl.numpyro.infer.importance import importance
from deepgen_ppl.numpyro.infer.latents import LatentMonitor, latent_report
from deepgen_ppl.numpyro.infer.learning import learn_bayes_net
from deepgen_ppl.numpyro.infer.log_z import log_z, log_z_bounds
from deepgen_ppl.numpyro.infer.mcmc import mcmc
from deepgen_ppl.numpyro.infer.noise_contrastive import noise_contrastive
from deepgen_ppl.numpyro.infer.predict import predict
from deepgen_ppl.numpyro.infer.refine import refine
from deepgen_ppl.numpyro.infer.sbc import sbc
from deepgen_ppl.numpyro.infer.score_matching import score_matching
from deepgen_ppl.numpyro.infer.smc import smc
from deepgen_ppl.numpyro.infer.svi import svi
from deepgen_ppl.numpyro.kernels.chees import ChEES
from deepgen_ppl.numpyro.kernels.discrete_langevin import DiscreteLangevin
from deepgen_ppl.numpyro.kernels.gibbs import Gibbs
from deepgen_ppl.numpyro.kernels.gibbs_with_gradients import GibbsWithGradients
from deepgen_ppl.numpyro.kernels.langevin import MALA, Langevin
from deepgen_ppl.numpyro.kernels.rwm import RWM
from deepgen_ppl.numpyro.kernels.tempering import ParallelTempering
from deepgen_ppl.numpyro.objectives import (
    ELBO,
    IWAE,
    EnumeratedELBO,
    ExactMarginal,
    RelaxedELBO,
    Renyi,
)
from deepgen_ppl.numpyro.programs import autoregressive, vae
from deepgen_ppl.numpyro.programs.bayes_net import bayes_net
from deepgen_ppl.numpyro.programs.classifiers import (
    logistic_regression,
    naive_bayes,
    neural_classifier,
)
from deepgen_ppl.numpyro.programs.energy.classifier import EnergyClassifier
from deepgen_ppl.numpyro.programs.energy.crf import CRF
from deepgen_ppl.numpyro.programs.energy.dbm import DBM
from deepgen_ppl.numpyro.programs.energy.family import ExponentialFamily
from deepgen_ppl.numpyro.programs.energy.field import Ising, PairwiseField
from deepgen_ppl.numpyro.programs.energy.mixture_of_experts import MixtureOfExperts
from deepgen_ppl.numpyro.programs.energy.neural import EnergyModel
from deepgen_ppl.numpyro.programs.energy.noisy import NoiseConditionalEnergy
from deepgen_ppl.numpyro.programs.energy.pretraining import pretrain_dbm
from deepgen_ppl.numpyro.programs.energy.product import ProductOfExperts
from deepgen_ppl.numpyro.programs.energy.rbm import RBM
from deepgen_ppl.numpyro.programs.markov import hmm, markov_chain
from deepgen_ppl.numpyro.programs.mixture import mixture
from deepgen_ppl.numpyro.programs.vae.semi_supervised import SemiSupervisedVAE
from deepgen_ppl.numpyro.programs.vae.vae import VAE
from deepgen_ppl.pair_graph import grid_edges
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

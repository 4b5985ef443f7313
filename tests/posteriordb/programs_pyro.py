"""Posteriors of posteriordb as Pyro programs: twins of those in `programs_numpyro.py`."""

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import constraints
from torch import Tensor


def flat(support: constraints.Constraint, *shape: int) -> dist.Distribution:
    """No prior term on a value of this shape (a scalar without one)."""
    return dist.ImproperUniform(support, (), shape)


def eight_schools_centered(y: Tensor, sigma: Tensor) -> None:
    """School effects around a common mean, as they are stated: a funnel in (theta, tau)."""
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = pyro.sample("tau", dist.HalfCauchy(5.0))
    with pyro.plate("school", len(y)):
        theta = pyro.sample("theta", dist.Normal(mu, tau))
        pyro.sample("y", dist.Normal(theta, sigma), obs=y)


def eight_schools_noncentered(y: Tensor, sigma: Tensor) -> None:
    """The same posterior in standardised school effects."""
    mu = pyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = pyro.sample("tau", dist.HalfCauchy(5.0))
    with pyro.plate("school", len(y)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        theta = pyro.deterministic("theta", mu + tau * z)
        pyro.sample("y", dist.Normal(theta, sigma), obs=y)


def kidscore_momiq(kid_score: Tensor, mom_iq: Tensor) -> None:
    """Linear regression of test scores on the mother's."""
    beta = pyro.sample("beta", flat(constraints.real_vector, 2))
    sigma = pyro.sample("sigma", dist.HalfCauchy(2.5))
    with pyro.plate("child", len(kid_score)):
        mean = beta[0] + beta[1] * mom_iq
        pyro.sample("kid_score", dist.Normal(mean, sigma), obs=kid_score)


def garch11(y: Tensor, *, sigma1: float) -> None:
    """Volatility that follows the last shock; (alpha1, beta1) uniform on a triangle."""
    mu = pyro.sample("mu", flat(constraints.real))
    alpha0 = pyro.sample("alpha0", flat(constraints.positive))
    alpha1 = pyro.sample("alpha1", dist.Beta(1.0, 2.0))
    beta1 = pyro.sample("beta1", dist.Uniform(0.0, 1.0 - alpha1))
    shocks = alpha0 + alpha1 * (y[:-1] - mu) ** 2
    variance = [torch.full_like(mu, sigma1**2)]
    for shock in shocks:
        variance.append(shock + beta1 * variance[-1])
    with pyro.plate("time", len(y)):
        pyro.sample("y", dist.Normal(mu, torch.stack(variance).sqrt()), obs=y)


def gp_pois_regr(k: Tensor, x: Tensor) -> None:
    """Counts whose log rate is a Gaussian process with a squared exponential kernel."""
    rho = pyro.sample("rho", dist.Gamma(25.0, 4.0))
    alpha = pyro.sample("alpha", dist.HalfNormal(2.0))
    z = pyro.sample("z", dist.Normal(0.0, 1.0).expand([len(k)]).to_event(1))
    kernel = alpha**2 * torch.exp(-0.5 * ((x[:, None] - x[None, :]) / rho) ** 2)
    factor = torch.linalg.cholesky(kernel + 1e-10 * torch.eye(len(k), dtype=x.dtype))
    f = pyro.deterministic("f", factor @ z)
    with pyro.plate("point", len(k)):
        pyro.sample("k", dist.Poisson(torch.exp(f)), obs=k)


def low_dim_gauss_mix(y: Tensor) -> None:
    """Two Gaussians with ordered means; the assignments are summed out by enumeration."""
    mu = pyro.sample("mu", flat(constraints.ordered_vector, 2))
    pyro.factor("mu_prior", dist.Normal(0.0, 2.0).log_prob(mu).sum(-1))
    sigma = pyro.sample("sigma", dist.HalfNormal(2.0).expand([2]).to_event(1))
    theta = pyro.sample("theta", dist.Beta(5.0, 5.0))
    weights = torch.stack([theta, 1.0 - theta], dim=-1)
    with pyro.plate("row", len(y)):
        z = pyro.sample("z", dist.Categorical(weights), infer={"enumerate": "parallel"})
        pyro.sample("y", dist.Normal(mu[z], sigma[z]), obs=y)


def hmm_example(y: Tensor) -> None:
    """A hidden Markov chain of two states, summed out by Pyro's own distribution of it."""
    theta1 = pyro.sample("theta1", dist.Dirichlet(torch.ones(2, dtype=y.dtype)))
    theta2 = pyro.sample("theta2", dist.Dirichlet(torch.ones(2, dtype=y.dtype)))
    mu = pyro.sample("mu", flat(constraints.positive_ordered_vector, 2))
    prior = dist.Normal(torch.tensor([3.0, 10.0], dtype=y.dtype), 1.0)
    pyro.factor("mu_prior", prior.log_prob(mu).sum(-1))
    # Pyro's chain steps before its first emission: the first datum is in its initial weights.
    emission = dist.Normal(mu, 1.0)
    first = emission.log_prob(y[0])
    pyro.factor("y_first", first.logsumexp(-1))
    transition = torch.stack([theta1, theta2]).log()
    pyro.sample("y_rest", dist.DiscreteHMM(first, transition, emission), obs=y[1:])

"""The twelve posteriors of posteriordb as NumPyro programs, written from `models.md`."""

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax import Array
from jax.scipy.special import logsumexp
from numpyro.distributions import constraints


def flat(support: constraints.Constraint, *shape: int) -> dist.Distribution:
    """No prior term on a value of this shape (a scalar without one)."""
    return dist.ImproperUniform(support, (), shape)


def eight_schools_centered(y: Array, sigma: Array) -> None:
    """School effects around a common mean, as they are stated: a funnel in (theta, tau)."""
    mu = numpyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = numpyro.sample("tau", dist.HalfCauchy(5.0))
    with numpyro.plate("school", len(y)):
        theta = numpyro.sample("theta", dist.Normal(mu, tau))
        numpyro.sample("y", dist.Normal(theta, sigma), obs=y)


def eight_schools_noncentered(y: Array, sigma: Array) -> None:
    """The same posterior in standardised school effects."""
    mu = numpyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = numpyro.sample("tau", dist.HalfCauchy(5.0))
    with numpyro.plate("school", len(y)):
        z = numpyro.sample("z", dist.Normal(0.0, 1.0))
        theta = numpyro.deterministic("theta", mu + tau * z)
        numpyro.sample("y", dist.Normal(theta, sigma), obs=y)


def kidscore_momiq(kid_score: Array, mom_iq: Array) -> None:
    """Linear regression of test scores on the mother's."""
    beta = numpyro.sample("beta", flat(constraints.real_vector, 2))
    sigma = numpyro.sample("sigma", dist.HalfCauchy(2.5))
    with numpyro.plate("child", len(kid_score)):
        mean = beta[0] + beta[1] * mom_iq
        numpyro.sample("kid_score", dist.Normal(mean, sigma), obs=kid_score)


def logearn_height(earn: Array, height: Array) -> None:
    """Linear regression of log earnings on height."""
    beta = numpyro.sample("beta", flat(constraints.real_vector, 2))
    sigma = numpyro.sample("sigma", flat(constraints.positive))
    with numpyro.plate("person", len(earn)):
        mean = beta[0] + beta[1] * height
        numpyro.sample("log_earn", dist.Normal(mean, sigma), obs=jnp.log(earn))


def nes(partyid7: Array, x: Array) -> None:
    """Linear regression of party identification on nine columns."""
    beta = numpyro.sample("beta", flat(constraints.real_vector, x.shape[-1]))
    sigma = numpyro.sample("sigma", flat(constraints.positive))
    with numpyro.plate("person", len(partyid7)):
        numpyro.sample("partyid7", dist.Normal(x @ beta, sigma), obs=partyid7)


def blr(y: Array, x: Array) -> None:
    """Bayesian linear regression on strongly correlated columns."""
    beta = numpyro.sample("beta", dist.Normal(0.0, 10.0).expand([x.shape[-1]]).to_event(1))
    sigma = numpyro.sample("sigma", dist.HalfNormal(10.0))
    with numpyro.plate("row", len(y)):
        numpyro.sample("y", dist.Normal(x @ beta, sigma), obs=y)


def ark(y: Array, *, order: int) -> None:
    """Autoregression on the last `order` values; the first ones are conditioned on."""
    alpha = numpyro.sample("alpha", dist.Normal(0.0, 10.0))
    beta = numpyro.sample("beta", dist.Normal(0.0, 10.0).expand([order]).to_event(1))
    sigma = numpyro.sample("sigma", dist.HalfCauchy(2.5))
    steps = len(y) - order
    lags = jnp.stack([y[order - k : order - k + steps] for k in range(1, order + 1)], axis=-1)
    with numpyro.plate("time", steps):
        numpyro.sample("y", dist.Normal(alpha + lags @ beta, sigma), obs=y[order:])


def garch11(y: Array, *, sigma1: float) -> None:
    """Volatility that follows the last shock; (alpha1, beta1) uniform on a triangle."""
    mu = numpyro.sample("mu", flat(constraints.real))
    alpha0 = numpyro.sample("alpha0", flat(constraints.positive))
    alpha1 = numpyro.sample("alpha1", dist.Beta(1.0, 2.0))
    beta1 = numpyro.sample("beta1", dist.Uniform(0.0, 1.0 - alpha1))

    def step(variance: Array, shock: Array) -> tuple[Array, Array]:
        variance = alpha0 + alpha1 * shock**2 + beta1 * variance
        return variance, variance

    first = jnp.full_like(mu, sigma1**2)
    _, rest = jax.lax.scan(step, first, y[:-1] - mu)
    variance = jnp.concatenate([first[None], rest])
    with numpyro.plate("time", len(y)):
        numpyro.sample("y", dist.Normal(mu, jnp.sqrt(variance)), obs=y)


def gp_pois_regr(k: Array, x: Array) -> None:
    """Counts whose log rate is a Gaussian process with a squared exponential kernel."""
    rho = numpyro.sample("rho", dist.Gamma(25.0, 4.0))
    alpha = numpyro.sample("alpha", dist.HalfNormal(2.0))
    z = numpyro.sample("z", dist.Normal(0.0, 1.0).expand([len(k)]).to_event(1))
    kernel = alpha**2 * jnp.exp(-0.5 * ((x[:, None] - x[None, :]) / rho) ** 2)
    factor = jnp.linalg.cholesky(kernel + 1e-10 * jnp.eye(len(k)))
    f = numpyro.deterministic("f", factor @ z)
    with numpyro.plate("point", len(k)):
        numpyro.sample("k", dist.Poisson(jnp.exp(f)), obs=k)


def low_dim_gauss_mix(y: Array) -> None:
    """Two Gaussians with ordered means; the assignments are summed out by enumeration."""
    mu = numpyro.sample("mu", flat(constraints.ordered_vector, 2))
    numpyro.factor("mu_prior", dist.Normal(0.0, 2.0).log_prob(mu).sum(-1))
    sigma = numpyro.sample("sigma", dist.HalfNormal(2.0).expand([2]).to_event(1))
    theta = numpyro.sample("theta", dist.Beta(5.0, 5.0))
    weights = jnp.stack([theta, 1.0 - theta], axis=-1)
    with numpyro.plate("row", len(y)):
        z = numpyro.sample("z", dist.Categorical(weights), infer={"enumerate": "parallel"})
        numpyro.sample("y", dist.Normal(mu[z], sigma[z]), obs=y)


def hmm_example(y: Array) -> None:
    """A hidden Markov chain of two states, summed out by the forward algorithm."""
    theta1 = numpyro.sample("theta1", dist.Dirichlet(jnp.ones(2)))
    theta2 = numpyro.sample("theta2", dist.Dirichlet(jnp.ones(2)))
    mu = numpyro.sample("mu", flat(constraints.positive_ordered_vector, 2))
    numpyro.factor("mu_prior", dist.Normal(jnp.array([3.0, 10.0]), 1.0).log_prob(mu).sum(-1))
    log_transition = jnp.log(jnp.stack([theta1, theta2]))
    log_emission = dist.Normal(mu, 1.0).log_prob(y[:, None])

    def step(forward: Array, emission: Array) -> tuple[Array, None]:
        return logsumexp(forward[:, None] + log_transition, axis=0) + emission, None

    forward, _ = jax.lax.scan(step, log_emission[0], log_emission[1:])
    numpyro.factor("y", logsumexp(forward))


def lotka_volterra(y: Array, y_init: Array, *, steps_per_year: int = 10) -> None:
    """Hares and lynxes over twenty years, log-normal about the solution of the rate equations.

    The equations are solved for the logarithms, which cannot leave the positive quadrant, by the
    classical Runge-Kutta method of fixed step.
    """
    rates = dist.TruncatedNormal(
        jnp.array([1.0, 0.05, 1.0, 0.05]), jnp.array([0.5, 0.05, 0.5, 0.05]), low=0.0
    )
    theta = numpyro.sample("theta", rates.to_event(1))
    sigma = numpyro.sample("sigma", dist.LogNormal(-1.0, 1.0).expand([2]).to_event(1))
    prior = dist.LogNormal(jnp.log(10.0), 1.0).expand([2]).to_event(1)
    z_init = numpyro.sample("z_init", prior)

    def rate(log_z: Array) -> Array:
        hare, lynx = jnp.exp(log_z)
        return jnp.stack([theta[0] - theta[1] * lynx, -theta[2] + theta[3] * hare])

    def step(log_z: Array, _: None) -> tuple[Array, None]:
        h = 1.0 / steps_per_year
        k1 = rate(log_z)
        k2 = rate(log_z + 0.5 * h * k1)
        k3 = rate(log_z + 0.5 * h * k2)
        k4 = rate(log_z + h * k3)
        return log_z + h * (k1 + 2.0 * k2 + 2.0 * k3 + k4) / 6.0, None

    def year(log_z: Array, _: None) -> tuple[Array, Array]:
        log_z, _ = jax.lax.scan(step, log_z, None, length=steps_per_year)
        return log_z, log_z

    _, log_z = jax.lax.scan(year, jnp.log(z_init), None, length=len(y))
    numpyro.sample("y_init", dist.LogNormal(jnp.log(z_init), sigma).to_event(1), obs=y_init)
    with numpyro.plate("year", len(y)):
        numpyro.sample("y", dist.LogNormal(log_z, sigma).to_event(1), obs=y)

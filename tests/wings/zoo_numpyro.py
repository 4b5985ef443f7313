"""Small native programs for the contract tests: the NumPyro twin of `zoo_pyro.py`."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
from jax import Array, random
from numpyro import handlers
from numpyro.infer.autoguide import (
    AutoDelta,
    AutoLaplaceApproximation,
    AutoMultivariateNormal,
    AutoNormal,
)
from numpyro.infer.reparam import LocScaleReparam


def normal_mean(y: Array) -> None:
    """An unknown mean: mean ~ N(0, 1), y_i ~ N(mean, 1)."""
    mean = numpyro.sample("mean", dist.Normal(0.0, 1.0))
    with numpyro.plate("data", len(y)):
        numpyro.sample("y", dist.Normal(mean, 1.0), obs=y)


def normal_mean_guide(y: Array) -> None:
    """A normal around a parameter that starts at 5."""
    loc = numpyro.param("loc", jnp.array(5.0))
    numpyro.sample("mean", dist.Normal(loc, 0.1))


def tilted(y: Array) -> None:
    """An unknown mean whose density a factor tilts."""
    normal_mean(y)
    numpyro.factor("tilt", jnp.array(0.5))


def line(x: Array, y: Array | None = None) -> None:
    """A line through the origin, its mean kept: slope ~ N(0, 1), y_i ~ N(slope x_i, 1/2)."""
    slope = numpyro.sample("slope", dist.Normal(0.0, 1.0))
    with numpyro.plate("data", len(x)):
        mu = numpyro.deterministic("mu", slope * x)
        numpyro.sample("y", dist.Normal(mu, 0.5), obs=y)


def regression(x: Array, y: Array) -> None:
    """A linear regression: weights ~ N(0, I), y_i ~ N(x_i . weights, 1/2)."""
    weights = numpyro.sample("weights", dist.Normal(0.0, 1.0).expand([x.shape[1]]).to_event(1))
    with numpyro.plate("data", len(x)):
        numpyro.sample("y", dist.Normal(x @ weights, 0.5), obs=y)


def eight_schools(y: Array, sigma: Array) -> None:
    """Eight schools, not centred: obs_i ~ N(mu + tau z_i, sigma_i)."""
    mu = numpyro.sample("mu", dist.Normal(0.0, 5.0))
    tau = numpyro.sample("tau", dist.HalfCauchy(5.0))
    with numpyro.plate("school", len(y)):
        z = numpyro.sample("z", dist.Normal(0.0, 1.0))
        numpyro.sample("obs", dist.Normal(mu + tau * z, sigma), obs=y)


def mixture(x: Array) -> None:
    """Two Gaussian components of two features; each datum belongs to one of them."""
    weight = numpyro.sample("weight", dist.Dirichlet(jnp.ones(2)))
    with numpyro.plate("component", 2):
        mean = numpyro.sample("mean", dist.Normal(jnp.zeros(2), 3.0).to_event(1))
        sd = numpyro.sample("sd", dist.LogNormal(jnp.zeros(2), 1.0).to_event(1))
    with numpyro.plate("data", len(x)):
        member = numpyro.sample("member", dist.Categorical(weight))
        numpyro.sample("x", dist.Normal(mean[member], sd[member]).to_event(1), obs=x)


def sgd(rate: float) -> optax.GradientTransformation:
    """Plain gradient descent."""
    return optax.sgd(rate)


def adam(rate: float) -> optax.GradientTransformation:
    """Adam."""
    return optax.adam(rate)


def to_numpy(value: Array) -> np.ndarray:
    """A learned value on the host."""
    return np.asarray(value)


def auto_normal(model: Callable[..., None]) -> AutoNormal:
    """The mean-field autoguide."""
    return AutoNormal(model)


def auto_laplace(model: Callable[..., None]) -> AutoLaplaceApproximation:
    """The autoguide of the normal at the mode."""
    return AutoLaplaceApproximation(model)


def auto_point(model: Callable[..., None]) -> AutoDelta:
    """The autoguide of the mode alone."""
    return AutoDelta(model)


def loose_guide(y: Array) -> None:
    """A normal whose location and scale are learned."""
    loc = numpyro.param("loc", 0.5)
    scale = numpyro.param("scale", 0.5, constraint=dist.constraints.positive)
    numpyro.sample("mean", dist.Normal(loc, scale))


def mean_only(y: Array) -> None:
    """Maximum likelihood: y_i ~ N(loc, 1)."""
    loc = numpyro.param("loc", 0.0)
    with numpyro.plate("data", len(y)):
        numpyro.sample("y", dist.Normal(loc, 1.0), obs=y)


def empty_guide(y: Array) -> None:
    """A guide without sites."""


def guide_of_another(y: Array) -> None:
    """A guide with a site that `normal_mean` lacks."""
    loose_guide(y)
    numpyro.sample("slope", dist.Normal(0.0, 1.0))


def observing_guide(y: Array) -> None:
    """A guide that conditions on a site that `normal_mean` lacks."""
    loose_guide(y)
    numpyro.sample("w", dist.Normal(0.0, 1.0), obs=jnp.zeros(()))


def wide_guide(y: Array) -> None:
    """A guide whose site has another shape than the model's."""
    numpyro.sample("mean", dist.Normal(numpyro.param("loc", jnp.zeros(3)), 1.0))


def subsampling(y: Array) -> None:
    """A model that subsamples by itself."""
    mean = numpyro.sample("mean", dist.Normal(0.0, 1.0))
    with numpyro.plate("data", len(y), subsample_size=5) as rows:
        numpyro.sample("y", dist.Normal(mean, 1.0), obs=y[rows])


def plateless(y: Array) -> None:
    """A vectorised model without a plate."""
    mean = numpyro.sample("mean", dist.Normal(0.0, 1.0))
    numpyro.sample("y", dist.Normal(mean, 1.0).expand(y.shape).to_event(1), obs=y)


def factor_outside(y: Array) -> None:
    """A model with a factor of the data outside its plate."""
    normal_mean(y)
    numpyro.factor("tilt", -0.01 * y.sum())


def hidden_coins(y: Array) -> None:
    """A coin per row that shifts it: b_i ~ Bernoulli(0.3), y_i ~ N(b_i, 1)."""
    with numpyro.plate("data", len(y)):
        b = numpyro.sample("b", dist.Bernoulli(0.3))
        numpyro.sample("y", dist.Normal(b, 1.0), obs=y)


def hidden_coins_guide(y: Array) -> None:
    """One learned probability for all coins: draws without gradient."""
    logit = numpyro.param("logit", 0.4)
    with numpyro.plate("data", len(y)):
        numpyro.sample("b", dist.Bernoulli(logits=logit))


def hierarchical(x: Array) -> None:
    """A shared mean and one latent per datum: mu ~ N(0, 1), z_i ~ N(mu, 1), x_i ~ N(z_i, 1)."""
    mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))
    with numpyro.plate("data", len(x)):
        z = numpyro.sample("z", dist.Normal(mu, 1.0))
        numpyro.sample("x", dist.Normal(z, 1.0), obs=x)


def hierarchical_guide(x: Array) -> None:
    """A normal for the mean and, for each datum, one that is linear in it."""
    loc = numpyro.param("loc", jnp.array(0.2))
    slope = numpyro.param("slope", jnp.array(0.4))
    numpyro.sample("mu", dist.Normal(loc, 0.5))
    with numpyro.plate("data", len(x)):
        numpyro.sample("z", dist.Normal(slope * x, 0.7))


def hierarchical_table(x: Array) -> None:
    """A normal for the mean and, for each datum, one with a location of its own."""
    numpyro.sample("mu", dist.Normal(numpyro.param("loc", jnp.array(0.2)), 0.5))
    table = numpyro.param("table", jnp.zeros(len(x)))
    with numpyro.plate("data", len(x)):
        numpyro.sample("z", dist.Normal(table, 0.7))


def local_normal(x: Array) -> None:
    """One latent per datum: z_i ~ N(0, 1), x_i ~ N(z_i, 1), so that x_i ~ N(0, 2)."""
    with numpyro.plate("data", len(x)):
        z = numpyro.sample("z", dist.Normal(0.0, 1.0))
        numpyro.sample("x", dist.Normal(z, 1.0), obs=x)


def local_normal_guide(x: Array) -> None:
    """A normal linear in the datum, wider than the posterior."""
    slope = numpyro.param("slope", jnp.array(0.4))
    with numpyro.plate("data", len(x)):
        numpyro.sample("z", dist.Normal(slope * x, 0.9))


def coupled_guide(x: Array) -> None:
    """A normal that looks at the mean of all data, so that rows touch each other."""
    slope = numpyro.param("slope", jnp.array(0.4))
    with numpyro.plate("data", len(x)):
        numpyro.sample("z", dist.Normal(slope * x + 0.1 * x.mean(), 0.9))


def plated_factor(x: Array) -> None:
    """An unknown mean whose likelihood is a factor in the data plate, tilted by one outside."""
    mean = numpyro.sample("mean", dist.Normal(0.0, 1.0))
    numpyro.factor("tilt", 0.3 * mean)
    with numpyro.plate("data", len(x)):
        numpyro.factor("likelihood", -0.5 * (x - mean) ** 2)


def mean_guide(x: Array) -> None:
    """A normal for `mean`."""
    numpyro.sample("mean", dist.Normal(numpyro.param("loc", jnp.array(0.5)), 0.3))


def two_sources(x: Array, y: Array) -> None:
    """One mean seen by two plates that both follow the data."""
    mean = numpyro.sample("mean", dist.Normal(0.0, 1.0))
    with numpyro.plate("first", len(x)):
        numpyro.sample("x", dist.Normal(mean, 1.0), obs=x)
    with numpyro.plate("second", len(y)):
        numpyro.sample("y", dist.Normal(mean, 2.0), obs=y)


def two_sources_guide(x: Array, y: Array) -> None:
    """A normal for `mean`."""
    mean_guide(x)


def nested(x: Array) -> None:
    """A mean per feature; data and features are two nested plates."""
    features = numpyro.plate("features", x.shape[1], dim=-1)
    with features:
        mean = numpyro.sample("mean", dist.Normal(0.0, 1.0))
    with numpyro.plate("data", len(x), dim=-2), features:
        numpyro.sample("x", dist.Normal(mean, 1.0), obs=x)


def nested_guide(x: Array) -> None:
    """A normal per feature."""
    loc = numpyro.param("loc", jnp.full(x.shape[1], 0.5))
    with numpyro.plate("features", x.shape[1], dim=-1):
        numpyro.sample("mean", dist.Normal(loc, 0.3))


def scaled_prior(weights: Array, x: Array) -> None:
    """An unknown mean with a prior bound to the program: mean ~ N(weights[0], weights[1])."""
    mean = numpyro.sample("mean", dist.Normal(weights[0], weights[1]))
    with numpyro.plate("data", len(x)):
        numpyro.sample("x", dist.Normal(mean, 1.0), obs=x)


def handled(name: str):
    """`hierarchical` under one of the language's handlers."""
    return {
        "reparam": lambda: handlers.reparam(hierarchical, config={"z": LocScaleReparam(0.0)}),
        "mask": lambda: handlers.mask(hierarchical, mask=False),
        "scale": lambda: handlers.scale(hierarchical, scale=2.0),
        "block": lambda: handlers.block(hierarchical, hide=["x"]),
        "condition": lambda: handlers.condition(hierarchical, data={"mu": jnp.array(0.7)}),
        "substitute": lambda: handlers.substitute(hierarchical, data={"mu": jnp.array(0.7)}),
    }[name]()


def unit_normal(x: Array) -> None:
    """Data of a known law: x_i ~ N(loc, 1), with loc a parameter."""
    loc = numpyro.param("loc", jnp.array(0.0))
    with numpyro.plate("data", len(x)):
        numpyro.sample("x", dist.Normal(loc, 1.0), obs=x)


doubled = handlers.scale(unit_normal, scale=2.0)


def with_constant(x: Array, sd: float = 1.0) -> None:
    """An unknown mean seen with noise of a constant sd."""
    mean = numpyro.sample("mean", dist.Normal(0.0, 1.0))
    with numpyro.plate("data", len(x)):
        numpyro.sample("x", dist.Normal(mean, sd), obs=x)


def with_constant_guide(x: Array, sd: float = 1.0) -> None:
    """A normal whose sd is a fraction of the constant."""
    numpyro.sample("mean", dist.Normal(numpyro.param("loc", jnp.array(0.0)), 0.2 * sd))


def auto_full(model: Callable[..., None]) -> AutoMultivariateNormal:
    """The autoguide with a full covariance of all latents."""
    return AutoMultivariateNormal(model)


def positive(y: Array) -> None:
    """Positive data of unknown location: mean ~ N(0, 1), y_i ~ LogNormal(mean, 1)."""
    mean = numpyro.sample("mean", dist.Normal(0.0, 1.0))
    with numpyro.plate("data", len(y)):
        numpyro.sample("y", dist.LogNormal(mean, 1.0), obs=y)


def decoder(x: Array) -> None:
    """One latent per datum and learned weights: x_i ~ N(weight z_i + bias, 1)."""
    weight = numpyro.param("weight", jnp.array(1.0))
    bias = numpyro.param("bias", jnp.array(0.0))
    with numpyro.plate("data", len(x)):
        z = numpyro.sample("z", dist.Normal(0.0, 1.0))
        numpyro.sample("x", dist.Normal(weight * z + bias, 1.0), obs=x)


def two_coins(y: Array) -> None:
    """A shared shift and a coin per datum: b_i ~ Bernoulli(1/2), y_i ~ N(shift + 9 b_i - 4, 1)."""
    shift = numpyro.sample("shift", dist.Normal(0.0, 1.0))
    with numpyro.plate("data", len(y)):
        b = numpyro.sample("b", dist.Bernoulli(0.5))
        numpyro.sample("y", dist.Normal(shift + 9.0 * b - 4.0, 1.0), obs=y)


def exact_guide(x: Array) -> None:
    """The posterior of `local_normal`: z_i ~ N(x_i / 2, 1/2)."""
    with numpyro.plate("data", len(x)):
        numpyro.sample("z", dist.Normal(0.5 * x, 0.5**0.5))


def coins(x: Array) -> None:
    """A coin per datum that shifts its mean: k_i ~ Bernoulli(0.3), x_i ~ N(mean + 2 k_i, 1)."""
    mean = numpyro.sample("mean", dist.Normal(0.0, 1.0))
    with numpyro.plate("data", len(x)):
        k = numpyro.sample("k", dist.Bernoulli(0.3), infer={"enumerate": "parallel"})
        numpyro.sample("x", dist.Normal(mean + 2.0 * k, 1.0), obs=x)


def marginal_coins(x: Array) -> None:
    """`coins` with the coins summed out."""
    mean = numpyro.sample("mean", dist.Normal(0.0, 1.0))
    shifts = dist.Normal(mean + jnp.array([0.0, 2.0]), 1.0)
    with numpyro.plate("data", len(x)):
        mixture = dist.MixtureSameFamily(dist.Categorical(jnp.array([0.7, 0.3])), shifts)
        numpyro.sample("x", mixture, obs=x)


def networks(library: str) -> tuple[Callable[..., None], Callable[..., None]]:
    """A linear VAE of two latents and six pixels in one of the network libraries."""
    import equinox as eqx
    from flax import linen, nnx
    from numpyro.contrib.module import eqx_module, flax_module, nnx_module

    class Normalised(nnx.Module):
        def __init__(self, inputs: int, outputs: int) -> None:
            self.linear = nnx.Linear(inputs, outputs, rngs=nnx.Rngs(inputs))
            self.norm = nnx.BatchNorm(outputs, rngs=nnx.Rngs(0))

        def __call__(self, x: Array) -> Array:
            return self.norm(self.linear(x))

    class NormalisedLinen(linen.Module):
        outputs: int

        @linen.compact
        def __call__(self, x: Array) -> Array:
            return linen.BatchNorm(use_running_average=False)(linen.Dense(self.outputs)(x))

    sizes = {"decoder": (2, 6), "encoder": (6, 4)}
    linear = {n: eqx.nn.Linear(*size, key=random.key(0)) for n, size in sizes.items()}
    plain = {n: nnx.Linear(*size, rngs=nnx.Rngs(0)) for n, size in sizes.items()}
    normalised = {n: Normalised(*size) for n, size in sizes.items()}

    def net(name: str) -> Callable[[Array], Array]:
        inputs, outputs = sizes[name]
        if library == "equinox":
            return jax.vmap(eqx_module(name, linear[name]))
        if library.startswith("nnx"):
            return nnx_module(name, (plain if library == "nnx" else normalised)[name])
        shape = (1, inputs)
        if library == "flax":
            return flax_module(name, linen.Dense(outputs), input_shape=shape)
        layer = NormalisedLinen(outputs)
        return flax_module(name, layer, input_shape=shape, mutable=["batch_stats"])

    def model(x: Array) -> None:
        decoder = net("decoder")
        with numpyro.plate("data", len(x)):
            z = numpyro.sample("z", dist.Normal(jnp.zeros(2), 1.0).to_event(1))
            numpyro.sample("x", dist.Normal(decoder(z), 1.0).to_event(1), obs=x)

    def guide(x: Array) -> None:
        loc, log_scale = jnp.split(net("encoder")(x), 2, axis=-1)
        with numpyro.plate("data", len(x)):
            numpyro.sample("z", dist.Normal(loc, jnp.exp(log_scale)).to_event(1))

    return model, guide


def cusp(y: Array) -> None:
    """Finite log density everywhere, whose gradient at the start is not."""
    loc = numpyro.param("loc", jnp.array(0.0))
    numpyro.factor("root", -jnp.sqrt(jnp.abs(loc)))
    with numpyro.plate("data", len(y)):
        numpyro.sample("y", dist.Normal(loc, 1.0), obs=y)


def random_walk(x: Array) -> None:
    """Each datum sees the sum of the latents up to its own, so that rows touch each other."""
    with numpyro.plate("data", len(x)):
        z = numpyro.sample("z", dist.Normal(0.0, 1.0))
        numpyro.sample("x", dist.Normal(jnp.cumsum(z), 1.0), obs=x)


def coin_walk(x: Array) -> None:
    """Each datum sees the number of heads up to its own coin."""
    with numpyro.plate("data", len(x)):
        z = numpyro.sample("z", dist.Bernoulli(0.9))
        numpyro.sample("x", dist.Normal(jnp.cumsum(z), 1.0), obs=x)


def line_guide(x: Array, y: Array | None = None) -> None:
    """A narrow normal over the slope."""
    loc = numpyro.param("loc", jnp.array(0.0))
    numpyro.sample("slope", dist.Normal(loc, 0.1))


half_coins = handlers.scale(hidden_coins, scale=0.5)
half_coins_guide = handlers.scale(hidden_coins_guide, scale=0.5)


def waiting(y: Array) -> None:
    """Waiting times of an unknown rate: rate ~ Gamma(2, 1), y_i ~ Exponential(rate)."""
    rate = numpyro.sample("rate", dist.Gamma(2.0, 1.0))
    with numpyro.plate("data", len(y)):
        numpyro.sample("y", dist.Exponential(rate), obs=y)


def two_modes(y: Array) -> None:
    """A place near 8 or -8, with 3/4 and 1/4: where ~ N(0, 4), seen with 8 added or taken."""
    where = numpyro.sample("where", dist.Normal(0.0, 4.0))
    weights = dist.Categorical(jnp.array([0.75, 0.25]))
    with numpyro.plate("data", len(y)):
        signs = dist.Normal(jnp.stack([where - 8.0, where + 8.0], -1), 0.5)
        numpyro.sample("y", dist.MixtureSameFamily(weights, signs), obs=y)


def columns(xy: Array) -> None:
    """A line through the origin whose covariate and datum are two columns of one array."""
    slope = numpyro.sample("slope", dist.Normal(0.0, 1.0))
    with numpyro.plate("data", len(xy)):
        numpyro.sample("y", dist.Normal(slope * xy[:, 0], 0.5), obs=xy[:, 1])


def logarithms(y: Array) -> None:
    """An unknown mean of the logarithms of the data."""
    mean = numpyro.sample("mean", dist.Normal(0.0, 1.0))
    with numpyro.plate("data", len(y)):
        numpyro.sample("log_y", dist.Normal(mean, 1.0), obs=jnp.log(y))


def autoregression(x: Array) -> None:
    """Each datum leans on the one before it: x_i ~ N(a x_{i-1}, 1)."""
    a = numpyro.sample("a", dist.Normal(0.0, 0.5))
    before = jnp.concatenate([jnp.zeros(1), x[:-1]])
    with numpyro.plate("data", len(x)):
        numpyro.sample("x", dist.Normal(a * before, 1.0), obs=x)


def flat_mean(y: Array) -> None:
    """An unknown mean of improper prior."""
    mean = numpyro.sample("mean", dist.ImproperUniform(dist.constraints.real, (), ()))
    with numpyro.plate("data", len(y)):
        numpyro.sample("y", dist.Normal(mean, 1.0), obs=y)


def slope_guide(x: Array) -> None:
    """A guide of `local_normal` that is its posterior when its slope is 1/2."""
    slope = numpyro.param("slope", jnp.array(0.4))
    with numpyro.plate("data", len(x)):
        numpyro.sample("z", dist.Normal(slope * x, 0.5**0.5))


def shifted_guide(x: Array) -> None:
    """A guide of `local_normal` whose mean is 0.3 too high once its slope is learned."""
    slope = numpyro.param("slope", jnp.array(0.4))
    with numpyro.plate("data", len(x)):
        numpyro.sample("z", dist.Normal(slope * x + 0.3, 0.5**0.5))


def shift_guide(x: Array) -> None:
    """A guide of `two_coins` that leaves its coins to be summed out."""
    numpyro.sample("shift", dist.Normal(0.0, 1.0))

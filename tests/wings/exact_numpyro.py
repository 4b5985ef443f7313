"""Programs with discrete latents in native NumPyro, and their log density at many states."""

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
import optax
from numpyro import handlers
from numpyro.contrib.control_flow import scan
from numpyro.infer.util import log_density

ROWS = jnp.array([0.3, 0.5, 0.2])
MOVES = jnp.array([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.3, 0.3, 0.4]])
MEANS = jnp.array([-1.0, 0.5, 2.0])


def mixture(x):
    """A component for each row."""
    with numpyro.plate("data", len(x)):
        z = numpyro.sample("z", dist.Categorical(ROWS))
        numpyro.sample("x", dist.Normal(MEANS[z], 1.0), obs=x)


def student():
    """Difficulty, intelligence, grade, SAT and letter, statement by statement."""
    hard = numpyro.sample("hard", dist.Bernoulli(0.4))
    clever = numpyro.sample("clever", dist.Bernoulli(0.3))
    logits = jnp.stack([1.0 + 2.0 * clever - hard, 0.5 * clever, 1.5 * hard], -1)
    grade = numpyro.sample("grade", dist.Categorical(logits=logits))
    numpyro.sample("sat", dist.Bernoulli(0.05 + 0.75 * clever))
    numpyro.sample("letter", dist.Bernoulli(jnp.array([0.9, 0.6, 0.05])[grade]))


def hidden_states(y):
    """A chain of hidden states."""

    def step(z, y):
        z = numpyro.sample("z", dist.Categorical(MOVES[z]))
        numpyro.sample("y", dist.Normal(MEANS[z], 1.0), obs=y)
        return z, None

    scan(step, 0, y)


def chain_names(length):
    """The names of the hidden states, in order."""
    return ["z"]


def tree(size):
    """Each state depends on the one halfway to the root."""
    z = []
    for i in range(size):
        prob = 0.3 + 0.4 * z[(i - 1) // 2] if i else 0.5
        z.append(numpyro.sample(f"z{i}", dist.Bernoulli(prob)))


def nested(x):
    """A state for each row, one for each cell of it."""
    with numpyro.plate("data", x.shape[0], dim=-2):
        z = numpyro.sample("z", dist.Bernoulli(0.3))
        with numpyro.plate("columns", x.shape[1], dim=-1):
            w = numpyro.sample("w", dist.Bernoulli(0.2 + 0.6 * z))
            numpyro.sample("x", dist.Normal(w, 1.0), obs=x)


def crossed(x):
    """A state for each column, which all rows share, and one for each cell."""
    with numpyro.plate("columns", x.shape[1], dim=-1):
        c = numpyro.sample("c", dist.Bernoulli(0.4))
        with numpyro.plate("data", x.shape[0], dim=-2):
            z = numpyro.sample("z", dist.Bernoulli(0.3 + 0.4 * c))
            numpyro.sample("x", dist.Normal(z + c, 1.0), obs=x)


def events(x):
    """Three independent switches a row, in one site with an event."""
    with numpyro.plate("data", len(x)):
        z = numpyro.sample("z", dist.Bernoulli(jnp.array([0.3, 0.6, 0.5])).to_event(1))
        numpyro.sample("x", dist.Normal(2.0 * z, 1.0).to_event(1), obs=x)


def touching(x):
    """Rows that touch each other: each sees the sum of all states up to its own."""
    with numpyro.plate("data", len(x)):
        z = numpyro.sample("z", dist.Bernoulli(0.3))
        numpyro.sample("x", dist.Normal(z.cumsum(-1), 1.0), obs=x)


def handled(x):
    """Half of the rows masked, all scaled, a factor beside them."""
    even = jnp.arange(len(x)) % 2 == 0
    with numpyro.plate("data", len(x)), handlers.scale(scale=1.5), handlers.mask(mask=even):
        z = numpyro.sample("z", dist.Bernoulli(0.3))
        numpyro.sample("x", dist.Normal(z, 1.0), obs=x)
        numpyro.factor("likes", 0.7 * z)


def regression(x):
    """A continuous mean beside the components."""
    mean = numpyro.sample("mean", dist.Normal(0.0, 1.0))
    with numpyro.plate("data", len(x)):
        z = numpyro.sample("z", dist.Bernoulli(jax.nn.sigmoid(mean)))
        numpyro.sample("x", dist.Normal(mean + z, 1.0), obs=x)


def counted():
    """States that are counts."""
    count = numpyro.sample("count", dist.Binomial(3, 0.4))
    numpyro.sample("seen", dist.Normal(count, 1.0), obs=1.7)


def missing(x, seen):
    """Observed where `seen` says so."""
    with numpyro.plate("data", len(x)):
        z = numpyro.sample("z", dist.Categorical(ROWS))
        numpyro.sample("x", dist.Categorical(MOVES[z]), obs=x, obs_mask=seen)


def pixels(x, seen):
    """Rows of three switches, each row seen or not."""
    probs = jnp.array([[0.2, 0.9, 0.5], [0.7, 0.3, 0.5], [0.5, 0.5, 0.5]])
    with numpyro.plate("data", len(x)):
        z = numpyro.sample("z", dist.Categorical(ROWS))
        numpyro.sample("x", dist.Bernoulli(probs[z]).to_event(1), obs=x, obs_mask=seen)


def features(x, seen):
    """Measurements of which some are missing, each with its own mask."""
    with numpyro.plate("data", x.shape[0], dim=-2):
        z = numpyro.sample("z", dist.Categorical(ROWS))
        with numpyro.plate("features", x.shape[1], dim=-1):
            numpyro.sample("x", dist.Normal(MEANS[z], 1.0), obs=x, obs_mask=seen)


def downstream(x, seen):
    """Something depends on the missing measurements."""
    with numpyro.plate("data", len(x)):
        z = numpyro.sample("z", dist.Categorical(ROWS))
        x = numpyro.sample("x", dist.Normal(MEANS[z], 1.0), obs=x, obs_mask=seen)
        numpyro.sample("y", dist.Normal(x, 1.0), obs=0.0 * MEANS[z])


def subsampling(x):
    """A program that draws a part of the rows by itself."""
    with numpyro.plate("data", len(x), subsample_size=2) as rows:
        z = numpyro.sample("z", dist.Categorical(ROWS))
        numpyro.sample("x", dist.Normal(MEANS[z], 1.0), obs=x[rows])


def grouped(group, x):
    """A state for each group, rows that pick theirs by index."""
    with numpyro.plate("groups", 30):
        z = numpyro.sample("z", dist.Bernoulli(0.3))
    with numpyro.plate("data", len(x)):
        numpyro.sample("x", dist.Normal(2.0 * z[group], 1.0), obs=x)


def switched(x, weight):
    """Rows that touch the state of another row where the data say so."""
    with numpyro.plate("data", len(x)):
        z = numpyro.sample("z", dist.Bernoulli(0.3))
        numpyro.sample("x", dist.Normal(z + weight * z[::-1], 1.0), obs=x)


def field(size):
    """A row of binary states, neighbours coupled in one statement."""
    with numpyro.plate("sites", size):
        z = 2.0 * numpyro.sample("z", dist.Bernoulli(0.5)) - 1.0
    with numpyro.plate("edges", size - 1):
        numpyro.factor("couplings", 0.7 * z[1:] * z[:-1])


def entangled(x):
    """Everything touches everything."""
    with numpyro.plate("sites", 40):
        z = numpyro.sample("z", dist.Bernoulli(0.5))
    numpyro.sample("x", dist.Normal(z.sum(), 1.0), obs=x)


def unlimited():
    """A latent without end."""
    numpyro.sample("count", dist.Poisson(2.0))


def random_net(parents, weights):
    """Binary states, each a logistic function of its parents."""
    z = []
    for i, own in enumerate(parents):
        logit = weights[i, i] + sum(weights[i, j] * z[j] for j in own)
        z.append(numpyro.sample(f"z{i}", dist.Bernoulli(logits=logit)))
    numpyro.sample("y", dist.Normal(z[0] - z[-1], 1.0), obs=0.4)


def learned(x):
    """Weights and means to be learned."""
    weights = numpyro.param("weights", jnp.ones(3) / 3, constraint=dist.constraints.simplex)
    means = numpyro.param("means", jnp.array([-1.0, 0.0, 1.0]))
    with numpyro.plate("data", len(x)):
        z = numpyro.sample("z", dist.Categorical(weights))
        numpyro.sample("x", dist.Normal(means[z], 1.0), obs=x)


def tensors(data):
    """Data as the program indexes them."""
    return tuple(map(jnp.asarray, data))


def log_densities(model, data, values):
    """Joint log density at many values of all latents, `(S,)`.

    Args:
        model: A program.
        data: Its data.
        values: Values of each site, with a leading axis of S.
    """
    one = lambda own: log_density(model, data, {}, own)[0]  # noqa: E731
    return jax.jit(jax.vmap(one))({name: jnp.asarray(value) for name, value in values.items()})


def learned_chain(y):
    """Hidden states whose persistence and means are to be learned."""
    stay = numpyro.param("stay", 0.7, constraint=dist.constraints.unit_interval)
    means = numpyro.param("means", jnp.array([-1.0, 1.0]))
    rows = jnp.array([[stay, 1 - stay], [1 - stay, stay]])

    def step(z, y):
        z = numpyro.sample("z", dist.Categorical(rows[z]))
        numpyro.sample("y", dist.Normal(means[z], 1.0), obs=y)
        return z, None

    scan(step, 0, y)


def unknown_means(x):
    """Components with means of normal prior."""
    means = numpyro.sample("means", dist.Normal(jnp.array([-2.0, 2.0]), 1.0).to_event(1))
    with numpyro.plate("data", len(x)):
        z = numpyro.sample("z", dist.Categorical(jnp.array([0.3, 0.7])))
        numpyro.sample("x", dist.Normal(means[z], 1.0), obs=x)


def normal_guide(x):
    """Independent normals over the means, their locations to be learned."""
    loc = numpyro.param("loc", jnp.array([-2.0, 2.0]))
    scale = numpyro.param("scale", jnp.full(2, 0.2), constraint=dist.constraints.positive)
    numpyro.sample("means", dist.Normal(loc, scale).to_event(1))


def greedy_guide(x):
    """A guide that draws the components too."""
    normal_guide(x)
    with numpyro.plate("data", len(x)):
        numpyro.sample("z", dist.Categorical(jnp.array([0.5, 0.5])))


def joined(x):
    """A state that all rows share."""
    shift = numpyro.param("shift", 1.0)
    s = numpyro.sample("s", dist.Bernoulli(0.4))
    with numpyro.plate("data", len(x)):
        numpyro.sample("x", dist.Normal(shift * s, 1.0), obs=x)


def plain(x):
    """No discrete latent."""
    loc = numpyro.param("loc", 0.0)
    with numpyro.plate("data", len(x)):
        numpyro.sample("x", dist.Normal(loc, 1.0), obs=x)


def many(y):
    """A level, and a chain of more states than NumPyro enumerates, statement by statement."""
    level = numpyro.sample("level", dist.Normal(0.0, 1.0))
    z = 0.0
    for i in range(len(y)):
        z = numpyro.sample(f"z{i}", dist.Bernoulli(0.2 + 0.5 * z))
        numpyro.sample(f"y{i}", dist.Normal(level + 2.0 * z, 1.0), obs=y[i])


def level_guide(y):
    """A wide guide of the level."""
    numpyro.sample("level", dist.Normal(0.3, 0.5))


def adam(rate):
    """The language's way to say Adam at a rate."""
    return optax.adam(rate)


SHIFT = 0.0
"""What a program adds, as a global."""


def adjusted(settings):
    """A program whose surroundings can be changed: numbers and arrays in a dict, and a global."""

    def model(x, scale=1.0):
        means = jnp.asarray(settings["means"]) * settings["factor"] + SHIFT
        with numpyro.plate("data", len(x)):
            z = numpyro.sample("z", dist.Categorical(jnp.asarray(settings["rows"])))
            numpyro.sample("x", dist.Normal(means[z], scale), obs=x)

    return model


def shifted():
    """A program with a parameter and a continuous latent."""

    def model(x):
        shift = numpyro.param("shift", jnp.asarray(0.0))
        mean = numpyro.sample("mean", dist.Normal(0.0, 1.0))
        with numpyro.plate("data", len(x)):
            z = numpyro.sample("z", dist.Bernoulli(0.3))
            numpyro.sample("x", dist.Normal(mean + shift + z, 1.0), obs=x)

    return model


def trials():
    """Counts up to limits that the data tell."""

    def model(limit):
        with numpyro.plate("data", len(limit)):
            z = numpyro.sample("z", dist.Binomial(limit, 0.4))
            numpyro.sample("x", dist.Normal(z, 1.0), obs=0.0 * limit + 1.5)

    return model


def pair():
    """A state that hangs on another one."""
    a = numpyro.sample("a", dist.Bernoulli(0.3))
    b = numpyro.sample("b", dist.Bernoulli(0.2 + 0.5 * a))
    numpyro.sample("c", dist.Bernoulli(0.1 + 0.5 * b))


def fixed_to(value):
    """The handler that fixes the last state."""
    return numpyro.handlers.condition(data={"c": jnp.asarray(value)})

"""Programs with discrete latents in native Pyro, and the enumeration of their states by Pyro."""

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine

ROWS = torch.tensor([0.3, 0.5, 0.2])
MOVES = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.3, 0.3, 0.4]])
MEANS = torch.tensor([-1.0, 0.5, 2.0])


def mixture(x):
    """A component for each row."""
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Categorical(ROWS))
        pyro.sample("x", dist.Normal(MEANS[z], 1.0), obs=x)


def student():
    """Difficulty, intelligence, grade, SAT and letter, statement by statement."""
    hard = pyro.sample("hard", dist.Bernoulli(0.4))
    clever = pyro.sample("clever", dist.Bernoulli(0.3))
    logits = torch.stack([1.0 + 2.0 * clever - hard, 0.5 * clever, 1.5 * hard], -1)
    grade = pyro.sample("grade", dist.Categorical(logits=logits))
    pyro.sample("sat", dist.Bernoulli(0.05 + 0.75 * clever))
    pyro.sample("letter", dist.Bernoulli(torch.tensor([0.9, 0.6, 0.05])[grade]))


def hidden_states(y):
    """A chain of hidden states."""
    z = torch.zeros((), dtype=torch.long)
    for t in pyro.markov(range(len(y))):
        z = pyro.sample(f"z_{t}", dist.Categorical(MOVES[z]))
        pyro.sample(f"y_{t}", dist.Normal(MEANS[z], 1.0), obs=y[t])


def chain_names(length):
    """The names of the hidden states, in order."""
    return [f"z_{t}" for t in range(length)]


def tree(size):
    """Each state depends on the one halfway to the root."""
    z = []
    for i in range(size):
        prob = 0.3 + 0.4 * z[(i - 1) // 2] if i else 0.5
        z.append(pyro.sample(f"z{i}", dist.Bernoulli(prob)))


def nested(x):
    """A state for each row, one for each cell of it."""
    with pyro.plate("data", x.shape[0], dim=-2):
        z = pyro.sample("z", dist.Bernoulli(0.3))
        with pyro.plate("columns", x.shape[1], dim=-1):
            w = pyro.sample("w", dist.Bernoulli(0.2 + 0.6 * z))
            pyro.sample("x", dist.Normal(w, 1.0), obs=x)


def crossed(x):
    """A state for each column, which all rows share, and one for each cell."""
    with pyro.plate("columns", x.shape[1], dim=-1):
        c = pyro.sample("c", dist.Bernoulli(0.4))
        with pyro.plate("data", x.shape[0], dim=-2):
            z = pyro.sample("z", dist.Bernoulli(0.3 + 0.4 * c))
            pyro.sample("x", dist.Normal(z + c, 1.0), obs=x)


def events(x):
    """Three independent switches a row, in one site with an event."""
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Bernoulli(torch.tensor([0.3, 0.6, 0.5])).to_event(1))
        pyro.sample("x", dist.Normal(2.0 * z, 1.0).to_event(1), obs=x)


def touching(x):
    """Rows that touch each other: each sees the sum of all states up to its own."""
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Bernoulli(0.3))
        pyro.sample("x", dist.Normal(z.cumsum(-1), 1.0), obs=x)


def handled(x):
    """Half of the rows masked, all scaled, a factor beside them."""
    even = torch.arange(len(x)) % 2 == 0
    with pyro.plate("data", len(x)), poutine.scale(scale=1.5), poutine.mask(mask=even):
        z = pyro.sample("z", dist.Bernoulli(0.3))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)
        pyro.factor("likes", 0.7 * z)


def regression(x):
    """A continuous mean beside the components."""
    mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Bernoulli(torch.sigmoid(mean)))
        pyro.sample("x", dist.Normal(mean + z, 1.0), obs=x)


def counted():
    """States that are counts."""
    count = pyro.sample("count", dist.Binomial(3, 0.4))
    pyro.sample("seen", dist.Normal(count, 1.0), obs=torch.tensor(1.7))


def missing(x, seen):
    """Observed where `seen` says so."""
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Categorical(ROWS))
        pyro.sample("x", dist.Categorical(MOVES[z]), obs=x, obs_mask=seen)


def pixels(x, seen):
    """Rows of three switches, each row seen or not."""
    probs = torch.tensor([[0.2, 0.9, 0.5], [0.7, 0.3, 0.5], [0.5, 0.5, 0.5]])
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Categorical(ROWS))
        pyro.sample("x", dist.Bernoulli(probs[z]).to_event(1), obs=x, obs_mask=seen)


def features(x, seen):
    """Measurements of which some are missing, each with its own mask."""
    with pyro.plate("data", x.shape[0], dim=-2):
        z = pyro.sample("z", dist.Categorical(ROWS))
        with pyro.plate("features", x.shape[1], dim=-1):
            pyro.sample("x", dist.Normal(MEANS[z], 1.0), obs=x, obs_mask=seen)


def downstream(x, seen):
    """Something depends on the missing measurements."""
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Categorical(ROWS))
        x = pyro.sample("x", dist.Normal(MEANS[z], 1.0), obs=x, obs_mask=seen)
        pyro.sample("y", dist.Normal(x, 1.0), obs=0.0 * MEANS[z])


def subsampling(x):
    """A program that draws a part of the rows by itself."""
    with pyro.plate("data", len(x), subsample_size=2) as rows:
        z = pyro.sample("z", dist.Categorical(ROWS))
        pyro.sample("x", dist.Normal(MEANS[z], 1.0), obs=x[rows])


def grouped(group, x):
    """A state for each group, rows that pick theirs by index."""
    with pyro.plate("groups", 30):
        z = pyro.sample("z", dist.Bernoulli(0.3))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(2.0 * z[group], 1.0), obs=x)


def switched(x, weight):
    """Rows that touch the state of another row where the data say so."""
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Bernoulli(0.3))
        pyro.sample("x", dist.Normal(z + weight * z.flip(0), 1.0), obs=x)


def field(size):
    """A row of binary states, neighbours coupled in one statement."""
    with pyro.plate("sites", size):
        z = 2.0 * pyro.sample("z", dist.Bernoulli(0.5)) - 1.0
    with pyro.plate("edges", size - 1):
        pyro.factor("couplings", 0.7 * z[1:] * z[:-1])


def entangled(x):
    """Everything touches everything."""
    with pyro.plate("sites", 40):
        z = pyro.sample("z", dist.Bernoulli(0.5))
    pyro.sample("x", dist.Normal(z.sum(), 1.0), obs=x)


def unlimited():
    """A latent without end."""
    pyro.sample("count", dist.Poisson(2.0))


def random_net(parents, weights):
    """Binary states, each a logistic function of its parents."""
    z = []
    for i, own in enumerate(parents):
        logit = weights[i, i] + sum(weights[i, j] * z[j] for j in own)
        z.append(pyro.sample(f"z{i}", dist.Bernoulli(logits=logit)))
    pyro.sample("y", dist.Normal(z[0] - z[-1], 1.0), obs=torch.tensor(0.4))


def learned(x):
    """Weights and means to be learned."""
    weights = pyro.param("weights", torch.ones(3) / 3, constraint=dist.constraints.simplex)
    means = pyro.param("means", torch.tensor([-1.0, 0.0, 1.0]))
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Categorical(weights))
        pyro.sample("x", dist.Normal(means[z], 1.0), obs=x)


def tensors(data):
    """Data as the program indexes them."""
    return tuple(torch.as_tensor(x) for x in data)


def log_densities(model, data, values):
    """Joint log density at many values of all latents, `(S,)`.

    Args:
        model: A program.
        data: Its data.
        values: Values of each site, with a leading axis of S.
    """
    found = []
    for i in range(len(next(iter(values.values())))):
        own = {name: torch.as_tensor(value[i]) for name, value in values.items()}
        trace = poutine.trace(poutine.condition(model, own)).get_trace(*data)
        found.append(float(trace.log_prob_sum()))
    return found


def learned_chain(y):
    """Hidden states whose persistence and means are to be learned."""
    stay = pyro.param("stay", torch.tensor(0.7), constraint=dist.constraints.unit_interval)
    means = pyro.param("means", torch.tensor([-1.0, 1.0]))
    z = torch.zeros((), dtype=torch.long)
    for t in pyro.markov(range(len(y))):
        rows = torch.stack([torch.stack([stay, 1 - stay]), torch.stack([1 - stay, stay])])
        z = pyro.sample(f"z_{t}", dist.Categorical(rows[z]))
        pyro.sample(f"y_{t}", dist.Normal(means[z], 1.0), obs=y[t])


def unknown_means(x):
    """Components with means of normal prior."""
    means = pyro.sample("means", dist.Normal(torch.tensor([-2.0, 2.0]), 1.0).to_event(1))
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Categorical(torch.tensor([0.3, 0.7])))
        pyro.sample("x", dist.Normal(means[z], 1.0), obs=x)


def normal_guide(x):
    """Independent normals over the means, their locations to be learned."""
    loc = pyro.param("loc", torch.tensor([-2.0, 2.0]))
    scale = pyro.param("scale", torch.full((2,), 0.2), constraint=dist.constraints.positive)
    pyro.sample("means", dist.Normal(loc, scale).to_event(1))


def greedy_guide(x):
    """A guide that draws the components too."""
    normal_guide(x)
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Categorical(torch.tensor([0.5, 0.5])))


def joined(x):
    """A state that all rows share."""
    shift = pyro.param("shift", torch.tensor(1.0))
    s = pyro.sample("s", dist.Bernoulli(0.4))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(shift * s, 1.0), obs=x)


def plain(x):
    """No discrete latent."""
    loc = pyro.param("loc", torch.tensor(0.0))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(loc, 1.0), obs=x)


def many(y):
    """A level, and a chain of more states than NumPyro enumerates, statement by statement."""
    level = pyro.sample("level", dist.Normal(0.0, 1.0))
    z = torch.zeros(())
    for i in range(len(y)):
        z = pyro.sample(f"z{i}", dist.Bernoulli(0.2 + 0.5 * z))
        pyro.sample(f"y{i}", dist.Normal(level + 2.0 * z, 1.0), obs=y[i])


def level_guide(y):
    """A wide guide of the level."""
    pyro.sample("level", dist.Normal(0.3, 0.5))


def adam(rate):
    """The language's way to say Adam at a rate."""
    return lambda leaves: torch.optim.Adam(leaves, lr=rate)


SHIFT = 0.0
"""What a program adds, as a global."""


def adjusted(settings):
    """A program whose surroundings can be changed: numbers and arrays in a dict, and a global."""

    def model(x, scale=1.0):
        means = torch.as_tensor(settings["means"]) * settings["factor"] + SHIFT
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Categorical(torch.as_tensor(settings["rows"])))
            pyro.sample("x", dist.Normal(means[z], scale), obs=x)

    return model


def shifted():
    """A program with a parameter and a continuous latent."""

    def model(x):
        shift = pyro.param("shift", torch.as_tensor(0.0))
        mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Bernoulli(0.3))
            pyro.sample("x", dist.Normal(mean + shift + z, 1.0), obs=x)

    return model


def trials():
    """Counts up to limits that the data tell."""

    def model(limit):
        with pyro.plate("data", len(limit)):
            z = pyro.sample("z", dist.Binomial(limit.float(), 0.4))
            pyro.sample("x", dist.Normal(z, 1.0), obs=0.0 * limit + 1.5)

    return model


def pair():
    """A state that hangs on another one."""
    a = pyro.sample("a", dist.Bernoulli(0.3))
    b = pyro.sample("b", dist.Bernoulli(0.2 + 0.5 * a))
    pyro.sample("c", dist.Bernoulli(0.1 + 0.5 * b))


def fixed_to(value):
    """The handler that fixes the last state."""
    return poutine.condition(data={"c": torch.as_tensor(value)})

"""Programs of discrete latents for the tests of kernels: the twin of `discrete_numpyro.py`."""

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor

from deepgen_ppl.blocks import singly
from deepgen_ppl.pyro.kernels import discrete_langevin, gibbs, gibbs_with_gradients

EFFECTS = torch.tensor(
    [[2.5, -1.0, 0.3], [-0.7, 1.8, 1.1], [1.2, 0.6, -2.2], [-1.6, -0.9, -0.4], [0.4, 2.1, -1.3]]
)


def ising(coupling: Tensor, field: Tensor) -> None:
    """Spins in one factor of all of them: exp(s' J s + h' s)."""
    half = torch.tensor(0.5)
    x = pyro.sample("x", dist.Bernoulli(half).expand([len(field)]).to_event(1))
    s = 2.0 * x - 1.0
    pyro.factor("energy", s @ coupling @ s + s @ field)


def chain(coupling: Tensor) -> None:
    """Spins along a line, a factor for each edge."""
    with pyro.plate("spins", len(coupling) + 1):
        x = pyro.sample("x", dist.Bernoulli(torch.tensor(0.5)))
    s = 2.0 * x - 1.0
    with pyro.plate("edges", len(coupling)):
        pyro.factor("energy", coupling * s[1:] * s[:-1])


def student(tables: dict, letter: Tensor) -> None:
    """The student network, its letter observed."""
    difficulty = pyro.sample("difficulty", dist.Categorical(tables["difficulty"]))
    intelligence = pyro.sample("intelligence", dist.Categorical(tables["intelligence"]))
    grade = pyro.sample("grade", dist.Categorical(tables["grade"][intelligence, difficulty]))
    pyro.sample("sat", dist.Categorical(tables["sat"][intelligence]))
    pyro.sample("letter", dist.Categorical(tables["letter"][grade]), obs=letter)


def assignments(y: Tensor, weights: Tensor, means: Tensor) -> None:
    """A mixture of known normals: which one made each datum."""
    with pyro.plate("data", len(y)):
        z = pyro.sample("z", dist.Categorical(weights))
        pyro.sample("y", dist.Normal(means[z], 1.0), obs=y)


def mixture(y: Tensor, weights: Tensor) -> None:
    """A mixture of normals with unknown means, the second one above the first."""
    low = pyro.sample("low", dist.Normal(-1.0, 2.0))
    gap = pyro.sample("gap", dist.Gamma(4.0, 1.0))
    means = pyro.deterministic("means", torch.stack([low, low + gap]))
    with pyro.plate("data", len(y)):
        z = pyro.sample("z", dist.Categorical(weights))
        pyro.sample("y", dist.Normal(means[..., z], 1.0), obs=y)


def counts(y: Tensor) -> None:
    """Kinds of discrete sites: a number of successes, four values, and a switch."""
    heads = pyro.sample("heads", dist.Binomial(3, torch.tensor(0.3)))
    size = 2.0 + pyro.sample("size", dist.Categorical(torch.ones(4) / 4.0))
    on = pyro.sample("on", dist.Bernoulli(torch.tensor(0.4)))
    pyro.sample("y", dist.Normal(heads * on + 0.5 * size, 1.0), obs=y)


def hidden(y: Tensor) -> None:
    """A coupling that shows at one state of ten only: what a few probes do not see."""
    switch = pyro.sample("switch", dist.Categorical(torch.ones(10) / 10.0))
    with pyro.plate("spins", 3):
        x = pyro.sample("x", dist.Bernoulli(torch.tensor(0.5)))
    with pyro.plate("terms", 2):
        pyro.factor("meet", torch.where(switch == 7, 3.0 * x[1:] * x[:-1], 0.0))
    pyro.sample("y", dist.Normal(switch * 1.0, 1.0), obs=y)


def shots(y: Tensor) -> None:
    """A count without bound."""
    count = pyro.sample("count", dist.Poisson(torch.tensor(3.0)))
    pyro.sample("y", dist.Normal(count, 1.0), obs=y)


def nothing_discrete(y: Tensor) -> None:
    """A mean."""
    mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(mean, 1.0), obs=y)


def impossible(y: Tensor) -> None:
    """A density that is zero everywhere."""
    x = pyro.sample("x", dist.Bernoulli(torch.tensor(0.5)))
    pyro.factor("wall", torch.where(x < 2, -torch.inf, 0.0) + 0.0 * y.sum())


def belief(x: Tensor) -> None:
    """Causes of each datum's own: b_ij ~ Bernoulli(0.3), s_i ~ N(0, 1), x_i ~ N(b_i w + s_i, 1)."""
    with pyro.plate("data", len(x)):
        b = pyro.sample("b", dist.Bernoulli(0.3).expand([5]).to_event(1))
        s = pyro.sample("s", dist.Normal(0.0, 1.0))
        mean = b @ EFFECTS + s.unsqueeze(-1)
        pyro.sample("x", dist.Normal(mean, 1.0).to_event(1), obs=x)


def belief_guide(x: Tensor) -> None:
    """A guide of `belief` that draws causes and shifts."""
    with pyro.plate("data", len(x)):
        b = pyro.sample("b", dist.Bernoulli(0.5).expand([5]).to_event(1))
        mean = 0.5 * (x.mean(1) - (b @ EFFECTS).mean(1))
        pyro.sample("s", dist.Normal(mean, 0.8))


def shift_guide(x: Tensor) -> None:
    """A guide of `belief` that draws the shifts alone."""
    with pyro.plate("data", len(x)):
        pyro.sample("s", dist.Normal(0.3 * x.mean(1), 1.0))


def causes_guide(x: Tensor) -> None:
    """A guide of `belief` that lacks the shifts."""
    with pyro.plate("data", len(x)):
        pyro.sample("b", dist.Bernoulli(0.5).expand([5]).to_event(1))


def crowd(y: Tensor) -> None:
    """Seventy spins, each a site of its own, that all meet in one factor, and a mean."""
    mean = pyro.sample("mean", dist.Normal(0.0, 1.0))
    spins = [pyro.sample(f"x{i}", dist.Bernoulli(0.5)) for i in range(70)]
    total = sum(spins)
    with pyro.plate("data", len(y)):
        pyro.sample("y", dist.Normal(mean + 0.2 * total, 1.0), obs=y)


def kernel_step(kernel: str, states, energies, seed: int):
    """One step of a kernel on three spins, whose log density a table of 8 gives.

    Args:
        kernel: "gibbs", "gibbs_with_gradients" or "discrete_langevin".
        states: Coordinates of many chains, `(chain, 3)`.
        energies: Log density of each of the 8 states, unnormalised.
        seed: Seed of the step.
    """
    table = torch.as_tensor(energies, dtype=torch.float32)

    def terms(x: Tensor) -> Tensor:
        return table[4 * x[..., 0] + 2 * x[..., 1] + x[..., 2]][..., None]

    blocks = gibbs.table(singly(3), [2, 2, 2], 1)
    x, generator = torch.as_tensor(states), torch.Generator().manual_seed(seed)
    if kernel == "gibbs":
        state = gibbs.init(x, terms)
        return gibbs.step(generator, state, terms, blocks, num_values=2)[0].position.numpy()

    def gains(x: Tensor) -> tuple[Tensor, Tensor]:
        state = gibbs.init(x, terms)
        found = gibbs.conditionals(state, terms, blocks, num_values=2)
        return state.terms.sum(-1), 0.7 * found  # gains that are wrong leave the law as it is

    state = gibbs_with_gradients.init(x, gains)
    step = {"discrete_langevin": discrete_langevin, "gibbs_with_gradients": gibbs_with_gradients}[
        kernel
    ].step
    return step(generator, state, gains, blocks.cardinality, num_steps=1)[0].position.numpy()


def branching(y: Tensor) -> None:
    """Control flow on the value of a latent site."""
    x = pyro.sample("x", dist.Bernoulli(torch.tensor(0.3)))
    mean = 2.0 if x > 0.5 else -1.0
    pyro.sample("y", dist.Normal(mean, 1.0), obs=y)


def one_hot(y: Tensor) -> None:
    """Two vectors that are one in one place."""
    with pyro.plate("two", 2):
        x = pyro.sample("x", dist.OneHotCategorical(torch.tensor([0.2, 0.3, 0.5])))
    pyro.sample("y", dist.Normal((x @ torch.tensor([0.0, 1.0, 2.0])).sum(), 1.0), obs=y)

"""The mean of 10,000 minibatch losses is the loss of the full data, on either wing."""

from types import ModuleType

import numpy as np
import pytest

from .oracles import ORACLES, START, group_loss

BATCH_SIZE = 7  # of 50 rows: seven batches an epoch, and one row waits


def losses(
    dg: ModuleType, programs: ModuleType, model, guide, *, batch_size, loss, num_steps
) -> np.ndarray:
    """Losses per datum at parameters that stand still."""
    y = ORACLES["group"]().data
    optim = programs.standing_still()
    options = {"num_steps": num_steps, "optim": optim, "loss": loss, "progress": False, "seed": 5}
    if dg.__name__.endswith(".pyro"):
        options["compile"] = "traced"  # torch.compile is left to the slow tests
    fit = dg.svi(model, guide, *y, batch_size=batch_size, **options)
    assert fit.losses.shape == (num_steps,)
    return np.asarray(fit.losses, dtype=float)


def mean_and_error(losses: np.ndarray) -> tuple[float, float]:
    """Mean and standard error over whole epochs, independent where single batches are not."""
    epochs = losses[: len(losses) // 7 * 7].reshape(-1, 7).mean(1)
    return float(epochs.mean()), float(epochs.std(ddof=1) / len(epochs) ** 0.5)


def test_minibatch_losses_of_shared_and_local_latents(dg: ModuleType, programs: ModuleType) -> None:
    y = ORACLES["group"]().data[0]
    full = group_loss(y, **START["group"])
    found = losses(
        dg,
        programs,
        programs.group,
        programs.group_guide,
        batch_size=BATCH_SIZE,
        loss=dg.ELBO(),
        num_steps=10_000,
    )
    mean, error = mean_and_error(found)
    assert abs(mean - full) < 4 * error
    assert error < 0.02 * abs(full)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["elbo of a table", "iwae", "renyi"])
def test_minibatch_losses_equal_full_ones(dg: ModuleType, programs: ModuleType, name: str) -> None:
    if name == "elbo of a table":
        model, guide, loss = programs.group, programs.group_table, dg.ELBO()
    else:
        model, guide = programs.local_normal, lambda: programs.local_normal_guide
        loss = dg.IWAE(num_particles=5) if name == "iwae" else dg.Renyi(0.5, num_particles=5)
    options = {"loss": loss, "num_steps": 2000}
    sizes = (BATCH_SIZE, None)
    found = [losses(dg, programs, model, guide(), batch_size=b, **options) for b in sizes]
    (mean, error), (full, full_error) = map(mean_and_error, found)
    assert abs(mean - full) < 4 * np.hypot(error, full_error)

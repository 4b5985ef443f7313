"""The two wings are twins: the same files, the same public names, the same signatures."""

import importlib
import importlib.util
import inspect
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "deepgen_ppl"

for language in ("numpyro", "pyro"):
    if importlib.util.find_spec(language) is None:
        pytest.skip(f"{language} is not installed", allow_module_level=True)

# Each difference needs its reason in docs/backends.md, whose tables are read by the last test.
ONE_WING_ONLY_FILES: dict[str, set[str]] = {
    "numpyro": {
        "convolutions.py",
        "infer/persistent.py",
        "infer/sampler.py",
        "kernels/blackjax.py",
        "programs/energy/bits.py",
        "programs/energy/halves.py",
        "slices.py",
    },
    "pyro": {
        "autoguides.py",
        "graphs.py",
        "repeats.py",
        "parameters.py",
        "pointwise.py",
        "refusals.py",
        "vectorised.py",
        "infer/batched.py",
        "infer/gradient.py",
        "infer/ladder.py",
        "infer/trajectory.py",
    },
}
OTHER_DEFAULTS: dict[str, set[str]] = {"Fit": {"compiled", "reason"}}
ONE_WING_ONLY_MEMBERS = {"traceable"}
ROOMS = ("autoregressive", "flows", "vae")  # public rooms of a wing, with public names of their own
ROOMS_APART = {
    "Autoregressive",
    "FlowDistribution",
    "Layer",
}  # made by the language's own base class
RANDOMNESS = {"generator": "key"}  # what a chain draws from: torch's generators, JAX's keys


def wing(name: str):
    return importlib.import_module(f"deepgen_ppl.{name}")


def files(name: str) -> set[str]:
    return {str(p.relative_to(PACKAGE / name)) for p in (PACKAGE / name).rglob("*.py")}


def public() -> list[str]:
    return sorted(wing("numpyro").__all__)


def own() -> list[str]:
    """Public names that are not one and the same object in both wings."""
    names = [n for n in public() if n not in ROOMS]
    return [n for n in names if getattr(wing("numpyro"), n) is not getattr(wing("pyro"), n)]


def own_classes() -> list[str]:
    return [name for name in own() if inspect.isclass(getattr(wing("numpyro"), name))]


def parameters(thing: object) -> list[tuple[str, str, object]]:
    return [
        (p.name, p.kind.name, p.default)
        for p in inspect.signature(thing).parameters.values()  # type: ignore[arg-type]
    ]


def members(kind: type) -> list[str]:
    """Public members, without those that every module of the language has."""
    names = {name for name in dir(kind) if not name.startswith("_")}
    torch = importlib.import_module("torch")
    if issubclass(kind, torch.nn.Module):
        names -= set(dir(torch.nn.Module))
    return sorted(names - ONE_WING_ONLY_MEMBERS)


def test_the_wings_have_the_same_files() -> None:
    left, right = files("numpyro"), files("pyro")
    assert left - right == ONE_WING_ONLY_FILES["numpyro"]
    assert right - left == ONE_WING_ONLY_FILES["pyro"]


def test_the_wings_have_the_same_public_names() -> None:
    assert public() == sorted(wing("pyro").__all__)


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_have_the_same_names_signatures_and_members(room: str) -> None:
    left, right = getattr(wing("numpyro"), room), getattr(wing("pyro"), room)
    assert left.__all__ == right.__all__
    for name in left.__all__:
        mine, other = getattr(left, name), getattr(right, name)
        assert re.match(r".+?[.:?]", inspect.getdoc(mine) or ""), name
        assert inspect.getdoc(other), name
        if name not in ROOMS_APART:
            assert [p[:2] for p in parameters(mine)] == [p[:2] for p in parameters(other)], name


@pytest.mark.parametrize("name", public())
def test_every_public_name_is_there(name: str) -> None:
    for language in ("numpyro", "pyro"):
        assert hasattr(wing(language), name), f"deepgen_ppl.{language}.{name}"


@pytest.mark.parametrize("name", own())
def test_signatures_agree(name: str) -> None:
    left, right = getattr(wing("numpyro"), name), getattr(wing("pyro"), name)
    differing = OTHER_DEFAULTS.get(name, set())

    def comparable(thing: object) -> list[tuple[str, str, object]]:
        return [
            (
                p,
                kind,
                None if p in differing or default is inspect.Parameter.empty else repr(default),
            )
            for p, kind, default in parameters(thing)
        ]

    assert comparable(left) == comparable(right)


@pytest.mark.parametrize("name", own_classes())
def test_classes_have_the_same_members_with_the_same_signatures(name: str) -> None:
    left, right = getattr(wing("numpyro"), name), getattr(wing("pyro"), name)
    assert members(left) == members(right)
    for member in members(left):
        mine, other = getattr(left, member), getattr(right, member)
        if inspect.isfunction(mine):
            theirs = [(RANDOMNESS.get(p[0], p[0]), p[1]) for p in parameters(other)]
            assert [p[:2] for p in parameters(mine)] == theirs, member


@pytest.mark.parametrize("name", public())
def test_public_objects_are_documented(name: str) -> None:
    for language in ("numpyro", "pyro"):
        thing = getattr(wing(language), name)
        text = inspect.getdoc(thing) or ""
        assert re.match(r".+?[.:?]", text), f"deepgen_ppl.{language}.{name} has no docstring"


def test_data_are_positional_and_options_keyword_only() -> None:
    for verb in ("svi", "importance", "mcmc", "predict"):
        for language in ("numpyro", "pyro"):
            signature = inspect.signature(getattr(wing(language), verb))
            kinds = [p.kind for p in signature.parameters.values()]
            assert inspect.Parameter.VAR_POSITIONAL in kinds, verb
            after = kinds[kinds.index(inspect.Parameter.VAR_POSITIONAL) + 1 :]
            assert set(after) <= {inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_KEYWORD}
            assert "seed" in signature.parameters, verb
            assert "params" in signature.parameters, verb


def test_every_exception_to_the_twins_has_its_reason_in_the_documentation() -> None:
    page = (ROOT / "docs" / "backends.md").read_text(encoding="utf-8")
    excepted = set().union(
        *ONE_WING_ONLY_FILES.values(), OTHER_DEFAULTS, ONE_WING_ONLY_MEMBERS, ROOMS_APART
    )
    for name in excepted:
        assert f"`{name}`" in page, name

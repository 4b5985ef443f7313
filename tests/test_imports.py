"""What an import may do: each law runs in a fresh process, where nothing was imported before."""

import importlib.util
import subprocess
import sys
import textwrap

import pytest

WINGS = ("numpyro", "pyro")


def fresh(code: str) -> str:
    """Run code in a new interpreter, warnings as errors, and return what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def need(wing: str) -> None:
    if importlib.util.find_spec(wing) is None:
        pytest.skip(f"{wing} is not installed")


def test_the_hall_imports_neither_language_nor_the_drawing_library() -> None:
    heavy = fresh(
        """
        import sys
        import deepgen_ppl
        import deepgen_ppl.report
        heavy = {"jax", "torch", "numpyro", "pyro", "matplotlib", "arviz_base", "xarray"}
        print(sorted(heavy & set(sys.modules)))
        """
    )
    assert heavy == "[]"


@pytest.mark.parametrize("wing", WINGS)
def test_a_wing_does_not_import_the_other_language(wing: str) -> None:
    need(wing)
    foreign = {"numpyro": {"torch", "pyro"}, "pyro": {"jax", "numpyro"}}[wing]
    found = fresh(
        f"""
        import sys
        import deepgen_ppl.{wing}
        print(sorted({foreign!r} & set(sys.modules)))
        """
    )
    assert found == "[]"


@pytest.mark.parametrize("wing", WINGS)
def test_importing_a_wing_does_not_load_the_drawing_library(wing: str) -> None:
    need(wing)
    found = fresh(f"import sys, deepgen_ppl.{wing}; print('matplotlib' in sys.modules)")
    assert found == "False"


STATE = {
    "numpyro": """
        import warnings
        import jax, numpyro
        from numpyro.distributions.distribution import Distribution

        def state():
            return dict(
                x64=jax.config.jax_enable_x64,
                precision=jax.config.jax_default_matmul_precision,
                cache=jax.config.jax_compilation_cache_dir,
                random=jax.config.jax_default_prng_impl,
                platform=jax.config.jax_platforms,
                validation=Distribution._validate_args,
                stack=list(numpyro.primitives._PYRO_STACK),
                filters=list(warnings.filters),
            )
        """,
    "pyro": """
        import warnings
        import torch, pyro

        def state():
            return dict(
                dtype=torch.get_default_dtype(),
                device=torch.get_default_device(),
                validation=torch.distributions.Distribution._validate_args,
                enabled=pyro.settings.get("validate_distributions_pyro"),
                infer=pyro.settings.get("validate_infer"),
                poutine=pyro.settings.get("validate_poutine"),
                settings=pyro.settings.get(),
                params=sorted(pyro.get_param_store().keys()),
                store=id(pyro.get_param_store()),
                threads=torch.get_num_threads(),
                deterministic=torch.are_deterministic_algorithms_enabled(),
                gradients=torch.is_grad_enabled(),
                random=torch.random.get_rng_state().tolist(),
                matmul=torch.get_float32_matmul_precision(),
                stack=list(pyro.poutine.runtime._PYRO_STACK),
                filters=list(warnings.filters),
            )
        """,
}


@pytest.mark.parametrize("wing", WINGS)
def test_importing_a_wing_changes_nothing_global_beyond_its_language(wing: str) -> None:
    need(wing)
    code = textwrap.dedent(STATE[wing]) + textwrap.dedent(
        f"""
        before = state()
        import deepgen_ppl.{wing}
        after = state()
        print([(name, before[name], after[name]) for name in before if before[name] != after[name]])
        """
    )
    assert fresh(code) == "[]"


@pytest.mark.parametrize("wing", WINGS)
def test_importing_a_wing_leaves_the_funsor_backend_alone(wing: str) -> None:
    need(wing)
    if importlib.util.find_spec("funsor") is None:
        pytest.skip("funsor is not installed")
    found = fresh(
        f"""
        import {wing}
        import funsor
        before = funsor.util.get_backend()
        import deepgen_ppl.{wing}
        print(before == funsor.util.get_backend())
        """
    )
    assert found == "True"


@pytest.mark.parametrize("wing", WINGS)
def test_a_missing_extra_is_one_sentence_with_the_command(wing: str) -> None:
    message = fresh(
        f"""
        import sys

        class Missing:
            def find_spec(self, name, path=None, target=None):
                if name in {{"jax", "numpyro", "torch", "pyro"}}:
                    raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

        sys.meta_path.insert(0, Missing())
        try:
            import deepgen_ppl.{wing}
        except ImportError as error:
            print(error)
        """
    )
    assert f"pip install 'deepgen_ppl[{wing}]'" in message
    assert "\n" not in message


def test_the_version_is_that_of_the_package() -> None:
    from importlib.metadata import version

    import deepgen_ppl

    assert deepgen_ppl.__version__ == version("deepgen_ppl")

"""What `import foveate` gives, without loading what nobody asked for."""

import subprocess
import sys

import pytest

import foveate


def test_every_public_name_is_there_and_listed() -> None:
    for name in foveate.__all__:
        assert getattr(foveate, name) is not None
    assert set(foveate.__all__) <= set(dir(foveate))
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        _ = foveate.trian  # type: ignore[attr-defined]


def test_errors_are_one_tree_that_the_package_exports() -> None:
    for name in foveate.errors.__all__:
        error = getattr(foveate, name)
        assert error is getattr(foveate.errors, name)
        assert issubclass(error, foveate.FoveateError | foveate.Interrupted)


def test_the_module_is_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "foveate", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"foveate {foveate.__version__}\n"


def test_importing_it_loads_neither_torch_nor_numpy() -> None:
    told = "import sys, foveate; print(sorted({'torch', 'numpy', 'pydantic'} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"

"""What `import foveate` gives, without loading what nobody asked for."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import foveate

ROOT = Path(__file__).resolve().parents[1]


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


def test_every_module_has_its_line_in_the_architecture() -> None:
    source, text = ROOT / "src" / "foveate", (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    told = {
        f"{names[0].rpartition('/')[0]}/{name}".lstrip("/") if "/" not in name else name
        for row in rows
        if (names := re.findall(r"`([\w/]+\.py)`", row))
        for name in names
    }
    modules = {path.relative_to(source).as_posix() for path in source.rglob("*.py")}
    unimportant = {path for path in modules if path.endswith(("__init__.py", "__main__.py"))} - {"__init__.py"}
    assert modules - unimportant == told

"""What is refused of a model by its name alone."""

from pathlib import Path
from typing import get_args

import pytest

from foveate.errors import CheckpointError, ConfigError
from foveate.inference.engine import Kind, check_class, check_device, check_model, load_engine
from foveate.training.runs import RunFolder


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a run, an exported model, and what is neither."""
    monkeypatch.chdir(tmp_path)
    for name in ("runs/train/mine/run.json", "runs/train/mine/args.yaml", "out/model.onnx", "there/model.onnx"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    return tmp_path


@pytest.mark.parametrize("kind", get_args(Kind))
def test_what_is_there_may_be_a_model(here: Path, kind: Kind) -> None:
    check_model("runs/train/mine", kind)
    check_model("runs", kind)  # no run, which is found when it is opened


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("mine", "no model at mine: give a run folder .* exported .onnx file; did you mean runs/train/mine?"),
        ("Mnie", "did you mean runs/train/mine?"),
        ("runs/train/mien", "did you mean runs/train/mine?"),
        ("out/modle.onnx", "did you mean out/model.onnx?"),
        ("other", "an exported .onnx file$"),
        ("out", "out is not a run: to use the exported file in it, give out/model.onnx"),
    ],
)
def test_what_is_not_is_told_with_what_may_be_meant(here: Path, name: str, told: str) -> None:
    with pytest.raises(CheckpointError, match=told.replace("?", r"\?")):
        check_model(name)


@pytest.mark.parametrize("name", ["out", "out/model.onnx"])
def test_an_exported_file_is_not_always_one(here: Path, name: str) -> None:
    with pytest.raises(CheckpointError, match=f"^{name} is exported already: give the run"):
        check_model(name, "weights")


def test_nothing_is_suggested_that_will_not_do(here: Path) -> None:
    for kind, told in (
        ("run", "`foveate train`$"),
        ("weights", "or a .safetensors file$"),
        ("any", "did you mean"),
    ):
        with pytest.raises(CheckpointError, match=f"no model at out/modle.onnx: .*{told}"):
            check_model("out/modle.onnx", kind)


def test_a_run_that_is_meant_is_named_where_only_runs_will_do(here: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no run folder at mine: .*; did you mean runs/train/mine"):
        RunFolder.open(Path("mine"))


def test_an_exported_file_runs_on_no_other_device(here: Path) -> None:
    for device in ("cuda", "nonsense"):
        with pytest.raises(ConfigError, match=f"device='{device}': an .onnx file runs on the CPU alone: give cpu"):
            load_engine("out/model.onnx", device=device)
    for device in ("cpu", "auto", None):
        check_device("out/model.onnx", device)
    check_device("runs/train/mine", "cuda")


def test_a_class_of_another_name() -> None:
    check_class("cat", ["cat", "dog"])
    with pytest.raises(ConfigError, match="class='Dog': the model has no such class; did you mean 'dog'"):
        check_class("Dog", ["cat", "dog"])

"""A custom attention: trained, kept by its name alone, and loaded by whoever hands the class over."""

import functools
import json
from pathlib import Path
from typing import Any

import pytest
import torch

import foveate
from foveate.errors import CheckpointError, ConfigError
from foveate.model import attention_kinds

TINY: dict[str, Any] = {
    "stages": [{"filters": 4, "kernels": [3, 3]}, {"filters": 6, "kernels": [3, 3]}],
    "epochs": 1,
    "passes_per_epoch": 1,
    "batch": 50,
    "tta_views": 1,
}


class Spotlight(torch.nn.Module):
    """One learned weight a channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(channels))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features * self.weight.view(-1, 1, 1)


@pytest.fixture(autouse=True)
def registry(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    names: dict[str, Any] = {}
    monkeypatch.setattr(attention_kinds, "_REGISTERED", names)
    return names


@pytest.mark.slow
def test_it_is_trained_and_comes_back_when_the_class_is_handed_over(
    tmp_path: Path, registry: dict[str, Any]
) -> None:
    name = foveate.register_attention(Spotlight)
    assert name == "custom:Spotlight"
    run = foveate.train("digits", preset="minute", runs=tmp_path / "runs", attention=name, **TINY)
    before = run.metrics["validation"]
    assert run.config.model.attention == name
    assert before["gate"] is not None
    assert "attention taken out" in before["variants"]
    registry.clear()
    with pytest.raises(CheckpointError, match=r"from Python, by foveate\.register_attention\(Spotlight\)"):
        run.checkpoint()
    with pytest.raises(CheckpointError, match="hand it over first"):
        foveate.evaluate(run)
    foveate.register_attention(Spotlight)
    assert any(isinstance(module, Spotlight) for module in run.checkpoint().model.modules())
    assert foveate.evaluate(run).metrics["validation"] == before


def test_one_that_changes_its_input_in_place_is_trained(tmp_path: Path) -> None:
    name = foveate.register_attention(InPlace)
    run = foveate.train("digits", preset="minute", runs=tmp_path, attention=name, attention_mode="replace", **TINY)
    assert run.metrics["validation"]["accuracy"] > 0


def test_arms_of_it_are_compared_in_this_process(tmp_path: Path) -> None:
    foveate.register_attention(Spotlight)
    settings = {**TINY, "size": 16, "threads": 1}
    options: dict[str, Any] = {"seeds": 2, "subsets": (200,), "runs": tmp_path / "runs", "settings": settings}
    comparison = foveate.compare("digits", ["minute,attention=custom:Spotlight"], workers=0, **options)
    assert len(comparison.findings[0].seeds) == 2


def test_a_name_that_nobody_registered_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is a class of your own: hand it over first"):
        foveate.train("digits", preset="minute", runs=tmp_path / "runs", attention="custom:os.system", **TINY)
    assert not (tmp_path / "runs").exists()


def test_a_class_that_cannot_be_made_for_so_many_channels_is_one_line(tmp_path: Path) -> None:
    name = foveate.register_attention(torch.nn.Softmax2d)
    with pytest.raises(ConfigError, match=r"attention='custom:Softmax2d': .*positional argument"):
        foveate.train("digits", preset="minute", runs=tmp_path / "runs", attention=name, **TINY)


class Wrapped(torch.nn.Module):
    """A library's attention, which gives two tensors."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.inner = torch.nn.MultiheadAttention(channels, 2, batch_first=True)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        tokens = features.flatten(2).transpose(1, 2)
        return self.inner(tokens, tokens, tokens)[0].transpose(1, 2).reshape(features.shape)


def test_a_librarys_module_within_it_is_trained_and_reported(tmp_path: Path) -> None:
    name = foveate.register_attention(Wrapped)
    run = foveate.train("digits", preset="minute", runs=tmp_path / "runs", attention=name, **TINY)
    assert "MultiheadAttention" in run.report.read_text().replace("<wbr>", "")


def test_what_has_no_name_or_anothers_is_refused() -> None:
    foveate.register_attention(Spotlight)
    foveate.register_attention(Spotlight)
    other = type("Spotlight", (torch.nn.Module,), {"__module__": "elsewhere", "__qualname__": "Spotlight"})
    with pytest.raises(ConfigError, match="rename one of the two"):
        foveate.register_attention(other)
    with pytest.raises(ConfigError, match="no name of its own"):
        foveate.register_attention(functools.partial(Spotlight, 4))

    class Within(Spotlight):
        pass

    with pytest.raises(ConfigError, match=r"made within a function, .* move it out"):
        foveate.register_attention(Within)


def test_a_study_of_it_needs_this_process(tmp_path: Path) -> None:
    name = foveate.register_attention(Spotlight)
    with pytest.raises(ConfigError, match="give workers=0"):
        foveate.tune("digits", search=("lr",), runs=tmp_path / "runs", settings={"attention": name})


def test_a_study_that_searches_it_needs_this_process_and_the_class(tmp_path: Path) -> None:
    space = tmp_path / "space.yaml"
    asked = {"type": "choice", "values": ["none", "luong", "custom:Spotlight"], "sets": "model.attention"}
    space.write_text(json.dumps({"preset": "minute", "hyperparameters": {"kind": asked}}))
    with pytest.raises(ConfigError, match=r"register_attention\(Spotlight\)"):
        foveate.tune("digits", space=str(space), runs=tmp_path / "runs", workers=0)
    foveate.register_attention(Spotlight)
    with pytest.raises(ConfigError, match="give workers=0"):
        foveate.tune("digits", space=str(space), runs=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


class Narrow(torch.nn.Module):
    """Gives fewer channels than it gets."""

    def __init__(self, channels: int) -> None:
        super().__init__()

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features[:, :1]


class Tied(torch.nn.Module):
    """Two names of one weight."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.query = self.key = torch.nn.Conv2d(channels, channels, 1)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features * self.query(features) * self.key(features)


class Failing(torch.nn.Module):
    """Takes the channels to be the last axis."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.dense = torch.nn.Linear(channels, channels)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.dense(features)


class Detached(torch.nn.Module):
    """Weighs the features by what NumPy made of them, and lets no gradient through."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(channels, 1, 1))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.scale * torch.from_numpy(features.detach().numpy() ** 2)


class Undefined(torch.nn.Module):
    """Divides by zero."""

    def __init__(self, channels: int) -> None:
        super().__init__()

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features / (features - features)


class InPlace(torch.nn.Module):
    """Changes what it gets, which is right."""

    def __init__(self, channels: int) -> None:
        super().__init__()

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features.mul_(2)


class Indivisible(torch.nn.Module):
    """Cannot be made for any number of channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.inner = torch.nn.MultiheadAttention(channels, channels + 1)


class NoModule:
    """Is called as one, but has no weights that anybody could train."""

    def __init__(self, channels: int) -> None:
        pass

    def __call__(self, features: torch.Tensor) -> torch.Tensor:
        return features


@pytest.mark.parametrize("mode", ["residual", "replace"])
@pytest.mark.parametrize(
    ("module", "message"),
    [
        (NoModule, "it makes a NoModule, which is not an nn.Module"),
        (Narrow, r"it makes \[2, 1, .*\] of \[2, 6, .*\]: give back the shape it gets"),
        (Tied, "its query.weight and key.weight share memory"),
        (Failing, "it fails on .*: mat1 and mat2 shapes cannot be multiplied"),
        (Detached, "no gradient comes through it"),
        (Undefined, "it gives values that are not finite"),
        (Indivisible, "embed_dim must be divisible by num_heads"),
    ],
)
def test_one_that_does_not_work_is_one_line_and_nothing_is_written(
    tmp_path: Path, module: Any, message: str, mode: str
) -> None:
    name = foveate.register_attention(module)
    settings = {**TINY, "attention": name, "attention_mode": mode}
    with pytest.raises(ConfigError, match=message) as error:
        foveate.train("digits", preset="minute", runs=tmp_path / "runs", **settings)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "runs").exists()


class Initialised(torch.nn.Module):
    """Draws its own weights by a method of a common name, and begins with a zero kernel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.last = torch.nn.Conv2d(channels, channels, 1)
        self.init_weights()

    def init_weights(self) -> None:
        torch.nn.init.zeros_(self.last.weight)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.last(features)


def test_a_method_of_its_own_is_not_called_and_a_zero_kernel_is_trained(tmp_path: Path) -> None:
    name = foveate.register_attention(Initialised)
    settings = {**TINY, "attention": name, "attention_mode": "replace"}
    run = foveate.train("digits", preset="minute", runs=tmp_path / "runs", **settings)
    weights = run.checkpoint().model.state_dict()
    assert all(bool(each.isfinite().all()) for each in weights.values())

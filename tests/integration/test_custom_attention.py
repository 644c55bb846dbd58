"""An attention of one's own: trained, kept by its name alone, and loaded by whoever hands the class over."""

import functools
from pathlib import Path
from typing import Any

import pytest
import torch

import foveate
from foveate.errors import ConfigError
from foveate.model import attention

TINY: dict[str, Any] = {
    "stages": [{"filters": 4, "kernels": [3, 3]}, {"filters": 6, "kernels": [3, 3]}],
    "epochs": 1,
    "passes": 1,
    "batch": 50,
    "views": 1,
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
    monkeypatch.setattr(attention, "_REGISTERED", names)
    return names


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
    with pytest.raises(ConfigError, match=r"hand it over first, by foveate\.register_attention\(Spotlight\)"):
        run.checkpoint()
    with pytest.raises(ConfigError, match="hand it over first"):
        foveate.evaluate(run)
    foveate.register_attention(Spotlight)
    assert any(isinstance(module, Spotlight) for module in run.checkpoint().model.modules())
    assert foveate.evaluate(run).metrics["validation"] == before


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
    assert "MultiheadAttention" in run.report.read_text()


def test_what_has_no_name_or_anothers_is_refused() -> None:
    foveate.register_attention(Spotlight)
    foveate.register_attention(Spotlight)
    other = type("Spotlight", (torch.nn.Module,), {"__module__": "elsewhere", "__qualname__": "Spotlight"})
    with pytest.raises(ConfigError, match="rename one of the two"):
        foveate.register_attention(other)
    with pytest.raises(ConfigError, match="no name of its own"):
        foveate.register_attention(functools.partial(Spotlight, 4))


def test_a_study_of_it_needs_this_process(tmp_path: Path) -> None:
    name = foveate.register_attention(Spotlight)
    with pytest.raises(ConfigError, match="give workers=0"):
        foveate.tune("digits", knobs=("lr",), runs=tmp_path / "runs", settings={"attention": name})

"""Arguments of another type than the public functions take."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pytest

import foveate
from foveate.arguments import typed
from foveate.errors import ConfigError
from foveate.parsing import yaml_line
from foveate.settings import StageConfig


class Follows(Protocol):
    """Satisfied by a method, which no base class tells."""

    def say(self, line: str) -> None: ...


class Prints:
    def say(self, line: str) -> None:
        assert line


@typed
def job(
    data: str | Path,
    *,
    final: bool = False,
    folds: int | None = None,
    share: float = 0.5,
    images: Sequence[str | Path] = (),
    settings: Mapping[str, Any] = {},
    call: Callable[[], int] | None = None,
    follows: Follows | None = None,
    **more: Any,
) -> tuple[object, ...]:
    """What it was given."""
    return data, final, folds, share, images, settings, call, more


def test_what_fits_comes_through() -> None:
    given: dict[str, Any] = {"final": True, "folds": 3, "share": 1, "images": [Path("a"), "b"]}
    assert job(Path("x"), **given, settings={"lr": "x"}, call=int, other=[])[1:4] == (True, 3, 1)
    assert job("x", follows=Prints())[0] == "x"
    assert job("x", images=(each for each in "ab"))[4] is not None
    assert job.__doc__ == "What it was given."


def test_numbers_of_numpy_and_groups_of_settings_become_values_that_can_be_written_down() -> None:
    stage = StageConfig(filters=4, kernels=(3,))
    given: dict[str, Any] = {"folds": np.int64(3), "share": np.float32(0.5), "seed": np.uint8(7)}
    settings = {"lr": np.float64(0.1), "attention": np.str_("luong"), "stages": (stage, {"filters": np.int64(8)})}
    _, _, folds, share, _, found, _, more = job("x", **given, settings=settings, subsets=[np.int64(300), None])
    assert [type(each) for each in (folds, share, more["seed"])] == [int, float, int]
    dumped = {"filters": 4, "kernels": [3], "dilation": 1, "pool": 2, "dropout": 0.0}
    assert found == {"lr": 0.1, "attention": "luong", "stages": [dumped, {"filters": 8}]}
    assert more["subsets"] == [300, None]
    assert yaml_line([folds, share, found, more])


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"final": "no"}, "final='no': give True or False"),
        ({"final": 1}, "final=1: give True or False"),
        ({"folds": True}, "folds=True: give a whole number"),
        ({"folds": 2.0}, "folds=2.0: give a whole number"),
        ({"share": "half"}, "share='half': give a number"),
        ({"share": None}, "share=None: give a number"),
        ({"images": "a.jpg"}, "images='a.jpg': give a list"),
        ({"settings": ["lr=1"]}, r"settings=\['lr=1'\]: give a mapping"),
    ],
)
def test_what_does_not_is_refused(given: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=f"^{told}$"):
        job("x", **given)


@pytest.mark.parametrize("data", [3, None, ["digits"], b"digits"])
def test_data_of_another_type(data: Any) -> None:
    for function in (foveate.train, foveate.check, foveate.tune):
        with pytest.raises(ConfigError, match=r"^data=.*: give a text or a path$"):
            function(data)


@pytest.mark.parametrize("final", ["yes", "no", 1, 0, None])
def test_only_true_opens_a_test_split(final: Any, tmp_path: Path) -> None:
    for job_of_final in (
        lambda: foveate.train("digits", final=final, runs=tmp_path),
        lambda: foveate.evaluate("run", final=final),
        lambda: foveate.compare("digits", ["minute"], final=final, runs=tmp_path),
    ):
        with pytest.raises(ConfigError, match=r"final=.*: give True or False"):
            job_of_final()
    assert list(tmp_path.iterdir()) == []


def every_function() -> Iterator[str]:
    yield from (name for name in foveate.__all__ if name[0].islower())


@pytest.mark.parametrize("name", [*every_function()])
def test_every_public_function_is_checked(name: str) -> None:
    assert hasattr(getattr(foveate, name), "__wrapped__")


def test_the_home_folder_is_meant_in_paths_and_in_no_other_text(monkeypatch: pytest.MonkeyPatch) -> None:
    @typed
    def paths(run: Path | str | None, *, name: str = "", images: Sequence[Path | str] = ()) -> tuple[object, ...]:
        return run, name, images

    monkeypatch.setenv("HOME", "/home/a")
    assert paths("~/x", name="~", images=("~/y", Path("~/z"), "w")) == (
        "/home/a/x",
        "~",
        ["/home/a/y", Path("/home/a/z"), "w"],
    )
    assert paths(Path("~/x"))[0] == Path("/home/a/x")
    assert paths("~nobody-of-this-name/x")[0] == "~nobody-of-this-name/x"
    assert paths(None)[0] is None

"""Groups that a comparison keeps in its folder: written once, checked when they are read back."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from foveate.comparison.groups import keep_groups, kept_groups
from foveate.errors import CheckpointError


def data(*groups: str, **splits: list[int]) -> Any:
    indices = {name: np.array(each) for name, each in splits.items()}
    return SimpleNamespace(groups=groups or None, splits=indices)


def test_the_groups_of_each_split_that_is_judged_are_kept_and_stay(tmp_path: Path) -> None:
    keep_groups(tmp_path, data("a", "b", "", "b", "", "a", train=[0], validation=[1, 3, 4], test=[2, 5]))
    kept = kept_groups(tmp_path, "validation", 3)
    assert kept is not None
    assert kept[0] == kept[1] != kept[2]
    assert len(np.unique(kept_groups(tmp_path, "test", 2))) == 2
    keep_groups(tmp_path, data("x", "y", "z", "x", "y", "z", train=[0], validation=[1, 3, 4], test=[2, 5]))
    assert np.array_equal(kept_groups(tmp_path, "validation", 3), kept)
    assert len([*tmp_path.iterdir()]) == 2


def test_of_images_without_groups_nothing_is_kept(tmp_path: Path) -> None:
    keep_groups(tmp_path, data(train=[0], validation=[1]))
    assert [*tmp_path.iterdir()] == []
    assert kept_groups(tmp_path, "validation", 1) is None


@pytest.mark.parametrize("damage", ["cut", "text", "zip", "other", "huge", "folder"])
def test_a_damaged_file_is_named(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "groups-validation.npy"
    keep_groups(tmp_path, data("a", "a", "b", train=[0], validation=[1, 2]))
    whole = path.read_bytes()
    if damage == "zip":
        np.savez(tmp_path / "some.npz", a=np.zeros(2, np.int64))
    changed = {
        "cut": whole[:-3], "text": b"no", "zip": (tmp_path / "some.npz").read_bytes() if damage == "zip" else b"",
        "other": whole.replace(b"<i8", b"<f8"), "huge": whole.replace(b"(2,)", b"(99999999999999,)"),
    }  # fmt: skip
    path.unlink()
    if damage == "folder":
        path.mkdir()
    else:
        path.write_bytes(changed[damage])
    with pytest.raises(CheckpointError, match=r"groups-validation\.npy .*remove it and resume"):
        kept_groups(tmp_path, "validation", 2)

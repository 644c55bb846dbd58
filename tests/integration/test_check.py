"""A data set checked from the command line: told in lines, JSON and a page, and left as it was."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import foveate as fv

Foveate = Callable[..., Any]
Photographs = Callable[..., Path]


def tree(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {
        str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()
    }


def test_digits_have_nothing_to_mend(foveate: Foveate, tmp_path: Path) -> None:
    done = foveate("check", "digits", "--augment")
    assert done.status == 0, done.err
    checked = fv.Check(tmp_path / "runs" / "check" / "digits")
    assert not checked.must_mend
    assert done.out.endswith("report: runs/check/digits/check.html\n")
    assert {path.name for path in checked.path.iterdir()} == {
        "check.json",
        "check.html",
        "classes.png",
        "augment.png",
    }
    page = checked.report.read_text()
    assert "<script" not in page
    for family in ("as they are", "cutmix", "gridmask"):
        assert family in page


def test_a_folder_with_faults_is_told_and_left_alone(
    foveate: Foveate, photographs: Photographs, tmp_path: Path
) -> None:
    folder = photographs()
    random = np.random.default_rng(0)
    names = sorted(path.name for path in folder.iterdir())
    coarse = Image.fromarray(random.integers(0, 256, (5, 5, 3), np.uint8)).resize((40, 40))
    for place in names[:2]:
        coarse.save(folder / place / "<b>same.png")
    (folder / names[0] / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    before = tree(folder)
    done = foveate("check", folder, "--name", "c")
    assert done.status == 1
    assert not done.err
    assert "mend  1 times the same image with two labels" in done.out
    assert "mend  1 image cannot be read" in done.out
    assert tree(folder) == before
    told = json.loads((tmp_path / "runs" / "check" / "c" / "check.json").read_text())
    kinds = [finding["kind"] for finding in told["findings"]]
    assert {"unreadable", "duplicate_conflict"} <= set(kinds)
    page = (tmp_path / "runs" / "check" / "c" / "check.html").read_text()
    assert "&lt;b&gt;same.png" in page
    assert "<b>same" not in page
    assert fv.Check(tmp_path / "runs" / "check" / "c").must_mend


@pytest.mark.slow
def test_swapped_labels_are_doubted(photographs: Photographs, tmp_path: Path) -> None:
    folder = photographs(each=40)
    names = sorted(path.name for path in folder.iterdir())
    files = sorted((folder / names[0]).iterdir())
    files[0].rename(folder / names[1] / "wrong.jpg")
    narrow = {
        "stages": [{"filters": 8, "kernels": [3, 3]}],
        "attention_stage": 1,
        "images_seen": 2000,
        "batch": 20,
    }
    checked = fv.check(folder, labels=True, runs=tmp_path / "runs", settings={**narrow, "size": 16})
    (doubted,) = [finding for finding in checked.findings if finding["kind"] == "label_suspect"]
    assert doubted["groups"][0] == [f"{names[1]}/wrong.jpg"]
    assert doubted["severity"] == "look"


def test_what_folds_cannot_be_made_of_is_one_line(
    foveate: Foveate, photographs: Photographs, tmp_path: Path
) -> None:
    done = foveate("check", photographs(each=3), "--labels")
    assert (done.status, done.err.count("\n")) == (2, 1)
    assert "check without them" in done.err
    assert not (tmp_path / "runs").exists()


def test_a_check_is_not_written_into_the_data(foveate: Foveate, photographs: Photographs) -> None:
    folder = photographs()
    done = foveate("check", folder, "--runs", folder / "runs")
    assert (done.status, done.err.count("\n")) == (2, 1)
    assert "lies within the data" in done.err

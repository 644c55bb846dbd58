"""A data set checked from the command line: told in lines, JSON and a page, and left as it was."""

import html
import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import foveate as fv
from foveate.config import resolve_config
from foveate.data.dataset import load_dataset

Foveate = Callable[..., Any]
Photographs = Callable[..., Path]


def tree(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {
        str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()
    }


@pytest.mark.usefixtures("drawn_plots")
def test_digits_have_no_problems(foveate: Foveate, tmp_path: Path) -> None:
    done = foveate("check", "digits", "--augment")
    assert done.status == 0, done.err
    checked = fv.Check(tmp_path / "runs" / "check" / "digits")
    assert not checked.has_errors
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


def test_what_comes_next_trains_on_what_was_checked(foveate: Foveate, tmp_path: Path) -> None:
    done = foveate(
        "check", "digits", "--size", 16, "--set", "fit=squash", "--runs", "other runs", "--preset", "small"
    )
    assert done.status == 0, done.err
    assert "as train takes them with the preset small and these settings\n" in done.out
    (line,) = (line for line in done.out.splitlines() if line.startswith("next: "))
    words = shlex.split(line.removeprefix("next: foveate "))
    assert words == [
        *("train", "digits", "--preset", "small", "--runs", "other runs"),
        *("--set", "size=16", "--set", "fit=squash"),
    ]


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
    assert "error   1 image has copies with another label" in done.out
    assert "error   1 image cannot be read" in done.out
    assert tree(folder) == before
    told = json.loads((tmp_path / "runs" / "check" / "c" / "check.json").read_text())
    kinds = [finding["kind"] for finding in told["findings"]]
    assert {"unreadable", "duplicate_conflict"} <= set(kinds)
    (conflict,) = [finding for finding in told["findings"] if finding["kind"] == "duplicate_conflict"]
    assert set(conflict["remarks"].values()) <= {
        f"{name}, {split}" for name in names[:2] for split in ("train", "validation", "test")
    }
    page = (tmp_path / "runs" / "check" / "c" / "check.html").read_text()
    assert "39 images (1 of them cannot be read)" in page
    assert "Error: Images that cannot be read" in page
    assert "&lt;b&gt;same.png" in page
    assert "<b>same" not in page
    assert fv.Check(tmp_path / "runs" / "check" / "c").has_errors


@pytest.mark.slow
def test_swapped_labels_are_doubted(photographs: Photographs, tmp_path: Path) -> None:
    """Confident learning names a swapped label where the network is surer than on average, so not every one."""
    folder = photographs(each=40)
    names = sorted(path.name for path in folder.iterdir())
    swapped = {f"{names[1]}/wrong{number}.jpg" for number in range(4)}
    for number, path in enumerate(sorted((folder / names[0]).iterdir())[:4]):
        path.rename(folder / names[1] / f"wrong{number}.jpg")
    narrow = {
        "stages": [{"filters": 8, "kernels": [3, 3]}],
        "attention_stage": 1,
        "images_seen": 3000,
        "batch": 20,
    }
    checked = fv.check(folder, labels=True, runs=tmp_path / "runs", settings={**narrow, "size": 16})
    (doubted,) = [finding for finding in checked.findings if finding["kind"] == "label_suspect"]
    assert {path for group in doubted["groups"] for path in group} <= swapped
    assert doubted["severity"] == "warning"
    assert set(doubted["remarks"].values()) == {f"{names[1]}, or {names[0]}?"}


def test_what_folds_cannot_be_made_of_is_one_line(
    foveate: Foveate, photographs: Photographs, tmp_path: Path
) -> None:
    done = foveate("check", photographs(each=3), "--labels")
    assert (done.status, done.err.count("\n")) == (2, 1)
    assert "check without --labels" in done.err
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (("--name", "taken"), "taken exists"),
        (("--name", "a/b"), "give a plain name"),
        (("--device", "tpu"), "--device tpu is not a device"),
        (("--runs", "a-file"), "a part of the path is a file"),
    ],
)
def test_what_cannot_be_done_is_said_before_the_work(
    foveate: Foveate, photographs: Photographs, tmp_path: Path, flags: tuple[str, ...], line: str
) -> None:
    (tmp_path / "runs" / "check" / "taken").mkdir(parents=True)
    (tmp_path / "a-file").touch()
    done = foveate("check", photographs(), *flags)
    assert (done.status, done.err.count("\n")) == (2, 1)
    assert line in done.err
    assert "reading headers" not in done.out


def test_images_that_declare_no_split_are_checked_as_training_images(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    rows = ["image,label,split"]
    for number in range(12):
        pixels = random.integers(0, 256, (4, 4, 3), np.uint8)
        Image.fromarray(pixels).resize((32, 32)).save(tmp_path / f"{number}.png")
        rows.append(f"{number}.png,{'ab'[number % 2]},{'train' if number < 4 else 'test' if number < 8 else ''}")
    (tmp_path / "images.csv").write_text("\n".join(rows))
    checked = fv.check(tmp_path / "images.csv", runs=tmp_path / "runs")
    counts = json.loads((checked.path / "check.json").read_text())["counts"]
    assert {split: sum(each.values()) for split, each in counts.items()} == {"train": 8, "test": 4}


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Pictures that count as photographs, less than half as large as a backbone is given, and a table."""
    random = np.random.default_rng(0)
    for number in range(24):
        place = tmp_path / "pictures" / ("across", "down")[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        pixels = Image.fromarray(random.integers(0, 256, (5, 5, 3), np.uint8))
        pixels.resize((110, 100)).save(place / f"{number}.jpg")
    (tmp_path / "pictures" / "groups.csv").write_text("image,label,group")
    return tmp_path / "pictures"


@pytest.mark.parametrize(
    ("has_weights", "settings", "preset", "size"),
    [(True, {}, "photos", 224), (True, {"size": 64, "fit": "squash"}, "photos", 64), (False, {}, "minute", 64)],
)
def test_images_are_checked_as_train_would_take_them(
    pictures: Path,
    tmp_path: Path,
    own_cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    has_weights: bool,
    settings: dict[str, Any],
    preset: str,
    size: int,
) -> None:
    monkeypatch.setattr("foveate.workflows.defaults.has_packaged_weights", lambda _: has_weights)
    checked = fv.check(pictures, augment=True, runs=tmp_path / "runs", settings=settings)
    told = json.loads((checked.path / "check.json").read_text())
    fit = settings.get("fit", "crop")
    assert (told["preset"], told["size"], told["fit"]) == (preset, size, fit)
    said = f"images at {size} px (fit: {fit}), as train takes them with the preset {preset}"
    assert said in checked.report.read_text()
    assert ("enlarged" in {each["kind"] for each in checked.findings}) == (size == 224)
    decoded = {path: path.stat().st_mtime_ns for path in own_cache.glob("decoded/*")}
    assert decoded
    dataset = load_dataset(str(pictures), resolve_config(preset, settings=settings).data)
    assert dataset.size == size
    assert {path: path.stat().st_mtime_ns for path in own_cache.glob("decoded/*")} == decoded


def test_findings_of_one_kind_share_a_card_with_words_for_a_title(pictures: Path, tmp_path: Path) -> None:
    (pictures / "Thumbs.db").touch()
    checked = fv.check(pictures, preset="minute", runs=tmp_path / "runs")
    left_out = [each["text"] for each in checked.findings if each["kind"] == "passed_over"]
    assert len(left_out) == 3
    page = checked.report.read_text()
    assert page.count("Warning: Files that were left out, and how folders were read") == 1
    assert all(html.escape(text, quote=False) in page for text in left_out)
    assert "passed over" not in page
    assert "text-overflow" not in page  # what is said of an image is shown to its end


def test_a_check_is_not_written_into_the_data(foveate: Foveate, photographs: Photographs) -> None:
    folder = photographs()
    done = foveate("check", folder, "--runs", folder / "runs")
    assert (done.status, done.err.count("\n")) == (2, 1)
    assert "lies within the data" in done.err

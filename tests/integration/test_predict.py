"""Predictions from the command line: every way to name images, every table, and what cannot be read."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

import foveate as fv
from foveate.checkpoint import checkpoint_metadata
from foveate.confidence import Confidence, Unlike
from foveate.errors import ConfigError, OutputError
from foveate.inference import shards
from foveate.model.build import build_model
from foveate.preprocessing import Preprocessing
from foveate.settings import ModelConfig
from foveate.tensors import save_tensors

Foveate = Callable[..., Any]

FOVEATE = [sys.executable, "-c", "from foveate.cli import main; main()"]
CLASSES = ("<b>bold</b>", "=1+1", "🦊" * 30, "../up", "a,b\"c'd")
FITTED = Confidence(
    temperature=0.02, scores=tuple(np.linspace(0.2, 1, 40).tolist()), unlike=Unlike(threshold=-1.7, images=200)
)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    config = ModelConfig(stages=[{"filters": 4, "kernels": [3]}], attention="luong", hidden=8, attention_stage=1)
    path = tmp_path / "weights.safetensors"
    card = {
        **checkpoint_metadata(config, CLASSES, Preprocessing(16)),
        "confidence": FITTED.model_dump(mode="json"),
    }
    save_tensors(path, build_model(config, num_classes=len(CLASSES), size=16).state_dict(), card)
    return path


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Six images in two folders, one damaged, and a text file."""
    random = np.random.default_rng(0)
    root = tmp_path / "photos"
    for name in ("a/1.png", "a/2.jpg", "a/b/3.png", "a/b/=4.png", "5.png", "6.bmp"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (20, 30, 3), np.uint8)).save(root / name)
    (root / "5.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (root / "notes.txt").write_text("no image")
    return root


def test_a_folder_is_read_at_any_depth_and_what_cannot_be_read_has_a_reason(
    foveate: Foveate, model: Path, images: Path
) -> None:
    done = foveate("predict", model, images)
    assert done.status == 1
    assert len(done.out.splitlines()) == 6
    assert [line for line in done.out.splitlines() if "unreadable" in line and "5.png" in line]
    assert "6 images by class: " in done.err
    assert "1 cannot be read" in done.err
    assert "1 file is left out, because the name does not end like that of an image" in done.err


def test_files_patterns_and_a_list_name_the_same_images(
    foveate: Foveate, model: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = foveate("predict", model, images / "a/1.png", images / "a/2.jpg")
    assert named.status == 0
    assert foveate("predict", model, str(images / "a" / "[12].*")).out == named.out
    listed = subprocess.run(
        [*FOVEATE, "predict", str(model), "-"],
        input=f"{images}/a/1.png\r\n\n{images}/a/2.jpg\n",
        capture_output=True,
        text=True,
        check=True,
    )
    assert listed.stdout == named.out


@pytest.mark.parametrize("kind", ["csv", "json", "parquet"])
def test_tables_hold_what_the_predictor_says(
    foveate: Foveate, model: Path, images: Path, tmp_path: Path, kind: str
) -> None:
    table = tmp_path / f"out.{kind}"
    flags = ("--all", "--top", 2, "--coverage", 0.5, "--min-probability", 0.3)
    assert foveate("predict", model, images, f"--{kind}", table, *flags).status == 1
    assert not list(tmp_path.glob(".out*"))
    rows: list[dict[str, Any]]
    match kind:
        case "csv":
            rows = list(csv.DictReader(table.read_text().splitlines()))
        case "json":
            rows = json.loads(table.read_text())
        case _:
            rows = pq.read_table(table).to_pylist()
    expected = {each.id: each for each in fv.predict(model, [images], coverage=0.5)}
    assert [row["id"].removeprefix("'") for row in rows] == list(expected)
    for row in rows:
        prediction = expected[row["id"]]
        if prediction.reason:
            assert row["reason"] == prediction.reason
            assert row["label"] in (None, "")
            continue
        assert prediction.probabilities is not None
        assert prediction.label is not None
        assert float(row["probability"]) == pytest.approx(prediction.probability, rel=1e-5)
        label = prediction.label if prediction.probability >= 0.3 else "unsure"
        escaped = {"=1+1": "'=1+1"} if kind == "csv" else {}
        assert row["label"] == escaped.get(label, label)
        assert row["likeliest"] == escaped.get(prediction.label, prediction.label)
        second = CLASSES[np.argsort(-prediction.probabilities)[1]]
        assert row["label_2"] == escaped.get(second, second)
        members = json.loads(row["set"]) if kind == "csv" else row["set"]
        assert tuple(members) == prediction.set
        match kind:
            case "csv":
                values = [float(row[f"probability of {name}"]) for name in CLASSES]
                assert row["unlike"] == str(prediction.unlike).lower()
            case "json":
                values = [row["probabilities"][name] for name in CLASSES]
                assert row["unlike"] is prediction.unlike
            case _:
                values = row["probabilities"]
                assert row["unlike"] is prediction.unlike
        np.testing.assert_allclose(values, prediction.probabilities, rtol=1e-4)


def test_a_coverage_that_the_model_has_too_few_images_for_is_told(
    foveate: Foveate, model: Path, images: Path
) -> None:
    done = foveate("predict", model, images / "a/1.png", "--coverage", 0.99)
    assert "coverage 0.99: every set holds all classes" in done.err
    assert "coverage" not in foveate("predict", model, images / "a/1.png", "--coverage", 0.9).err


def test_a_table_on_the_screen_is_alone_on_standard_output(foveate: Foveate, model: Path, images: Path) -> None:
    assert len(json.loads(foveate("predict", model, images, "--json", "-").out)) == 6
    assert len(list(csv.reader(foveate("predict", model, images, "--csv", "-").out.splitlines()))) == 7


@pytest.mark.parametrize(("lines_shown", "words"), [(True, ()), (True, ("--json", "-")), (False, ())])
def test_no_bar_is_drawn_into_lines_on_a_terminal(
    foveate: Foveate,
    model: Path,
    images: Path,
    monkeypatch: pytest.MonkeyPatch,
    lines_shown: bool,
    words: tuple[str, ...],
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: lines_shown)
    done = foveate("predict", model, images / "a/1.png", *words)
    assert (done.status, "predicting" in done.err) == (0, not lines_shown)


def test_images_are_copied_by_their_labels_and_stay_where_they_were(
    foveate: Foveate, model: Path, images: Path, tmp_path: Path
) -> None:
    before = {path: path.read_bytes() for path in images.rglob("*") if path.is_file()}
    target = tmp_path / "sorted"
    assert foveate("predict", model, images, "--sort-into", target).status == 1
    assert {path: path.read_bytes() for path in images.rglob("*") if path.is_file()} == before
    copies = [path for path in target.rglob("*") if path.is_file()]
    assert all(path.parent.parent == target for path in copies)
    assert sorted(path.read_bytes() for path in copies) == sorted(
        content for path, content in before.items() if path.name not in ("5.png", "notes.txt")
    )
    again = foveate("predict", model, images, "--sort-into", target)
    assert again.status == 2
    assert again.err == f"foveate: {target} exists and is not empty: give a new folder, or remove it first\n"
    within = foveate("predict", model, images, "--sort-into", images / "sorted")
    assert within.status == 2
    assert not (images / "sorted").exists()
    table = foveate("predict", model, images, "--csv", images / "deep" / "table.csv")
    assert table.status == 2
    assert f"lies within the data, {images}: write the table elsewhere" in table.err
    assert not (images / "deep" / "table.csv").exists()


def test_two_images_of_one_name_are_both_copied(foveate: Foveate, model: Path, tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        Image.new("RGB", (16, 16), (9, 9, 9)).save(tmp_path / folder / "same.png")
    assert foveate("predict", model, tmp_path / "one", tmp_path / "two", "--sort-into", tmp_path / "s").status == 0
    assert sorted(path.name for path in (tmp_path / "s").rglob("*.png")) == ["same-2.png", "same.png"]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("missing.safetensors", "."), "no model at missing.safetensors"),
        (("MODEL", "missing.png"), "there is no file or folder 'missing.png'"),
        (("MODEL", "*.nothing"), "no file matches '*.nothing'"),
        (("MODEL", "empty"), "empty holds no image files"),
        (("MODEL", "photos", "--coverage", "95"), "--coverage 95: give a share above 0 and below 1"),
        (("MODEL", "photos", "--top", "0"), "--top 0: give 1 at least"),
        (("MODEL", "photos", "--min-probability", "2"), "--min-probability 2: give a probability"),
        (("MODEL", "photos", "--csv", "a.csv", "--json", "b.json"), "give one of --csv and --json"),
        (("MODEL", "photos", "--csv", "a.txt"), "--csv a.txt: give a file whose name ends in .csv"),
        (("MODEL", "photos", "--parquet", "-"), "--parquet -: give a file whose name ends in .parquet"),
        (("MODEL", "photos", "--csv", "there.csv"), "there.csv exists: remove it, or choose another name"),
        (("MODEL", "photos", "--workers", "2"), "workers and Ray predict into a file"),
        (("MODEL", "photos", "--csv", "a.csv", "--workers", "0"), "--workers 0: give 1 at least"),
        (("MODEL", "photos", "--device", "cuda:9"), "--device cuda:9 is not there"),
        (("photos", "photos"), "photos is not a run"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    foveate: Foveate, model: Path, images: Path, tmp_path: Path, words: tuple[str, ...], line: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "there.csv").write_text("mine")
    done = foveate("predict", *(str(model) if word == "MODEL" else word for word in words))
    assert (done.status, done.err.count("\n")) == (2, 1), done.err
    assert line in done.err
    assert (tmp_path / "there.csv").read_text() == "mine"


@pytest.fixture
def many(tmp_path: Path) -> Path:
    random = np.random.default_rng(1)
    root = tmp_path / "many"
    root.mkdir()
    for number in range(150):
        Image.fromarray(random.integers(0, 256, (16, 16, 3), np.uint8)).save(root / f"{number:03}.png")
    return root


@pytest.mark.slow
def test_workers_predict_the_same_table(
    foveate: Foveate, model: Path, many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "SHARD", 60)
    assert foveate("predict", model, many, "--csv", tmp_path / "one.csv").status == 0
    assert foveate("predict", model, many, "--csv", tmp_path / "two.csv", "--workers", 2).status == 0
    one, two = (
        list(csv.DictReader((tmp_path / f"{name}.csv").read_text().splitlines())) for name in ("one", "two")
    )
    assert [(row["id"], row["label"]) for row in one] == [(row["id"], row["label"]) for row in two]


@pytest.mark.ray
@pytest.mark.slow
def test_ray_predicts_the_same_table(model: Path, many: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason='needs Ray: pip install "foveate[ray]"')
    tables = []
    for name, how in (("one", ()), ("ray", ("--ray", "local", "--workers", "2"))):
        table = tmp_path / f"{name}.csv"
        command = [*FOVEATE, "predict", str(model), str(many), "--csv", str(table), *how]
        # Ray keeps threads in the process that started it: a process of its own leaves none to the other tests.
        assert subprocess.run(command, timeout=300, check=False).returncode == 0
        tables.append(table.read_text())
    assert tables[0] == tables[1]


class StoppedError(Exception):
    """What stops the work in a test."""


def test_a_job_that_was_stopped_goes_on_and_another_command_does_not_mix(
    model: Path, many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from foveate.workflows.predict import predict_rows

    monkeypatch.setattr(shards, "SHARD", 40)
    paths = sorted(str(path) for path in many.iterdir())
    table = tmp_path / "out.parquet"

    def stopping(items: Iterator[Any], **_: Any) -> Iterator[Any]:
        for number, item in enumerate(items):
            if number == 100:
                raise StoppedError
            yield item

    with pytest.raises(StoppedError):
        list(predict_rows(model, paths, table=table, track=stopping)[1])
    kept = sorted(path.name for path in (tmp_path / ".out.parquet.parts").glob("*.parquet"))
    assert kept == ["00000000.parquet", "00000001.parquet"]
    with pytest.raises(ConfigError, match="of another command"):
        predict_rows(model, paths[1:], table=table)
    seen: list[int] = []

    def counting(items: Iterator[Any], *, total: int, **_: Any) -> Iterator[Any]:
        seen.append(total)
        yield from items

    _, rows = predict_rows(model, paths, table=table, track=counting)
    assert [row["id"] for row in rows] == paths
    assert seen == [70]
    assert pq.read_table(table)["id"].to_pylist() == paths
    assert not (tmp_path / ".out.parquet.parts").exists()


def test_a_damaged_part_is_one_line(model: Path, many: Path, tmp_path: Path) -> None:
    from foveate.workflows.predict import predict_rows

    paths = sorted(str(path) for path in many.iterdir())
    predict_rows(model, paths, table=tmp_path / "out.csv")
    (tmp_path / ".out.csv.parts" / "00000000.parquet").write_bytes(b"PAR1")
    with pytest.raises(OutputError, match="is damaged: remove its folder to begin again"):
        list(predict_rows(model, paths, table=tmp_path / "out.csv")[1])


@pytest.mark.slow
def test_a_killed_job_goes_on(model: Path, many: Path, tmp_path: Path) -> None:
    words = [
        *FOVEATE,
        "predict",
        str(model),
        str(many),
        "--csv",
        str(tmp_path / "o.csv"),
    ]
    process = subprocess.Popen(words, stderr=subprocess.DEVNULL)
    parts = tmp_path / ".o.csv.parts"
    until = time.monotonic() + 60
    while not parts.exists() and time.monotonic() < until:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    subprocess.run(words, check=True, capture_output=True)
    assert len((tmp_path / "o.csv").read_text().splitlines()) == 151
    assert not parts.exists()


def test_two_files_are_never_one_row(foveate: Foveate, model: Path, images: Path, tmp_path: Path) -> None:
    content = (images / "a/1.png").read_bytes()
    folder = tmp_path / "odd"
    folder.mkdir()
    names = ("a\nb.png", "a\\nb.png", "\x1b[31m.png", os.fsdecode(b"\xff.png"))
    for name in names:
        (folder / name).write_bytes(content)
    for kind in ("json", "parquet"):
        assert foveate("predict", model, folder, f"--{kind}", tmp_path / f"out.{kind}").status == 0
    told = [row["id"] for row in json.loads((tmp_path / "out.json").read_text())]
    assert told == [row["id"] for row in pq.read_table(tmp_path / "out.parquet").to_pylist()]
    assert sorted(told) == sorted(f"{folder}/{name}".replace("\udcff", "\\udcff") for name in names)
    shown = foveate("predict", model, folder)
    assert "\x1b" not in shown.out
    assert len(shown.out.splitlines()) == len(names)
    assert "\x1b" not in foveate("predict", model, folder, "--csv", "-").out


def test_below_the_probability_the_likeliest_class_is_named(foveate: Foveate, model: Path, images: Path) -> None:
    done = foveate("predict", model, images / "a/1.png", "--min-probability", 1)
    assert re.match(r" *\d+\.\d\d%  unsure: ", done.out)


def test_a_class_that_is_called_unsure_is_not_mixed_with_what_is(
    foveate: Foveate, images: Path, tmp_path: Path
) -> None:
    config = ModelConfig(stages=[{"filters": 4, "kernels": [3]}], attention="none", hidden=8)
    card = checkpoint_metadata(config, ("sure", "unsure"), Preprocessing(16))
    save_tensors(tmp_path / "m.safetensors", build_model(config, num_classes=2, size=16).state_dict(), card)
    done = foveate("predict", tmp_path / "m.safetensors", images / "a/1.png", "--min-probability", 0.5)
    assert (done.status, "a class of this model is called 'unsure'" in done.err) == (2, True)


def test_what_is_no_model_is_said_to_be_none(foveate: Foveate, images: Path) -> None:
    done = foveate("predict", images / "a/1.png", images / "a/2.jpg")
    assert (done.status, done.err.count("\n")) == (2, 1)
    assert "is not a model: give a run folder, a .safetensors or an exported .onnx file" in done.err


def test_a_list_made_on_windows_loses_no_image(model: Path, images: Path) -> None:
    done = subprocess.run(
        [*FOVEATE, "predict", str(model), "-"],
        input=f"\ufeff{images}/a/1.png\r\n{images}/a/2.jpg\r\n".encode(),
        capture_output=True,
        check=True,
    )
    assert len(done.stdout.splitlines()) == 2


def test_a_wrong_number_of_workers_leaves_nothing(
    foveate: Foveate, model: Path, images: Path, tmp_path: Path
) -> None:
    done = foveate("predict", model, images, "--csv", tmp_path / "out.csv", "--workers", -1)
    assert (done.status, "--workers -1: give 1 at least" in done.err) == (2, True)
    assert not list(tmp_path.glob(".out*"))

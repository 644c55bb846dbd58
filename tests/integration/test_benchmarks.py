"""The benchmarks run, at a size of seconds: what they find is for a quiet machine, and not asserted."""

import argparse
import contextlib
import importlib.util
import io
import json
import math
import multiprocessing
import os
import runpy
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import matplotlib as mpl
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import typer
from PIL import Image
from tests import exported
from tests.commands import finish, run_script

import foveate
from foveate.cli import app
from foveate.data.families import FAMILIES, MIXES
from foveate.inference.network import ViewsAveraged
from foveate.model.blocks import Normalize, WhiteningConv2d
from foveate.training.optim import Muon

pytestmark = pytest.mark.slow

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
FIGURE_3_1 = (
    (1024, 27, 64),
    (1024, 576, 64),
    (256, 1600, 256),
    (256, 6400, 256),
    (1, 6400, 512),
    (1, 512, 10),
)
"""Positions, inputs and outputs of its convolutions and dense layers."""


Run = Callable[..., tuple[str, Any]]


@pytest.fixture(autouse=True)
def own_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A user's data and cache have no part in it. Only matplotlib's cache of fonts takes long to make anew."""
    monkeypatch.setenv("MPLCONFIGDIR", mpl.get_cachedir())
    monkeypatch.setenv("FOVEATE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")  # which a benchmark sets: here for the test alone
    monkeypatch.delenv("FOVEATE_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a benchmark in this process, which has imported torch already: what it prints, and its record."""

    def run(script: str, *arguments: object) -> tuple[str, Any]:
        record = tmp_path / "record.json"
        monkeypatch.setattr(sys, "argv", [script, *map(str, arguments), "--json", str(record)])
        runpy.run_path(str(BENCHMARKS / script), run_name="__main__")
        return capsys.readouterr().out, json.loads(record.read_text())

    return run


@pytest.fixture
def run_apart(tmp_path: Path) -> Run:
    """Runs a benchmark that forks, or changes what its libraries do, in a process of its own."""

    def run(script: str, *arguments: object) -> tuple[str, Any]:
        record = tmp_path / "record.json"
        done = start(script, *arguments, "--json", record)
        assert done.returncode == 0, done.stderr
        return done.stdout, json.loads(record.read_text())

    return run


@pytest.fixture
def processes_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """A benchmark's commands and scripts run in this process, where each would start its own and import torch.

    But for the stage `train`, whose memory is measured.
    """
    import harness

    started = harness.run_python

    def run_python(*words: object, **environment: str) -> tuple[float, str]:
        script = Path(str(words[0]))
        ours = words[:2] == harness.FOVEATE or script.parent == BENCHMARKS
        if not ours or words[-1] == "train":
            return started(*words, **environment)
        began, printed = time.perf_counter(), io.StringIO()
        with mock.patch.dict(os.environ, environment):
            if words[:2] == harness.FOVEATE:
                printed.write(finish(Path.cwd(), *words[2:]))
            else:
                with mock.patch.object(sys, "argv", [*map(str, words)]), contextlib.redirect_stdout(printed):
                    runpy.run_path(str(script), run_name="__main__")
        return time.perf_counter() - began, printed.getvalue()

    monkeypatch.setattr(harness, "run_python", run_python)


def start(script: str, *arguments: object) -> "subprocess.CompletedProcess[str]":
    """Run a benchmark in a process to its end, whatever that is."""
    command = [sys.executable, str(BENCHMARKS / script), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Two Parquet shards of noise in two classes, as the hub lays them out."""
    random, folder = np.random.default_rng(0), tmp_path / "shards"
    folder.mkdir()
    for split, count in (("train", 80), ("test", 20)):
        rows = []
        for _ in range(count):
            file = io.BytesIO()
            Image.fromarray(random.integers(0, 256, (32, 32, 3), np.uint8)).save(file, "PNG")
            rows.append({"bytes": file.getvalue(), "path": None})
        table = pa.table({"img": rows, "label": [row % 2 for row in range(count)]})
        pq.write_table(table, folder / f"{split}-00000-of-00001.parquet")
    return folder


def test_train_step_measures_the_step_the_product_and_the_augmentation(run: Run) -> None:
    sizes = ("--batch", 2, "--rounds", 1, "--seconds", 0.01, "--threads", 1)
    printed, record = run("train_step.py", "--peer", "none", "--augment", *sizes)
    summary = record["summary"]
    # Figure 3.1 forward and twice that backward; the first convolution has no gradient of its input.
    forward = [2 * math.prod(each) for each in FIGURE_3_1]
    assert summary["gflop_per_image"] == pytest.approx((3 * sum(forward) - forward[0]) / 1e9, rel=0.005)
    assert summary["foveate_gflop_per_s"] == pytest.approx(
        summary["gflop_per_image"] * summary["foveate_images_per_s"]
    )
    assert 0 < summary["share_of_matmul"] < 2
    assert 0 < summary["augment_share"] < 1
    assert summary["matmul_gflop_per_s"] >= summary["torch_mm_gflop_per_s"] > 0
    assert summary["ratio_to_keras"] is None
    assert record["foveate"][0]["threads"] == 1
    assert "goal ≥ 0.85" in printed
    assert "goal < 0.1:" in printed


@pytest.mark.usefixtures("processes_here")
def test_loading_times_a_cold_and_a_cached_load_and_the_memory(shards: Path, run: Run) -> None:
    printed, record = run("loading.py", "--data", shards, "--rounds", 1, "--steps", 1, "--batch", 2)
    assert record["cold"][0]["images"] == record["cached"][0]["images"] == 100
    assert 0 < record["cached"][0]["load_s"] < 5
    assert 0 < record["hashed"][0]["load_s"] < 5
    assert "load, cached, pixels hashed" in printed
    # The paper's model with its gradients and AdamW's two moments is 86 MB in itself.
    assert 0.086 < record["train"]["rss_gb"] < 4
    assert printed.count("goal ≤") == 3


def test_loading_refuses_what_is_no_parquet(run: Run) -> None:
    with pytest.raises(
        SystemExit, match="digits was not read from Parquet shards: name their folder by --data-dir"
    ):
        run("loading.py", "--data", "digits", "--stage", "load")


def test_devices_are_measured_in_turns(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # which it sets
    printed, record = run("devices.py", "--rounds", 1, "--steps", 1, "--preset", "small")
    assert printed.count(" × ") == 3
    for name in ("1 × 2", "2 × 1"):
        assert record[name]["ms_an_image"][0] > 0


def test_scaling_repeats_the_images_measures_a_size_and_removes_what_it_made(
    shards: Path, tmp_path: Path, run: Run
) -> None:
    folder = tmp_path / "large"
    folder.mkdir()
    sizes = ("--factors", 3, "--steps", 8, "--batch", 4, "--data", shards)
    printed, record = run("scaling.py", "--folder", folder, *sizes)
    assert [row["images"] for row in record] == [240]
    for row in record:
        assert row["steps"] == 8
        assert row["step_s"] > 0
        assert len(row["rss_anon_mb"]) == 7
        assert min(row["rss_anon_mb"]) > 10
    assert printed.count("goal ≤ 1.02") == 2
    assert not list(folder.iterdir())


def test_scaling_says_in_one_line_that_there_is_no_room(shards: Path, run: Run) -> None:
    with pytest.raises(SystemExit, match=r"\A[^\n]*: give another --folder\Z"):
        run("scaling.py", "--data", shards, "--factors", 10**9)


@pytest.mark.usefixtures("processes_here")
def test_million_measures_its_stages_and_keeps_the_set(shards: Path, tmp_path: Path, run: Run) -> None:
    folder = tmp_path / "large"
    sizes = ("--images", 130, "--files", 40, "--steps", 0, "--rounds", 1)
    printed, record = run("million.py", "--folder", folder, "--data", shards, *sizes)
    assert record["index_of_parquet"]["images"] == record["cold"]["images"] == record["cached"]["images"] == 130
    assert record["index_of_files"]["images"] == 40
    assert "decoding images" in record["cold"]["spans_s"]
    assert "decoding images" not in record["cached"]["spans_s"]
    assert record["decoding"]["jpeg_64_px"]["same_pixels"]
    assert printed.count("goal <") + printed.count("goal ≥") == 3
    assert sorted(path.name for path in folder.iterdir()) == ["files", "one", "parquet"]


def test_throughput_counts_training_and_inference_of_a_preset(run: Run) -> None:
    sizes = ("--presets", "paper", "minute-twin", "--seconds", 0.01, "--batch", 2, "--threads", 1)
    printed, record = run("throughput.py", *sizes)
    found = {(row["preset"], row["work"]): row for row in record["rows"]}
    assert len(found) == len(record["rows"]) == 4
    # Of the paper's model as above; nothing goes back through a stem that is frozen.
    forward = [2 * math.prod(each) for each in FIGURE_3_1]
    forward.append(2 * 2 * 16 * 16 * 16 * 64)  # attention: scores and their products with the values
    assert found["paper", "inference"]["gflop_per_image"] == pytest.approx(sum(forward) / 1e9)
    trained = 3 * sum(forward) - forward[0]
    assert found["paper", "training"]["gflop_per_image"] == pytest.approx(trained / 1e9)
    stem = 2 * 31 * 31 * 12 * 24 / 1e9
    through = [found["minute-twin", work]["gflop_per_image"] for work in ("training", "inference")]
    assert through[0] < 3 * through[1] - 2 * stem
    for row in record["rows"]:
        assert row["gflop_per_s"] == pytest.approx(row["images_per_s"] * row["gflop_per_image"])
        assert 0 < row["share"] < 2
    assert printed.count("minute-twin") == 2


@pytest.fixture
def dark_and_bright(tmp_path: Path) -> Path:
    """An .npz file of noise of two brightnesses, which any training tells apart."""
    random = np.random.default_rng(0)
    labels = np.arange(120) % 2
    images = random.integers(0, 128 + 128 * labels[:, None, None, None], (120, 32, 32, 3)).astype(np.uint8)
    path = tmp_path / "brightness.npz"
    parts = {"x_train": images[:90], "y_train": labels[:90], "x_test": images[90:], "y_test": labels[90:]}
    np.savez(path, **parts)
    return path


def test_the_port_of_airbench_learns_and_tells_time_and_both_accuracies(dark_and_bright: Path, run: Run) -> None:
    sizes = ("--data", dark_and_bright, "--batch", 36, "--epochs", 4, "--train-limit", 72, "--threads", 1)
    printed, record = run("airbench_cpu.py", *sizes, "--seed", 3)
    rows = record["rows"]
    assert [(row["seed"], row["epoch"]) for row in rows] == [(3, epoch) for epoch in (1, 2, 3, 4)]
    assert rows[3]["plain"] > 0.9
    assert rows[3]["six_views"] > 0.9
    assert 0 < rows[0]["train_s"] < rows[3]["train_s"] < rows[3]["since_start_s"]
    assert record["threads"] == 1
    assert printed.count("six views") == 4


def test_the_port_of_airbench_refuses_fewer_images_than_a_batch(
    dark_and_bright: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        run("airbench_cpu.py", "--data", dark_and_bright)
    assert "90 training images make no batch of 2000" in capsys.readouterr().err


def load_script(name: str) -> ModuleType:
    """A benchmark as a module."""
    found = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    sys.modules[found.name] = module  # dataclasses look it up
    found.loader.exec_module(module)
    return module


@pytest.fixture
def port() -> ModuleType:
    """The port of airbench."""
    return load_script("airbench_cpu")


def test_the_port_steps_its_kernels_as_foveates_muon_does(port: ModuleType) -> None:
    drawn = torch.Generator().manual_seed(0)
    kernels = [torch.randn(shape, generator=drawn) for shape in ((8, 3, 3, 3), (16, 8, 1, 1))]
    ports = [torch.nn.Parameter(kernel.clone()) for kernel in kernels]
    ours = [torch.nn.Parameter(kernel.clone()) for kernel in kernels]
    theirs, muon = port.Muon(ports), Muon(ours, [], lr=0.24, momentum=0.6)
    for _ in range(3):
        for one, other in zip(ports, ours, strict=True):
            one.grad = torch.randn(one.shape, generator=drawn)
            other.grad = one.grad.clone()
        theirs.step(0.24)
        muon.step()
    for one, other, kernel in zip(ports, ours, kernels, strict=True):
        torch.testing.assert_close(one, other)
        assert not torch.allclose(one, kernel, atol=0.1)


def test_the_port_whitens_as_foveate_does(port: ModuleType) -> None:
    drawn = torch.Generator().manual_seed(0)
    images = torch.randn(200, 3, 8, 8, generator=drawn)
    images = images + 0.8 * images.roll(1, 3) + torch.randn(200, 1, 8, 8, generator=drawn)
    ours = WhiteningConv2d(3, 2)
    ours.fit([images])
    network = port.Network(10)
    network.fit_whitening(images)
    patches = torch.nn.functional.conv2d(images, network.whiten.weight)[:, :12].transpose(0, 1).flatten(1)
    torch.testing.assert_close(patches @ patches.T / patches.shape[1], torch.eye(12), atol=0.01, rtol=0)
    # The sign of an eigenvector is anyone's.
    torch.testing.assert_close(network.whiten.weight.abs(), ours.weight.abs(), atol=1e-3, rtol=1e-3)


def test_the_port_counts_its_views_as_foveate_does(port: ModuleType) -> None:
    drawn = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (60, 32, 32, 3), generator=drawn, dtype=torch.uint8)
    torch.manual_seed(0)
    network = port.Network(10).eval()
    features: list[torch.Tensor] = []
    handle = network.head.register_forward_pre_hook(lambda _, inputs: features.append(inputs[0].mean(0)))
    network(port.normalized(pixels))
    handle.remove()
    weight, mean = network.head.weight.data, features[0]
    weight -= torch.outer(weight @ mean, mean) / mean.square().sum()  # else all images are of one class
    channels_first = pixels.permute(0, 3, 1, 2)
    normalized = torch.nn.Sequential(Normalize(port.MEAN.tolist(), port.STD.tolist()), network)
    with torch.inference_mode():
        plain = normalized(channels_first).argmax(1)
        averaged = ViewsAveraged(normalized, mirror=True)(channels_first).argmax(1)
    labels = torch.where(torch.arange(60) < 20, plain, averaged)
    images = port.Images(pixels[:0], labels[:0], pixels, labels, classes=10)
    assert port.accuracy(network, images, port.PLAIN) == pytest.approx((plain == labels).sum().item() / 60)
    assert port.accuracy(network, images, port.SIX_VIEWS) == pytest.approx((averaged == labels).sum().item() / 60)
    assert (plain != averaged).any()


@pytest.mark.usefixtures("processes_here")
def test_time_to_accuracy_runs_both_sides_in_turns_and_resumes_from_its_record(
    dark_and_bright: Path, run: Run
) -> None:
    stages = "[{filters: 8, kernels: [3, 3]}, {filters: 12, kernels: [3, 3]}]"
    more = f"--set images_seen=360 --batch 36 --set attention_stage=2 --set 'stages={stages}'"
    ours, port = f"--foveate-more={more}", "--airbench-more=--batch 36 --train-limit 72"
    sizes = ("--data", dark_and_bright, "--presets", "minute", "--airbench-epochs", 1, "--skip-keras")
    sizes += ("--threads", 1, "--product-seconds", 0)
    printed, record = run("time_to_accuracy.py", *sizes, ours, port)
    whos = [f"minute {more}", "airbench port, epochs: 1"]
    assert [(row["who"], row["side"]) for row in record] == list(zip(whos, ("ours", "airbench"), strict=True))
    assert record[0]["plain"] > 0.9
    assert record[0]["gate"] is not None
    for row in record:
        assert 0 < row["train_s"] < row["seconds"]
        assert row["matmul_gflop_per_s"]["torch.mm"] > 0
    assert record[0]["train_gflop"] > 0
    assert "train_gflop" not in record[1]
    assert "to 90.0% plain: minute" in printed
    sizes = (*sizes[:4], "--airbench-epochs", *sizes[6:])
    printed, again = run("time_to_accuracy.py", *sizes, ours, "--warm")
    assert again[:2] == record
    assert [row["who"] for row in again[2:]] == [f"{whos[0]}, warm"]
    assert 0 < again[2]["seconds"] < again[2]["first_s"]  # which has the imports
    assert "seed 0" not in printed.replace("warm, seed 0", "")


def test_a_warm_run_of_the_port_is_told_apart_from_the_first_of_its_process(
    dark_and_bright: Path, run: Run, tmp_path: Path
) -> None:
    script = load_script("time_to_accuracy")

    def run_here(file: Path, *words: object) -> tuple[float, str]:
        _, record = run(file.name, *words)
        (tmp_path / "port" / "airbench.json").write_text(json.dumps(record))
        return 1.0, ""

    script.run_python = run_here
    given = {"data": str(dark_and_bright), "data_dir": None, "device": "cpu", "threads": 1}
    arguments = argparse.Namespace(**given, airbench_more="--batch 36 --train-limit 36")
    (tmp_path / "port").mkdir()
    (row,) = script.airbench_warm(arguments, tmp_path / "port", "1", [5])
    assert row["seed"] == 5
    assert row["seconds"] == row["train_s"] + row["plain_s"] + row["six_views_s"]
    assert row["first_s"] > 0


def test_levers_change_the_preset_one_by_one_and_resume_from_their_record(run: Run, tmp_path: Path) -> None:
    preset = {
        "lever": "the preset",
        "seed": 0,
        "settings": ["seed=0"],
        "accuracy": 0.5,
        "loss": 1.5,
        "train_s": 9.0,
    }
    (tmp_path / "record.json").write_text(json.dumps([preset]))
    sizes = ("--data", "digits", "--seeds", 1, "--set", "images_seen=300", "--set", "threads=1")
    printed, record = run("levers.py", *sizes, "--levers", "half batches early")
    assert record[0] == preset
    assert [run["lever"] for run in record[1:]] == ["half batches early"]
    assert 0 <= record[1]["accuracy"] <= 1 < 60 * record[1]["train_s"]
    assert record[1]["settings"] == [
        "images_seen=300",
        "threads=1",
        "batch=0.5",
        "patch=half_batches_early",
        "seed=0",
    ]
    assert "50.00" in printed
    assert "failed" not in printed


def test_each_lever_changes_what_is_trained() -> None:
    levers, losses = load_script("levers"), []
    for settings in ([], ["filters=1.25"], ["patch=easy_skipped"]):
        given = ["attention_stage=1", "images_seen=200", "threads=1", "tta_views=1", *settings]
        losses.append(levers.run_once("minute", "digits", given)["loss"])
    assert len(set(losses)) == 3


def test_photographs_are_written_and_trained_on_at_each_size(shards: Path, run: Run) -> None:
    sizes = ("--images", 40, "--sizes", 16, 64, "--set", "images_seen=40", "--set", "batch=8", "--data", shards)
    printed, record = run("photographs.py", *sizes)
    assert [(row["images"], row["size"]) for row in record] == [(40, 16), (40, 64)]
    assert all(0 <= row["accuracy"] <= 1 for row in record)
    assert printed.count("minute") == 2


def test_uneven_classes_are_trained_on_in_each_way(shards: Path, run: Run) -> None:
    sizes = ("--large", 4, "--times", 2, "--measured", 2, "--seeds", 1, "--data", shards)
    printed, record = run("imbalance.py", *sizes, "--set", "images_seen=40", "--set", "batch=8")
    assert [row["arm"] for row in record] == ["neither", "class_weights=balanced", "sampler=balanced"]
    assert {(row["large"], row["small"]) for row in record} == {(4, 2)}
    assert all(row["balanced"] == pytest.approx((row["of_large"] + row["of_small"]) / 2) for row in record)
    assert printed.count("balanced") == 3


def test_schedules_are_recorded_once_and_every_plan_is_replayed_on_them(run: Run, tmp_path: Path) -> None:
    sizes = ("--data", "digits", "--subset", 150, "--configurations", 4, "--threads", 1, "--lengths", 1, 3)
    sizes = (*sizes, "--set", "size=16", "--set", "passes_per_epoch=1")
    _, curves = run("curves.py", *sizes)
    assert [len(each["rows"]) for each in curves["runs"]] == [3] * 4
    assert [set(each["schedules"]) for each in curves["runs"]] == [{"1", "3"}] * 4
    images = curves["images"]
    assert sum(images[name] for name in ("train", "validation", "rank")) == 150
    for each in curves["runs"]:
        right = bytes.fromhex(each["schedules"]["3"]["right"])
        bits = np.unpackbits(np.frombuffer(right, np.uint8))[: images["validation"]]
        assert bits.mean() == pytest.approx(each["rows"][-1]["val_accuracy"])
    _, again = run("curves.py", *sizes)
    assert again == curves
    recorded = tmp_path / "curves.json"
    (tmp_path / "record.json").rename(recorded)
    _, constant = run("curves.py", *sizes, "--set", "schedule=constant", "--configurations", 1)
    (each,) = constant["runs"]  # trained once: each epoch is the end of a schedule
    bits = np.unpackbits(np.frombuffer(bytes.fromhex(each["schedules"]["1"]["right"]), np.uint8))
    assert bits[: images["validation"]].mean() == pytest.approx(each["rows"][0]["val_accuracy"])
    only = ("--only", "random", "screening 6, anew", "asha", "li2018", "optuna")
    printed, regret = run("regret.py", recorded, "--replays", 4, "--slow-replays", 1, *only)
    assert len(regret["rows"]) == 12
    for row in regret["rows"]:
        assert row["method"] in printed
        assert all(points >= 0 for points in row["regret"])
        assert len(row["regret"]) == len(row["interval"]) == len(row["epochs"])
    _, small = run("small_first.py", recorded, recorded, "--replays", 40)
    assert [row["method"] for row in small["rows"]] == ["random", "screening 6, smaller first"]
    assert all(low <= rho <= high for rho, low, high in small["correlations"].values())


def test_decisions_are_timed_on_a_simulated_cluster(run: Run) -> None:
    printed, record = run("decisions.py", "--trials", 20, "--workers", 4, "--max-epochs", 3, 9)
    assert len(record["rows"]) == 8
    for row in record["rows"]:
        assert 0 < row["mean_ms"] <= row["largest_ms"]
        assert 0 < row["busy"] <= 1
    assert printed.count("asha") == 2


@pytest.mark.usefixtures("processes_here")
def test_a_study_is_timed_from_its_first_job_to_its_last(run: Run) -> None:
    sizes = ("--data", "digits", "--rounds", 1, "--max-epochs", 1, "--subset", 100, "--set", "passes_per_epoch=1")
    printed, record = run("study_workers.py", *sizes, "--ways", "one worker, one thread")
    (study,) = record["runs"]
    assert study["way"] == "one worker, one thread"
    assert 0 < study["seconds"] < study["whole_s"]
    assert study["epochs"] == len(study["table"].splitlines()) - 1
    assert "the same table each time" in printed


def test_verdicts_are_counted_of_arms_that_are_alike_and_of_a_planted_effect(run: Run, tmp_path: Path) -> None:
    sizes = ("--comparisons", 3, "--seeds", 2, "--planted", 2, "--points", 40, "--pilot", 4, "--subset", 60)
    kept = tmp_path / "kept"
    printed, record = run("verdicts.py", *sizes, "--folder", kept, "--workers", 0)
    assert sum(record["alike"].values()) == 3
    assert sum(record["planted"].values()) == 2
    assert record["planted_seeds"] >= 2
    assert "called different" in printed
    trained = 2 * 4 + 2 * max(3 * 2, 2 * record["planted_seeds"])
    (bits,) = tmp_path.glob("*.npz")
    assert np.load(bits)["right"].shape == (trained, math.ceil(record["images"] / 8))
    written = {path: path.stat().st_mtime_ns for path in kept.rglob("validation.json")}
    lost = min(written)
    lost.unlink()
    assert run("verdicts.py", *sizes, "--folder", kept, "--workers", 1)[1] == record
    recorded = ("--bits", bits.rename(tmp_path / "kept.npz"))
    assert run("verdicts.py", *sizes, *recorded)[1] == record  # by the recorded answers alone
    assert {path: path.stat().st_mtime_ns for path in kept.rglob("validation.json") if path != lost} == {
        path: when for path, when in written.items() if path != lost
    }


def test_rates_of_false_verdicts_are_simulated(run: Run) -> None:
    sizes = ("--studies", 4, "--images", 50, 287, "--seeds", 2)
    printed, record = run("verdict_rates.py", *sizes)
    assert len(record["cells"]) == 2 * 2 + 4
    for cell in record["cells"].values():
        assert all(0 <= cell[rule]["called different"] <= 1 for rule in ("seeds", "pairs", "blocks", "dunnett"))
    assert "one arm varies three times as much: 5 arms, 287 images, 2 seeds" in printed


def test_recorded_comparisons_are_judged_by_every_rule(run: Run) -> None:
    records = Path(__file__).parents[2] / "docs" / "records"
    _, record = run("rejudge.py", records / "evidence" / "families", records / "gpu" / "paper-attention")
    kept = json.loads((records / "evidence" / "rejudged.json").read_text())
    for name in ("families", "paper-attention"):
        for split, by_rule in record[name].items():
            assert by_rule["seeds"] == kept[name][split]["seeds"]
    earlier = json.loads((records / "evidence" / "families" / "findings-validation.json").read_text())
    for ours, theirs in zip(record["families"]["validation"]["seeds"], earlier, strict=True):
        assert ours["verdict"]["interval"] == pytest.approx(theirs["verdict"]["interval"])


def test_a_study_beside_kerastuner_trains_both_and_measures_both_winners(run_apart: Run) -> None:
    sizes = ("--data", "digits", "--subset", 100, "--rounds", 1, "--threads", 1, "--max-epochs", 2)
    _, record = run_apart("study_keras_tuner.py", *sizes, "--size", 16, "--anew", 1, "--workers", 0)
    assert [row["who"] for row in record["rows"]] == ["KerasTuner", "ours, its semantics", "ours, in as long"]
    for row in record["rows"]:
        # In the seconds that KerasTuner takes for so little one trial may be all.
        assert row["epochs"] >= row["trials"] >= (1 if row["who"] == "ours, in as long" else 2)
        assert 0 <= row["worth"] <= 1
        assert 0 <= row["retrained"] <= 1


@pytest.mark.parametrize(
    ("part", "count", "more"),
    [
        ("kills", 1, ["--verbs", "train"]),
        ("writes", 1, ["--verbs", "compare"]),
        ("files", 50, ["--verbs", "train", "tune"]),
        ("hostile", 10, []),
        ("images", 2000, []),
        ("studies", 1, ["--workers", "1"]),
    ],
)
def test_a_small_part_of_the_fault_campaign(
    part: str, count: int, more: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Nothing is wrong: `faults.py` ends with exit code 1 where a result differs or more than a line is shown.

    It forks, which this process must not, as it has threads; the one that it is forked from has its imports.
    """
    context = multiprocessing.get_context("forkserver")
    ours = ["foveate.cli", "foveate.workflows.comparison", "foveate.workflows.study"]
    context.set_forkserver_preload(["matplotlib.backends.backend_svg", "sklearn.datasets", *ours])
    words = ["faults.py", part, "--count", str(count), *more, "--json", str(tmp_path / "record.json")]
    monkeypatch.setattr(sys, "argv", words)
    process = context.Process(target=run_script, args=(BENCHMARKS / "faults.py",))
    process.start()
    process.join()
    record = json.loads((tmp_path / "record.json").read_text())
    assert record["wrong"] == []
    assert process.exitcode == 0
    assert record["done"] >= min(count, 5)


class _ParsedError(Exception):
    """Carries what a command line was parsed to."""


def test_gpu_rows_plans_command_lines_that_each_script_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, parse = load_script("gpu_rows"), argparse.ArgumentParser.parse_args
    words = ("--out", "out", "--airbench", "original.py", "--data-dir", "images", "--compare-more=--set epochs=1")
    plan = dict(rows.scripts(rows.options().parse_args(words)))

    def parse_only(parser: argparse.ArgumentParser) -> None:
        raise _ParsedError(parse(parser))

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_only)
    found: dict[str, Any] = {}
    for name in ("short", "long", "throughput", "paper"):
        monkeypatch.setattr(sys, "argv", plan.pop(name))
        with pytest.raises(_ParsedError) as parsed:
            runpy.run_path(sys.argv[0], run_name="__main__")
        found[name] = parsed.value.args[0]
        assert found[name].json == Path(f"out/{name}.json")
        assert found[name].device == "cuda"
    assert found["short"].presets == ["minute", "fast", "strong"]
    assert found["short"].seeds == list(range(20))
    assert found["short"].warm
    assert found["short"].foveate_more == "--set compile=true"
    assert (found["long"].presets, found["long"].seeds) == (["best"], [0, 1, 2])
    assert found["throughput"].presets == ["minute", "fast", "strong", "best"]
    assert found["paper"].seeds == [0, 1, 2]
    assert plan.pop("airbench") == ["original.py"]
    compare = typer.main.get_command(app).commands["compare"]  # type: ignore[attr-defined]
    for name, arms in (("strong-kinds", 1 + len(rows.ATTENTION) - 1), ("paper-attention", 2)):
        given = compare.make_context("compare", plan[name][3:], resilient_parsing=False).params
        assert (given["name"], given["seeds"], len(given["arm"])) == (name, 20, arms)
    assert set(plan) == {"strong-kinds", "paper-attention"}


def test_gpu_rows_keeps_what_a_script_prints_and_stops_where_one_fails(run: Run, tmp_path: Path) -> None:
    original, out = tmp_path / "original.py", tmp_path / "out"
    words = ("--out", out, "--airbench", original, "--short", "--long", "--paper-seeds", "--kinds")
    original.write_text("print('the original was here')\n")
    printed, record = run("gpu_rows.py", *words)
    assert (out / "airbench.txt").read_text() == "the original was here\n"
    assert "the original was here" in printed
    assert record["airbench"] > 0
    original.write_text("raise SystemExit(3)\n")
    with pytest.raises(SystemExit, match="airbench failed with exit code 3"):
        run("gpu_rows.py", *words)


def test_loading_asks_where_cifar10_lies_instead_of_downloading_it(run: Run) -> None:
    with pytest.raises(SystemExit) as ended:
        run("loading.py")
    assert ended.value.code == "name the folder of CIFAR-10's Parquet shards by --data-dir or $FOVEATE_DATA"


def test_every_family_of_augmentation_is_timed_beside_its_peer(run: Run) -> None:
    sizes = ("--preset", "minute", "--batch", 20, "--seconds", 0.01, "--rounds", 1)
    printed, record = run("augmentation.py", *sizes)
    assert {row["family"] for row in record["rows"]} == {*FAMILIES, *MIXES}
    assert all(row["share"] == row["ms"] / row["step_ms"] > 0 for row in record["rows"])
    assert {row["family"] for row in record["rows"] if row["kornia_ms"] is None} == {"gridmask"}
    assert printed.count("%") == len(record["rows"])


def test_near_copies_are_counted_by_what_was_done_to_them(run: Run) -> None:
    printed, record = run("near_copies.py", "--data", "digits", "--images", 20, "--threads", 1)
    assert record["images"] == 20
    assert record["found"]["JPEG, quality 70"] > 0.9
    assert printed.count(" %  ") == len(record["found"])
    assert record["all"] == 1797


def test_hashes_become_groups_in_seconds_of_processor_time(run: Run) -> None:
    printed, record = run("near_copies.py", "--hashes", 2000, "--threads", 1)
    assert len(record["seconds"]) == 3
    assert "2,000 hashes around one centre for every 1,000: 2 groups" in printed


def test_every_run_of_a_comparison_is_measured_under_corruptions_once(run: Run, tmp_path: Path) -> None:
    settings = {"stages": [{"filters": 4, "kernels": [3, 3]}], "attention_stage": 1, "epochs": 1, "size": 16}
    comparison = foveate.compare(
        "digits",
        ["minute,attention=none", "minute,attention=none,augmentations=[erase]"],
        seeds=2,
        workers=0,
        runs=tmp_path / "runs",
        settings={**settings, "passes_per_epoch": 1, "tta_views": 1, "threads": 1},
    )
    printed, record = run("robustness.py", comparison.path, "--images", 40)
    assert [(row["arm"][-7:], row["seed"]) for row in record["runs"]] == [
        (arm, seed) for seed in (0, 1) for arm in ("on=none", "[erase]")
    ]
    assert {len(row["accuracy"]) for row in record["runs"]} == {13}
    assert printed.count(" to ") == 1
    assert run("robustness.py", comparison.path, "--images", 40)[1] == record


def test_figure_41_of_every_run_of_a_comparison(run: Run, tmp_path: Path) -> None:
    arms = ["minute,attention=none", "minute,attention=luong_row"]
    settings = {"stages": [{"filters": 4, "kernels": [3, 3]}], "attention_stage": 1, "epochs": 1, "size": 16}
    comparison = foveate.compare(
        "digits",
        arms,
        seeds=2,
        workers=0,
        final=True,
        runs=tmp_path / "runs",
        settings={**settings, "passes_per_epoch": 1, "threads": 1},
    )
    printed, record = run("paper_table.py", comparison.path)
    done = comparison.experiment
    assert [(row["arm"], row["seed"]) for row in record["runs"]] == [
        (arm, seed) for seed in (0, 1) for arm in arms
    ]
    assert record["split"] == "test"
    for row, each in zip(record["runs"], done.runs, strict=True):
        result = done.result(each)
        assert result is not None
        assert (row["accuracy"], row["loss"]) == pytest.approx((result.accuracy, result.loss))
        assert sum(map(sum, row["confusion_matrix"])) == row["n"] == result.images
        ablated = row.get("attention ablated", {"accuracy": None})
        assert ablated["accuracy"] == result.without_attention
    assert printed.count("[") == 4 * 5


def test_a_server_bears_a_hundredth_of_the_wrong_requests(run_apart: Run, tmp_path: Path) -> None:
    model = exported.write(tmp_path / "model.onnx")
    _, record = run_apart("serving.py", "wrong", "--model", model, "--requests", 600, "--hold", 0.2, "--settle", 1)
    found = record["wrong"]
    assert found["faults"] == []
    assert found["answers"]["right image"].keys() <= {"200", "503"}
    assert found["at_the_end"]["processes"] == found["after_a_tenth"]["processes"] > 1
    assert found["at_the_end"]["files"] <= found["after_a_tenth"]["files"]
    assert len(found["answers"]) > 20


def test_serving_measures_each_part_against_its_peer(run_apart: Run, tmp_path: Path) -> None:
    model = exported.write(tmp_path / "model.onnx")
    sizes = ("--seconds", 0.3, "--rounds", 1, "--decoded", 50, "--connections", 8, "--images", tmp_path)
    Image.new("RGB", (40, 30), (200, 10, 10)).save(tmp_path / "red.jpg")
    printed, record = run_apart("serving.py", "infer", "predict", "overload", "--model", model, *sizes)
    assert record["infer"]["share"] > 0
    assert record["predict"]["share"] > 0
    for kind in ("infer", "predict"):
        assert record["overload"][kind]["answers"]["200"] > 0
        assert record["overload"][kind]["p99_s"] > 0
    assert printed.count("goal ≥ 0.85") == 2
    assert printed.count("goal ≤ 3:") == 2


@pytest.mark.usefixtures("processes_here")
def test_photographs_are_timed_by_number_and_size(run: Run, ants_bees: Path) -> None:
    printed, (row,) = run("my_photographs.py", ants_bees, "--counts", 12, 9000, "--megapixels", 1)
    assert (row["photographs"], row["megapixels"]) == (12, 1.0)  # 9,000 are too many of that size
    assert 0.1 < row["megabytes"] < 1
    assert all(row[name] > 0 for name in ("train_s", "again_s", "predict_s"))
    assert "12, 1" in printed


def test_on_time_tells_the_seconds_of_commands_over_those_that_were_asked_for(run: Run) -> None:
    # A step takes so little that there is time for one on a busy machine too.
    more = "--preset minute-twin --set 'stages=[{filters: 8, kernels: [3, 3]}, {filters: 12, kernels: [3, 3]}]'"
    printed, (row,) = run("on_time.py", "digits", "--times", "9s", "--rounds", 1, f"--more={more}")
    assert (row["data"], row["asked"], row["round"]) == ("digits", 9.0, 1)
    assert 0 < row["told"] < row["process"]
    assert row["images_seen"] > 0
    assert f"digits, 9s, {more}" in printed
    assert "goal within 10%" in printed


def test_the_map_of_context_trains_what_is_missing_and_draws_what_is_there(run: Run, tmp_path: Path) -> None:
    size = ("--images-seen", 250, "--only", "32, 14, 1×1", "--seeds", 1, "--parts", "crossed")
    _, record = run("context_map.py", *size, "--runs", 2)
    assert [each["arm"] for each in record["runs"]] == ["none", "luong_scaled"]
    printed, again = run("context_map.py", *size, "--runs", 2, "--plot", tmp_path / "context.png")
    assert again["runs"][:2] == record["runs"]
    plain, attentive, dilated = again["runs"]
    assert plain["gate"] is None
    assert attentive["gate"] != 0
    assert attentive["flops"] == pytest.approx(dilated["flops"], rel=0.03)
    assert plain["reach"] is None
    assert attentive["reach"] == [32, 32]
    assert plain["convolutions"] == attentive["convolutions"] < dilated["convolutions"]
    assert all(1 <= each["effective"] <= 32 for each in again["runs"])
    assert "32, 14, 1×1, luong_scaled" in printed
    assert (tmp_path / "context.png").read_bytes().startswith(b"\x89PNG")

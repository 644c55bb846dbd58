"""The benchmarks run, at a size of seconds: what they find is for a quiet machine, and not asserted."""

import io
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

pytestmark = pytest.mark.slow

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def run(script: str, *arguments: object, folder: Path) -> tuple[str, dict[str, Any]]:
    """What a benchmark prints, and what it writes."""
    record = folder / "record.json"
    command = [sys.executable, str(BENCHMARKS / script), *map(str, arguments), "--json", str(record)]
    # A user's own cache and data have no part in it.
    environment = {**os.environ, "HOME": str(folder), "TMPDIR": str(folder)}
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout, json.loads(record.read_text())


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


def test_train_step_measures_the_step_the_product_and_the_augmentation(tmp_path: Path) -> None:
    sizes = ("--batch", 2, "--rounds", 1, "--seconds", 0.05, "--threads", 1)
    printed, record = run("train_step.py", "--peer", "none", "--augment", *sizes, folder=tmp_path)
    summary = record["summary"]
    # Figure 3.1 forward and twice that backward; the first convolution has no gradient of its input.
    convolutions = [
        (1024, 27, 64),
        (1024, 576, 64),
        (256, 1600, 256),
        (256, 6400, 256),
        (1, 6400, 512),
        (1, 512, 10),
    ]
    forward = [2 * math.prod(each) for each in convolutions]
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
    assert "goal < 0.10" in printed


def test_loading_times_a_cold_and_a_cached_load_and_the_memory(shards: Path, tmp_path: Path) -> None:
    sizes = ("--rounds", 1, "--steps", 1)
    printed, record = run("loading.py", "--data", shards, *sizes, folder=tmp_path)
    assert record["cold"][0]["images"] == record["cached"][0]["images"] == 100
    assert 0 < record["cached"][0]["load_s"] < 5
    # The paper's model with its gradients and AdamW's two moments is 86 MB in itself.
    assert 0.086 < record["train"]["rss_gb"] < 4
    assert printed.count("goal ≤") == 3


def test_loading_refuses_what_is_no_parquet(tmp_path: Path) -> None:
    command = [sys.executable, str(BENCHMARKS / "loading.py"), "--data", "digits", "--rounds", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "not read from Parquet shards" in done.stderr


def test_large_set_samples_memory_and_removes_what_it_made(tmp_path: Path) -> None:
    folder = tmp_path / "large"
    folder.mkdir()
    sizes = ("--images", 400, "--steps", 8)
    printed, record = run("large_set.py", "--folder", folder, *sizes, folder=tmp_path)
    assert len(record["rss_anon_mb"]) == 8
    assert min(record["rss_anon_mb"]) > 10
    assert "last quarter" in printed
    assert not list(folder.iterdir())


def test_loading_asks_where_cifar10_lies_instead_of_downloading_it() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "FOVEATE_DATA"}
    command = [sys.executable, str(BENCHMARKS / "loading.py")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert done.stderr.strip() == "name the folder of CIFAR-10's Parquet shards by --data-dir or $FOVEATE_DATA"

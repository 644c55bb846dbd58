"""The table of every image that was measured."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from foveate.data.dataset import Dataset
from foveate.errors import CheckpointError
from foveate.training.predictions import Predictions


def test_they_hold_every_image_of_every_split_once(tmp_path: Path, two_classes: Callable[..., Dataset]) -> None:
    predictions = Predictions(tmp_path / "predictions.parquet")
    probabilities = np.array([[0.9, 0.1], [0.2, 0.8], [0.4, 0.6]], np.float32)
    for split in ("validation", "test", "validation"):
        data = two_classes(["1", "2", "3"], [0, 1, 0], ("cat", "a b"), split=split)
        predictions.write(split, data, probabilities)
    data = two_classes(["x", "y", "z"], [0, 1, 0], ("cat", "a b"), groups=("g", "h", "g"), split="all")
    predictions.write("all", data, probabilities)
    table = pq.read_table(predictions.path).to_pydict()
    assert sorted(table["split"]) == ["all"] * 3 + ["test"] * 3 + ["validation"] * 3
    last = {column: values[-1] for column, values in table.items()}
    assert last == {
        "image": "z",
        "split": "all",
        "label": "cat",
        "predicted": "a b",
        "group": "g",
        "p_cat": pytest.approx(0.4),
        "p_a b": pytest.approx(0.6),
    }
    assert predictions.ids() == {"validation": ["1", "2", "3"], "test": ["1", "2", "3"], "all": ["x", "y", "z"]}
    assert np.array_equal(predictions.probabilities("test", ("cat", "a b")), probabilities)


def test_more_rows_than_the_file_can_hold_are_refused(tmp_path: Path, two_classes: Callable[..., Dataset]) -> None:
    predictions = Predictions(tmp_path / "predictions.parquet")
    predictions.write("validation", two_classes(["1"], [0]), np.array([[0.9, 0.1]], np.float32))
    claimed = pq.read_schema(predictions.path)
    rows = 5_000_000
    same = {
        field.name: pa.array(
            ["validation"] * rows if pa.types.is_string(field.type) else np.zeros(rows, np.float32)
        )
        for field in claimed
    }
    pq.write_table(pa.table(same), predictions.path, compression="zstd")
    with pytest.raises(CheckpointError, match="claims 5,000,000 rows"):
        predictions.ids()


def test_what_is_used_of_pyarrow_is_imported_here() -> None:
    """Where pandas is installed it imports more of pyarrow, and hides that a plain installation lacks it."""
    code = "import sys; sys.modules['pandas'] = None; import foveate.training.predictions as p; "
    subprocess.run([sys.executable, "-c", code + "p.pc.equal; p.pq.ParquetFile"], check=True)


def test_a_folder_that_is_named_as_the_home_folder_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, two_classes: Callable[..., Dataset]
) -> None:
    (tmp_path / "~").mkdir()
    monkeypatch.chdir(tmp_path)
    data = two_classes(["1", "2"], [0, 1], ("cat", "dog"), split="validation")
    Predictions(Path("~/predictions.parquet")).write("validation", data, np.eye(2, dtype=np.float32))
    assert Predictions(tmp_path / "~/predictions.parquet").ids() == {"validation": ["1", "2"]}

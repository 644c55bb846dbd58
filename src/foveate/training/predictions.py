"""`predictions.parquet` of a run: the label, the prediction and the probabilities of every image measured."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from foveate.data.dataset import Dataset
from foveate.errors import CheckpointError, one_line
from foveate.files import open_regular, replacing

_FIX = "remove it, and measure again by `foveate evaluate RUN`"
_ROWS_PER_BYTE = 4
"""At most: a row has the id of its image and a number for each class."""


@dataclass(frozen=True)
class Predictions:
    """The file at `path`; an image of each split that was measured is a row."""

    path: Path

    def write(self, split: str, dataset: Dataset, probabilities: NDArray[np.float32]) -> None:
        """Put every image of a split of `dataset` into the table, in place of what it has of that split.

        Args:
            probabilities: [N, K] of the split's images, in order.
        """
        indices, names = dataset.splits[split], np.asarray(dataset.class_names, dtype=object)
        groups = [dataset.groups[index] for index in indices] if dataset.groups else [None] * len(indices)
        columns: dict[str, Any] = {
            "image": pa.array([dataset.ids[index] for index in indices], pa.string()),
            "split": pa.array([split] * len(indices), pa.string()),
            "label": pa.array(names[dataset.labels[indices]], pa.string()),
            "predicted": pa.array(names[probabilities.argmax(1)], pa.string()),
            "group": pa.array(groups, pa.string()),
        }
        columns |= {f"p_{name}": pa.array(probabilities[:, k], pa.float32()) for k, name in enumerate(names)}
        table = pa.table(columns)
        if self.path.exists():
            known = self._read(table.schema)
            table = pa.concat_tables([known.filter(pc.not_equal(known["split"], split)), table])
        # Opened here: pyarrow would take a folder named `~` for the home folder.
        with replacing(self.path) as temporary, temporary.open("wb") as file:
            pq.write_table(table, file, compression="zstd")

    def probabilities(self, split: str, class_names: Sequence[str]) -> NDArray[np.float32]:
        """What `write` wrote of a split: [N, K], in its order.

        Raises:
            CheckpointError: when the file is damaged.
        """
        schema = pa.schema([("split", pa.string()), *((f"p_{name}", pa.float32()) for name in class_names)])
        table = self._read(schema)
        table = table.filter(pc.equal(table["split"], split))
        return np.stack([table[f"p_{name}"].to_numpy() for name in class_names], axis=1)

    def ids(self) -> dict[str, list[str]]:
        """The ids of the images that were measured, by split, in order; empty where nothing was measured.

        Raises:
            CheckpointError: when the file is damaged.
        """
        ids: dict[str, list[str]] = {}
        if self.path.exists():
            table = self._read(pa.schema([("split", pa.string()), ("image", pa.string())]))
            for split, image in zip(table["split"].to_pylist(), table["image"].to_pylist(), strict=True):
                ids.setdefault(split, []).append(image)
        return ids

    def _read(self, schema: pa.Schema) -> pa.Table:
        """The columns of `schema`; CheckpointError when the file does not have them."""
        try:
            with open_regular(self.path) as opened, pq.ParquetFile(opened) as file:
                found, size = list(file.schema_arrow), os.fstat(opened.fileno()).st_size
                # Checked before the rows are read: a few bytes can claim any number of rows.
                problems = [f"it has no column {field.name} as written" for field in schema if field not in found]
                if (rows := file.metadata.num_rows) > _ROWS_PER_BYTE * size:
                    problems.append(f"it claims {rows:,} rows in {size:,} bytes")
                table = file.read(columns=schema.names, use_threads=False) if not problems else pa.table({})
        except (pa.ArrowException, OSError, ValueError) as error:
            problems = [one_line(error)]
        if problems:
            raise CheckpointError(f"{self.path} is damaged ({problems[0]}): {_FIX}")
        return table.select(schema.names)

"""Predictions as tables: columns that any program reads, in CSV, JSON and Parquet."""

import csv
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TextIO

import numpy as np

from foveate.inference.predictor import Prediction
from foveate.records import printable

UNSURE = "unsure"
"""Stands in place of a label whose probability is too small."""
_FORMULA = re.compile(r"[=@\t\r]|[+-](?![\d.,]*$)")
"""How a cell begins that a spreadsheet would run as a formula; a number with a sign is not one."""

Row = Mapping[str, Any]


def id_of(path: str) -> str:
    """A path as tables hold it: as it is, so that no two files are one, but for bytes that are not UTF-8."""
    return path.encode(errors="backslashreplace").decode()


@dataclass(frozen=True)
class Columns:
    """The columns: what a table says of each image.

    Args:
        class_names: of the model.
        top: how many classes are given with their probabilities.
        every: all classes are given with their probabilities.
        min_probability: below it a label becomes `unsure`.
        sets: whether prediction sets were asked for.
    """

    class_names: tuple[str, ...]
    top: int = 1
    every: bool = False
    min_probability: float = 0.0
    sets: bool = False

    @property
    def names(self) -> list[str]:
        """The columns, in order; those of single classes aside."""
        return [
            "id",
            "label",
            "probability",
            *(["likeliest"] if self.min_probability else []),
            *(f"{what}_{place}" for place in range(2, self.top + 1) for what in ("label", "probability")),
            *(["set"] if self.sets else []),
            "unlike",
            "reason",
        ]

    def label(self, prediction: Prediction) -> str | None:
        """The label, or `unsure`."""
        unsure = prediction.probability is not None and prediction.probability < self.min_probability
        return UNSURE if unsure else prediction.label

    def row(self, prediction: Prediction) -> dict[str, Any]:
        """The row of one image; `probabilities` [K] where every class is asked for and the image can be read."""
        row: dict[str, Any] = dict.fromkeys(self.names)
        row |= {"id": id_of(prediction.id), "label": self.label(prediction), "reason": prediction.reason}
        if self.every:
            row["probabilities"] = None
        if prediction.probabilities is None:
            return row
        row |= {"probability": prediction.probability, "unlike": prediction.unlike}
        if self.min_probability:
            row["likeliest"] = prediction.label
        order = np.argsort(-prediction.probabilities, kind="stable")[1 : self.top]
        for place, index in enumerate(order.tolist(), start=2):
            row[f"label_{place}"] = self.class_names[index]
            row[f"probability_{place}"] = float(prediction.probabilities[index])
        if self.sets:
            row["set"] = list(prediction.set or ())
        if self.every:
            row["probabilities"] = prediction.probabilities.tolist()
        return row


def write_csv(file: TextIO, columns: Columns, rows: Iterable[Row]) -> None:
    """One line an image; a set is a JSON list; with all classes each has a column by its name.

    Text that a spreadsheet would run as a formula gets an apostrophe before it, as spreadsheets themselves do.
    """
    writer = csv.writer(file, lineterminator="\n")
    classes = [f"probability of {name}" for name in columns.class_names] if columns.every else []
    writer.writerow([*columns.names, *map(_cell, classes)])
    for row in rows:
        of_classes = (row["probabilities"] or [None] * len(classes)) if columns.every else []
        writer.writerow([_cell(value) for value in (*(row[name] for name in columns.names), *of_classes)])


def write_json_rows(file: TextIO, columns: Columns, rows: Iterable[Row]) -> None:
    """A list with one object an image on each line; probabilities of all classes by their names."""
    before = "[\n"
    for row in rows:
        plain: dict[str, Any] = dict(row)
        if plain.get("probabilities") is not None:
            plain["probabilities"] = dict(zip(columns.class_names, plain["probabilities"], strict=True))
        file.write(before + json.dumps(plain, ensure_ascii=False))
        before = ",\n"
    file.write("[]\n" if before == "[\n" else "\n]\n")


def write_text(file: TextIO, columns: Columns, rows: Iterable[Row]) -> None:
    """One line an image, to be read by a person: probability, label, what else was asked for, and its name."""
    unsure = len("unsure: ") if columns.min_probability else 0
    width = min(30, unsure + max(map(len, columns.class_names)))
    for row in rows:
        if row["label"] is None:
            file.write(f"{'-':>7}  {'unreadable':{width}}  {printable(row['id'])}: {row['reason']}\n")
            continue
        others = "".join(
            f"  {probability:7.2%} {shortened(name, width)}" for name, probability in _others(columns, row)
        )
        if columns.sets:
            others += f"  {{{', '.join(row['set'])}}}"
        label = (
            row["label"] if row["label"] == row.get("likeliest", row["label"]) else f"unsure: {row['likeliest']}"
        )
        marked = "  (unlike the training images)" if row["unlike"] else ""
        name = printable(row["id"])
        file.write(f"{row['probability']:7.2%}  {shortened(label, width):{width}}{others}  {name}{marked}\n")


def _others(columns: Columns, row: Row) -> Iterator[tuple[str, float]]:
    """The classes beside the likeliest that were asked for, and their probabilities, the largest first."""
    if columns.every:
        for index in np.argsort(-np.asarray(row["probabilities"]), kind="stable")[1:].tolist():
            yield columns.class_names[index], row["probabilities"][index]
        return
    for place in range(2, columns.top + 1):
        if row[f"label_{place}"] is not None:
            yield row[f"label_{place}"], row[f"probability_{place}"]


def shortened(text: str, width: int) -> str:
    """`text`, cut off where it is longer than `width` characters."""
    return text if len(text) <= width else f"{text[: width - 1]}…"


WRITERS: Mapping[str, Callable[[TextIO, Columns, Iterable[Row]], None]] = {
    "csv": write_csv,
    "json": write_json_rows,
    "text": write_text,
}
"""By the format's name, `text` for the screen; Parquet is written by `pyarrow`."""


def _cell(value: Any) -> Any:
    if isinstance(value, Sequence) and not isinstance(value, str):
        value = json.dumps(value, ensure_ascii=False)
    if isinstance(value, str):
        value = printable(value)  # a terminal or a spreadsheet may act on control characters
    if isinstance(value, str) and _FORMULA.match(value):
        return f"'{value}"
    return {True: "true", False: "false"}.get(value, value) if isinstance(value, bool) else value

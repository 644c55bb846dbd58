"""What a comparison leaves in its folder: the runs as a table and as bits, its findings, its page."""

import io
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from foveate.comparison.outcomes import Outcome
from foveate.files import write_atomically, write_csv, write_json
from foveate.records import read_record
from foveate.report.comparison_page import comparison_page
from foveate.report.html import write_page
from foveate.training.record import TestOpening
from foveate.workflows.campaign import read_environment

OPENINGS = "test_openings.json"


def write_results(outcome: Outcome, *, has_test: bool) -> None:
    """Write what there is to say of the split that the experiment is measured on.

    Args:
        has_test: whether the data has a test split.

    Raises:
        OutputError: when a file cannot be written.
    """
    experiment, config, failures = outcome.experiment, outcome.config, outcome.failures
    folder, split = experiment.folder, experiment.split
    arms = config.arms
    columns = ("accuracy", "loss", "without_attention", "gate", "train_s", "images_shown")
    rows: list[list[Any]] = [["arm", "seed", "training_images", *columns, "failed"]]
    for run in experiment.runs:
        measured = [getattr(experiment.result(run), column, None) for column in columns]
        rows.append([arms[run.arm].name, run.seed, config.subsets[run.subset], *measured, failures.get(run)])
    done = [run for run in experiment.runs if experiment.result(run) is not None]
    bits = io.BytesIO()
    np.savez(
        bits,
        runs=np.array(done, np.int64).reshape(-1, 3),  # places of subset, seed, place of arm
        right=np.packbits(experiment.right(done), axis=1),
    )
    write_atomically(folder / f"right-{split}.npz", bits.getvalue())
    write_json(folder / f"findings-{split}.json", [asdict(each) for each in outcome.findings])
    write_csv(folder / f"results-{split}.csv", rows)
    write_comparison_page(outcome, has_test=has_test)


def write_comparison_page(outcome: Outcome, *, has_test: bool) -> None:
    """Write the page alone; as `write_results`."""
    folder = outcome.experiment.folder
    page = comparison_page(
        title=folder.name,
        split=outcome.experiment.split,
        config=outcome.config,
        summaries=outcome.summaries,
        pairs=outcome.findings,
        failures=outcome.failures,
        environment=read_environment(folder),
        opening=f"foveate compare --resume {shlex.quote(str(folder))} --final" if has_test else None,
        openings=[(each.time, each.command) for each in _test_openings(folder / OPENINGS)],
    )
    write_page(page, folder / "compare.html")


def record_test_opening(path: Path, command: str) -> None:
    """Record that the test split is about to be opened: before it is, so that a kill hides nothing.

    Raises:
        CheckpointError: when the record of earlier ones is damaged.
    """
    write_json(path, [each.model_dump() for each in (*_test_openings(path), TestOpening.now(command))])


def _test_openings(path: Path) -> tuple[TestOpening, ...]:
    if not path.exists():
        return ()
    return read_record(path, tuple[TestOpening, ...], fix="restore it from a copy")

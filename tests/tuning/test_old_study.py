"""A study that version 0.1 of November 2026 wrote, whole, as docs/records keeps it."""

import csv
import shutil
from pathlib import Path

import pytest

from foveate.tuning.journal import Journal
from foveate.tuning.search import Search
from foveate.workflows.study_files import Study

RECORD = Path(__file__).parents[2] / "docs" / "records" / "study"


@pytest.mark.parametrize("kept", [None, 20])
def test_it_loads_as_far_as_it_was_and_is_asked_for_the_same_trials(tmp_path: Path, kept: int | None) -> None:
    folder = Path(shutil.copytree(RECORD, tmp_path / "study"))
    lines = (folder / "journal.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "journal.jsonl").write_bytes(b"".join(lines[:kept]))
    study = Study(folder)
    assert list(study.config.space.hyperparameters)[:2] == ["lr", "weight_decay"]
    journal = Journal.open(folder / "journal.jsonl", study.digest, study.former_digest)
    search = Search(study.config, folder, journal, lambda *_: pytest.fail("nothing new is drawn"))
    assert journal.damaged is None
    with (RECORD / "tune_results.csv").open() as file:
        rows = {int(row["trial"]): row for row in csv.DictReader(file)}
    if kept is None:
        assert search.next_job() is None
        assert {number: (trial.score, trial.state) for number, trial in search.trials.items()} == {
            number: (float(row["score"]), row["state"].replace("out", "pruned")) for number, row in rows.items()
        }
        assert search.best is not None
        assert f"trial {search.best.number} of " in study.best.read_text()
    else:
        assert {trial.settings["lr"] for trial in search.trials.values()} <= {
            float(row["lr"]) for row in rows.values()
        }
        assert 0 < len(search.trials) < len(rows)

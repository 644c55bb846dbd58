"""A comparison under way: its order, what it outlives, and what it makes of its runs; nothing is trained here."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from foveate.comparison.arms import parse_arm
from foveate.comparison.experiment import ArmRun, Experiment
from foveate.comparison.findings import Pair, pair_findings, pairs_of
from foveate.comparison.outcomes import arm_summaries
from foveate.comparison.settings import ComparisonConfig
from foveate.comparison.statistics import compare
from foveate.comparison.training import pack
from foveate.errors import CheckpointError, OutputError
from foveate.execution.campaign import run_campaign
from foveate.execution.pool import Event, Message
from foveate.execution.supervision import MAX_WORKER_LOSSES

IMAGES = 400


class SimulatedPool:
    """Writes at once what a run would have measured, or fails as it is told to."""

    queues = False

    def __init__(self, workers: int = 1, fate: Callable[[Message], Event | None] = lambda _: None) -> None:
        self.workers, self._fate = workers, fate
        self._events: list[Event] = []
        self.submitted: list[Message] = []

    def submit(self, job: int, message: Message) -> None:
        self.submitted.append(message)
        fate = self._fate(message)
        if fate is not None:
            self._events.append(Event(job, fate.kind, fate.value))
            return
        folder, seed = Path(message["folder"]), message["config"]["train"]["seed"]
        rate = 0.8 if message["config"]["model"]["attention"] == "none" else 0.9
        right = np.random.default_rng([seed, int(100 * rate), message["split"] == "test"]).random(IMAGES) < rate
        result = {
            "accuracy": right.mean(), "loss": 0.5, "without_attention": None, "gate": None, "images": IMAGES,
            "right": pack(right), "train_s": 2.0, "images_shown": 1000,
        }  # fmt: skip
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{message['split']}.json").write_text(json.dumps(result))
        self._events += [
            Event(job, "progress", {}),
            Event(job, "progress", {"epoch": 1}),
            Event(job, "done", result),
        ]

    def event(self, timeout_s: float) -> Event | None:
        return self._events.pop(0) if self._events else None

    def stop(self, job: int) -> None: ...

    def waited_s(self, job: int) -> Mapping[int, float]:
        return {}

    def close(self) -> None: ...


@pytest.fixture
def experiment(tmp_path: Path) -> Callable[..., Experiment]:
    def make(*texts: str, **more: Any) -> Experiment:
        arms = [parse_arm(text, {"size": 16}) for text in texts or ("minute,attention=none", "minute")]
        values: dict[str, Any] = {
            "data": "digits", "data_dir": None, "fingerprint": "", "num_classes": 10, "arms": arms, "seeds": 3,
        }  # fmt: skip
        return Experiment(ComparisonConfig.model_validate({**values, **more}), tmp_path)

    return make


def finish(experiment: Experiment, pool: SimulatedPool) -> list[Event]:
    return [event for event in run_campaign(experiment, pool) if event is not None]


def on_test(experiment: Experiment) -> Experiment:
    return Experiment(experiment.config, experiment.folder, "test")


def failed(kind: str, message: str) -> Event:
    return Event(0, "failed", {"kind": kind, "message": message, "where": "loop.py:1"})


def test_all_arms_of_a_seed_are_trained_side_by_side(experiment: Callable[..., Experiment]) -> None:
    finish(experiment(subsets=(100, None)), pool := SimulatedPool())
    told = [
        (each["config"]["train"]["seed"], each["subset"], Path(each["folder"]).parent.name)
        for each in pool.submitted
    ]
    assert told == [
        (seed, subset, arm) for seed in range(3) for subset in (100, None) for arm in ("arm-00", "arm-01")
    ]


def test_every_arm_meets_the_reference_and_its_own_controls(experiment: Callable[..., Experiment]) -> None:
    made = experiment("minute,attention=none", "minute", "minute,attention=cbam")
    control = made.config.arms[0].model_copy(
        update={"name": "wide", "matched": {"minute,attention=cbam": "FLOPs"}}
    )
    made = Experiment(made.config.model_copy(update={"arms": (*made.config.arms, control)}), made.folder)
    assert pairs_of(made.config) == [Pair(1, 0), Pair(2, 0), Pair(2, 3)]


def test_findings_are_the_statistics_of_the_bits(experiment: Callable[..., Experiment]) -> None:
    made = experiment()
    finish(made, SimulatedPool(2))
    (finding,) = pair_findings(made)
    sides = [[ArmRun(0, seed, arm) for seed in range(3)] for arm in (1, 0)]
    assert finding.difference == compare(*(made.right(side) for side in sides))
    assert finding.difference is not None
    assert finding.verdict is not None
    assert finding.verdict.answer == "helps"
    assert finding.verdict.level == pytest.approx(0.95)
    summary = arm_summaries(made)[1]
    assert summary.ms_per_image == pytest.approx(2.0)
    assert np.mean(summary.accuracies) == pytest.approx(0.9, abs=0.05)


def test_more_pairs_and_sizes_have_wider_intervals(experiment: Callable[..., Experiment]) -> None:
    made = experiment("minute,attention=none", "minute", "minute,attention=cbam", subsets=(100, None))
    finish(made, SimulatedPool())
    assert {finding.verdict.level for finding in pair_findings(made) if finding.verdict} == {1 - 0.05 / 4}


def test_all_arms_share_a_spread_by_the_rules_of_today(experiment: Callable[..., Experiment]) -> None:
    texts = ("minute,attention=none", "minute", "minute,attention=cbam")
    made = experiment(*texts, rule="blocks")
    finish(made, SimulatedPool())
    findings = pair_findings(made)
    spreads = {finding.spread for finding in findings}
    assert {spread.freedom for spread in spreads if spread} == {4}
    assert len(spreads) == 1
    assert {finding.verdict.level for finding in findings if finding.verdict} == {0.95}
    alone = pair_findings(experiment(*texts, rule="pairs"))
    assert {finding.spread.freedom for finding in alone if finding.spread} == {2}
    assert all(finding.plan is not None for finding in findings)


def test_a_file_without_a_rule_is_judged_by_that_of_earlier_versions(
    experiment: Callable[..., Experiment],
) -> None:
    values = experiment(rule="blocks").config.model_dump(mode="json")
    del values["rule"]
    assert ComparisonConfig.model_validate(values).rule == "seeds"
    finish(made := experiment(), SimulatedPool())
    (finding,) = pair_findings(made)
    assert finding.verdict is not None
    assert finding.verdict.judging == finding.verdict.interval


def test_an_arm_has_seeds_of_its_own_and_is_paired_by_place(experiment: Callable[..., Experiment]) -> None:
    made = experiment("minute,attention=none", "minute,attention=none,seeds=100+", rule="blocks")
    finish(made, pool := SimulatedPool())
    told = [(each["config"]["train"]["seed"], Path(each["folder"]).parent.name) for each in pool.submitted]
    assert told == [(seed + 100 * arm, f"arm-0{arm}") for seed in range(3) for arm in range(2)]
    (finding,) = pair_findings(made)
    assert (finding.seeds, finding.other_seeds) == ((100, 101, 102), (0, 1, 2))
    sides = [[ArmRun(0, seed + first, arm) for seed in range(3)] for first, arm in ((100, 1), (0, 0))]
    assert finding.difference == compare(*(made.right(side) for side in sides))
    assert finding.next_seed is None
    finish(
        experiment("minute,attention=none", "minute,attention=none,seeds=100+", rule="blocks"),
        again := SimulatedPool(),
    )
    assert again.submitted == []


def test_what_is_done_is_not_done_again(experiment: Callable[..., Experiment]) -> None:
    stopped = experiment()
    for event in run_campaign(stopped, SimulatedPool()):
        if event is not None and event.kind == "done" and stopped.runs[event.job] == ArmRun(0, 1, 0):
            break
    finish(experiment(), pool := SimulatedPool())
    assert [each["config"]["train"]["seed"] for each in pool.submitted] == [1, 2, 2]
    assert experiment().pending() == []
    assert len(on_test(experiment()).pending()) == 6


def test_of_what_is_all_done_nothing_is_said_to_be_opened(experiment: Callable[..., Experiment]) -> None:
    made = experiment()
    assert made.announcement(1)[0].startswith("training 2 arms × 3 seeds, 6 runs")
    finish(made, SimulatedPool())
    finish(on_test(made), SimulatedPool())
    assert on_test(experiment()).announcement(1) == [
        "nothing is left to do: 6 of 6 runs are measured on the test images"
    ]


def test_what_was_not_trained_is_not_opened_for_the_test(experiment: Callable[..., Experiment]) -> None:
    made = experiment()
    second = failed("TrainingError", "no")
    finish(made, SimulatedPool(fate=lambda message: second if message["config"]["train"]["seed"] == 1 else None))
    assert [run.seed for run in on_test(made).pending()] == [0, 0, 2, 2]


def test_a_word_that_comes_after_the_end_is_passed_over(experiment: Callable[..., Experiment]) -> None:
    class Late(SimulatedPool):
        def event(self, timeout_s: float) -> Event | None:
            event = super().event(timeout_s)
            if event is not None and event.kind == "done":
                self._events.insert(0, Event(event.job, "progress", {"epoch": 9}))
            return event

    made, pool = experiment(), Late()
    finish(made, pool)
    finish(on_test(made), pool)
    assert len(pair_findings(on_test(made))) == 1


def test_kept_groups_are_counted_on_their_split(experiment: Callable[..., Experiment]) -> None:
    made = experiment()
    assert made.groups is None  # nothing is measured yet
    np.save(made.folder / "groups-test.npy", np.arange(IMAGES) // 20)
    made = experiment()
    finish(made, SimulatedPool())
    finish(test := on_test(made), SimulatedPool())
    counted = [pair_findings(each)[0].difference for each in (made, test)]
    assert [each and each.groups for each in counted] == [None, 20]


def test_groups_of_other_images_are_named(experiment: Callable[..., Experiment]) -> None:
    made = experiment()
    finish(made, SimulatedPool())
    np.save(made.folder / "groups-validation.npy", np.zeros(8, np.int64))
    with pytest.raises(
        CheckpointError, match=r"groups-validation\.npy does not fit results on 400 images: remove it"
    ):
        pair_findings(experiment())


def test_a_run_that_fails_is_told_and_the_rest_goes_on(experiment: Callable[..., Experiment]) -> None:
    made = experiment()

    def fate(message: Message) -> Event | None:
        second = (message["config"]["train"]["seed"], message["config"]["model"]["attention"]) == (1, "none")
        return failed("TrainingError", "the loss became nan") if second else None

    events = finish(made, SimulatedPool(fate=fate))
    assert [made.runs[event.job] for event in events if event.kind == "failed"] == [ArmRun(0, 1, 0)]
    told = {ArmRun(0, 1, 0): "TrainingError: the loss became nan (loop.py:1)"}
    assert made.failures() == told
    again = experiment()
    assert finish(again, pool := SimulatedPool()) == []  # it would fail again
    assert pool.submitted == []
    finish(test := on_test(again), SimulatedPool())
    assert test.failures() == told
    (finding,) = pair_findings(made)
    assert finding.seeds == (0, 2)


def test_a_run_that_ran_out_of_memory_is_tried_again(experiment: Callable[..., Experiment]) -> None:
    made = experiment(seeds=1)
    full = failed("OutOfMemoryError", "out of memory in a step")
    finish(made, SimulatedPool(fate=lambda message: full if message["config"]["train"]["seed"] == 0 else None))
    assert len(made.failures()) == len(made.runs)
    finish(again := experiment(seeds=1), SimulatedPool())
    assert again.failures() == {}


def test_a_lost_run_begins_again_but_not_for_ever(experiment: Callable[..., Experiment]) -> None:
    made = experiment(seeds=1)
    lost = Event(0, "lost", {"message": "killed by signal 9"})
    events = finish(made, pool := SimulatedPool(fate=lambda _: lost))
    assert len(pool.submitted) == 2 * MAX_WORKER_LOSSES
    assert sum(event.kind == "lost" for event in events) == 2 * (MAX_WORKER_LOSSES - 1)
    assert set(made.failures().values()) == {"its worker was lost each time that it was tried: killed by signal 9"}
    (finding,) = pair_findings(made)
    assert (finding.seeds, finding.difference, finding.verdict) == ((), None, None)
    assert arm_summaries(made)[0].ms_per_image is None
    finish(experiment(seeds=1), SimulatedPool())  # what killed it may not come again
    assert experiment(seeds=1).failures() == {}


def test_a_full_disk_stops_all(experiment: Callable[..., Experiment]) -> None:
    with pytest.raises(OutputError, match="the disk is full"):
        finish(experiment(), SimulatedPool(fate=lambda _: failed("OutputError", "the disk is full")))


def test_of_one_seed_there_is_no_interval(experiment: Callable[..., Experiment]) -> None:
    made = experiment(seeds=1)
    finish(made, SimulatedPool())
    (finding,) = pair_findings(made)
    assert finding.verdict is not None
    assert (finding.verdict.answer, finding.verdict.interval) == ("inconclusive", None)


@pytest.mark.parametrize("text", ["{", "{}", "[]"])
def test_a_damaged_result_is_named(experiment: Callable[..., Experiment], text: str) -> None:
    made = experiment()
    finish(made, SimulatedPool())
    (made.place(ArmRun(0, 0, 0)) / "validation.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"validation\.json is damaged \(.*\): remove it"):
        pair_findings(experiment())


@pytest.mark.parametrize("text", ["{", "{}", "[]"])
def test_a_damaged_failure_is_named(experiment: Callable[..., Experiment], text: str) -> None:
    place = experiment().place(ArmRun(0, 0, 0))
    place.mkdir(parents=True)
    (place / "failed.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"failed\.json is damaged \(.*\): remove it"):
        experiment().pending()


BITS = pack(np.array([True, False] * 8))
RESULT = {
    "accuracy": 0.5, "loss": 0.5, "without_attention": None, "gate": None, "images": 16, "right": BITS,
    "train_s": 2.0, "images_shown": 1000,
}  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"accuracy": 1.5}, "accuracy"),
        ({"accuracy": 0.75}, "accuracy=0.75 is not that of the bits"),
        ({"accuracy": "0.5"}, "accuracy"),
        ({"accuracy": None}, "accuracy"),
        ({"loss": -1.0}, "loss"),
        ({"without_attention": 2}, "without_attention"),
        ({"gate": "x"}, "gate"),
        ({"images": 0}, "images"),
        ({"images": 15}, ""),
        ({"images": 24}, "do not fit images=24"),
        ({"images": 10**15}, "do not fit images"),
        ({"images": 16.5}, "images"),
        ({"right": ""}, "do not fit images=16"),
        ({"right": "!!!!"}, "base64"),
        ({"right": 5}, "right"),
        ({"right": BITS + BITS}, ""),
        ({"train_s": -1.0}, "train_s"),
        ({"images_shown": True}, "images_shown"),
        ({"more": 1}, "more"),
    ],
)
def test_a_result_of_nonsense_is_named_with_its_field(
    experiment: Callable[..., Experiment], changed: dict[str, Any], told: str
) -> None:
    place = experiment().place(ArmRun(0, 0, 0))
    place.mkdir(parents=True)
    (place / "validation.json").write_text(json.dumps(RESULT))
    assert experiment().result(ArmRun(0, 0, 0)) is not None
    (place / "validation.json").write_text(json.dumps(RESULT | changed))
    with pytest.raises(CheckpointError, match=rf"validation\.json is damaged \(.*{told}.*\): remove it") as raised:
        experiment().result(ArmRun(0, 0, 0))
    assert "\n" not in str(raised.value)


def test_results_on_different_numbers_of_images_are_named(experiment: Callable[..., Experiment]) -> None:
    made = experiment()
    finish(made, SimulatedPool())
    (made.place(ArmRun(0, 1, 1)) / "validation.json").write_text(json.dumps(RESULT))
    with pytest.raises(CheckpointError, match=r"tells of 16 images and .* of 400: remove the wrong one"):
        pair_findings(experiment())


def test_nothing_is_written_through_a_link(experiment: Callable[..., Experiment], tmp_path: Path) -> None:
    made = experiment()
    (tmp_path / "outside").mkdir()
    (tmp_path / "runs").symlink_to(tmp_path / "outside")
    with pytest.raises(CheckpointError, match=r"/runs is a link, which may lead out of"):
        finish(made, SimulatedPool())
    assert list((tmp_path / "outside").iterdir()) == []


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"seeds": 10_000, "subsets": (*range(1, 11),)}, "200,000 runs: 100,000 are the most"),
        ({"seeds": 10**9}, "seeds"),
        ({"seeds": 0}, "seeds"),
        ({"first_seed": 2**63}, "first_seed"),
        ({"subsets": (5, 5)}, "distinct"),
        ({"subsets": (10**30,)}, "subsets"),
        ({"subsets": ()}, "subsets"),
        ({"alpha": 1e-300}, "alpha"),
        ({"alpha": float("nan")}, "alpha"),
        ({"delta": 0}, "delta"),
        ({"num_classes": 10**9}, "num_classes"),
        ({"num_classes": -1}, "num_classes"),
        ({"hang_limit_s": float("inf")}, "hang_limit_s"),
    ],
)
def test_settings_out_of_range_are_refused(
    experiment: Callable[..., Experiment], changed: dict[str, Any], told: str
) -> None:
    with pytest.raises(ValueError, match=told):
        experiment(**changed)


@pytest.mark.parametrize(
    ("place", "changed", "told"),
    [
        (1, {"name": "minute,attention=none"}, "must be distinct"),
        (1, {"name": "a\x1b[2J"}, "printable"),
        (1, {"name": ""}, "name"),
        (1, {"matched": {"nobody": "FLOPs"}}, "matched to other arms by name"),
        (0, {"matched": {"minute": "FLOPs"}}, "the first is the reference"),
        (0, {"config": {"data": {"size": None}}}, "with a size"),
        (1, {"config": {"data": {"size": 32}}}, "the same `data`"),
    ],
)
def test_arms_that_do_not_fit_are_refused(
    experiment: Callable[..., Experiment], place: int, changed: dict[str, Any], told: str
) -> None:
    values = experiment().config.model_dump(mode="json")
    if "config" in changed:
        values["arms"][place]["config"]["data"] |= changed["config"]["data"]
    else:
        values["arms"][place] |= changed
    with pytest.raises(ValueError, match=told):
        ComparisonConfig.model_validate(values)


def test_settings_survive_their_file(experiment: Callable[..., Experiment]) -> None:
    config: Mapping[str, Any] = experiment(subsets=(100, None)).config.model_dump(mode="json")
    assert (
        ComparisonConfig.model_validate(json.loads(json.dumps(config))) == experiment(subsets=(100, None)).config
    )

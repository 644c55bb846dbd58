"""Studies: who runs them and what is killed changes nothing in their tables."""

import itertools
import json
import zlib
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.studies import SPACE, SimulatedPool, simulated_rows

from foveate.errors import CheckpointError, OutputError, StudyError
from foveate.execution.campaign import run_campaign
from foveate.execution.pool import Message
from foveate.tuning.samplers import RandomSampler
from foveate.tuning.search import Search
from foveate.tuning.settings import StudyConfig
from foveate.tuning.space import Space

Open = Callable[..., Search]


def table(search: Search) -> list[tuple[Any, ...]]:
    """What a study found, without its times."""
    return [
        (
            number,
            dict(trial.settings),
            trial.bracket,
            trial.rung,
            trial.state,
            trial.score,
            trial.rows,
            trial.reason,
        )
        for number, trial in sorted(search.trials.items())
    ]


def finish(search: Search, pool: SimulatedPool) -> Search:
    for _ in run_campaign(search, pool):
        pass
    return search


def test_it_runs_what_was_said_before(open_search: Open) -> None:
    search = finish(open_search(), pool := SimulatedPool(1))
    told = search.config.budget
    assert (len(search.trials), len(pool.submitted), search.epochs_done) == (told.trials, told.jobs, told.epochs)
    assert search.best is not None
    assert search.best.state == "finished"
    states = Counter(trial.state for trial in search.trials.values())
    assert set(states) == {"finished", "pruned"}


BASE = Space.model_validate(SPACE).base(epochs=9, size=32)
PLANS: list[dict[str, Any]] = [
    {},
    {"semantics": "anew"},
    {"semantics": "anew", "algorithm": "screening", "factor": 6, "iterations": 3},
    {"semantics": "anew", "first_size": 16, "base": BASE},
]


@pytest.mark.parametrize("plan", PLANS)
@given(workers=st.integers(1, 8), seed=st.integers(0, 1000))
@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_number_of_workers_finds_the_same(
    open_search: Open, tmp_path_factory: Any, plan: dict[str, Any], workers: int, seed: int
) -> None:
    one = finish(open_search(tmp_path_factory.mktemp("one"), **plan), SimulatedPool(1))
    many = finish(open_search(tmp_path_factory.mktemp("many"), **plan), SimulatedPool(workers, seed))
    assert table(one) == table(many)


@pytest.mark.parametrize("plan", PLANS)
def test_it_pays_what_was_said_before(open_search: Open, plan: dict[str, Any]) -> None:
    search = finish(open_search(**plan), pool := SimulatedPool(1))
    told = search.config.budget
    assert (len(search.trials), len(pool.submitted), search.epochs_done) == (told.trials, told.jobs, told.epochs)
    assert search.cost_done == told.cost
    assert f"{told.epochs} epochs on 1 worker" in search.announcement(1)[0]


def test_a_trial_that_begins_anew_has_a_schedule_for_each_rung(open_search: Open) -> None:
    messages: list[Mapping[str, Any]] = []

    def noted(message: Mapping[str, Any]) -> None:
        messages.append(message)

    search = finish(open_search(semantics="anew"), SimulatedPool(1, fate=noted))
    assert {message["from_epoch"] for message in messages} == {0}
    assert all(message["config"]["train"]["epochs"] == message["to_epoch"] for message in messages)
    assert all(message["tells_right"] == (message["to_epoch"] == 9) for message in messages)
    assert not any(message["halves_validation"] for message in messages)
    promoted = search.trials[min(search.trials, key=lambda number: -search.trials[number].epochs_paid)]
    assert [len(schedule) for schedule in promoted.schedules] == [1, 3, 9]
    assert (promoted.epochs, promoted.epochs_paid) == (9, 13)


def test_a_first_rung_may_see_smaller_images(open_search: Open) -> None:
    sizes: dict[tuple[int, int], set[int]] = {}

    def noted(message: Mapping[str, Any]) -> None:
        rung = message["from_epoch"], message["to_epoch"]
        sizes.setdefault(rung, set()).add(message["config"]["data"]["size"])

    plan = {"semantics": "anew", "algorithm": "screening", "factor": 6, "first_size": 16, "base": BASE}
    search = open_search(**plan)
    assert search.announcement(1) == [
        "screening: 6 trials, 7 jobs, 15 epochs on 1 worker",
        "first rungs have images of 16 px, and all epochs together take about as long as 10.5 of 32 px",
    ]
    short = list(itertools.islice(run_campaign(search, SimulatedPool(1, fate=noted)), 12))
    assert short
    assert search.best is not None
    assert search.best.reached == 0  # its accuracy is that of other images
    search = finish(open_search(**plan), SimulatedPool(1, fate=noted))
    assert sizes == {(0, 1): {16}, (0, 9): {32}}
    assert search.best is not None
    assert (search.best.reached, search.epochs_done, search.cost_done) == (9, 15, 10.5)


def test_a_bracket_without_a_second_rung_sees_no_small_images(open_search: Open) -> None:
    """Hyperband's last bracket is random search; and a score of small images is no rival of one of larger ones."""
    large: set[int] = set()

    def noted(message: Mapping[str, Any]) -> None:
        if message["config"]["data"]["size"] == 32:
            large.add(message["to_epoch"])

    search = open_search(semantics="anew", first_size=16, base=BASE)
    for event in filter(None, run_campaign(search, SimulatedPool(1, fate=noted))):
        if event.kind == "done" and large:
            assert search.best is not None
            assert search.best.reached in {0, *large}
    assert large == {3, 9}
    assert [bracket[0].epoch_cost for bracket in search.config.brackets] == [0.25, 0.25, 1.0]


class _Clock:
    """Time that passes only where work is done."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now


class ClockedPool(SimulatedPool):
    """One worker, of which each epoch takes a second, and one of images of 16 px `small_s`."""

    def __init__(self, clock: _Clock, small_s: float = 1.0) -> None:
        super().__init__(1)
        self.clock, self.small_s, self.sizes = clock, small_s, dict[int, int | None]()

    def submit(self, job: int, message: Message) -> None:
        self.sizes[job] = message["config"]["data"]["size"]
        super().submit(job, message)

    def event(self, timeout_s: float) -> Any:
        event = super().event(timeout_s)
        if event is not None and event.kind == "done":
            self.clock.now += len(event.value["rows"]) * (self.small_s if self.sizes[event.job] == 16 else 1.0)
        return event


def test_in_its_time_cheaper_rungs_leave_room_for_more_brackets(
    open_search: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = _Clock()
    monkeypatch.setattr("foveate.tuning.search.time", clock)
    plan = {"semantics": "anew", "algorithm": "screening", "iterations": 100, "time_s": 60, "factor": 6}
    pool = ClockedPool(clock, small_s=0.25)
    search = finish(open_search(**plan, first_size=16, base=BASE), pool)
    assert 1 + max(trial.bracket for trial in search.trials.values()) == 5  # of 10.5 s each; without it 3
    assert clock.now == 52.5


@pytest.mark.parametrize(("time_s", "brackets", "jobs"), [(3, 1, 6), (16, 1, 7), (60, 3, 21), (90, 5, 35)])
@pytest.mark.parametrize("cut", [None, 4, 40])
def test_in_its_time_it_ends_brackets_whole_and_can_be_resumed(
    open_search: Open,
    monkeypatch: pytest.MonkeyPatch,
    time_s: int,
    brackets: int,
    jobs: int,
    cut: int | None,
) -> None:
    clock = _Clock()
    monkeypatch.setattr("foveate.tuning.search.time", clock)
    plan = {"semantics": "anew", "algorithm": "screening", "factor": 6, "iterations": 100, "time_s": time_s}
    if cut is not None:
        list(itertools.islice(run_campaign(open_search(**plan), ClockedPool(clock)), cut))
    search = finish(open_search(**plan), ClockedPool(clock))
    ended = [job for trial in search.trials.values() for job in trial.jobs]
    assert (1 + max(trial.bracket for trial in search.trials.values()), len(ended)) == (brackets, jobs)
    assert search.best is not None
    assert search.best.reached == (1 if time_s == 3 else 9)
    assert all(trial.state in ("finished", "pruned") for trial in search.trials.values())
    assert finish(open_search(**plan), pool := ClockedPool(clock)) is not None
    assert pool.submitted == []


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["hyperband", "asha"])
@given(cuts=st.lists(st.integers(1, 60), max_size=6), workers=st.integers(1, 4), seed=st.integers(0, 1000))
@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_stopped_anywhere_and_taken_up_it_finds_the_same(
    open_search: Open, tmp_path_factory: Any, algorithm: str, cuts: list[int], workers: int, seed: int
) -> None:
    if algorithm == "asha":  # where the order of outcomes decides, one worker's order is the only one
        workers = 1
    straight = finish(open_search(tmp_path_factory.mktemp("straight"), algorithm=algorithm), SimulatedPool(1))
    folder = tmp_path_factory.mktemp("cut")
    for cut in cuts:
        search = open_search(folder, algorithm=algorithm)
        list(itertools.islice(run_campaign(search, SimulatedPool(workers, seed)), cut))
    assert table(finish(open_search(folder, algorithm=algorithm), SimulatedPool(workers, seed))) == table(straight)


def test_a_finished_study_has_nothing_left_to_do(open_search: Open) -> None:
    finish(open_search(), SimulatedPool(2))
    finish(open_search(), pool := SimulatedPool(2))
    assert pool.submitted == []


def failing(
    numbers: set[int], error: str = "TrainingError", message: str = "no"
) -> Callable[[Mapping[str, Any]], Any]:
    """Jobs of these trials raise this."""
    end = {"kind": "failed", "value": {"kind": error, "message": message, "where": "loop.py:1"}}
    return lambda message: end if int(Path(message["folder"]).name) in numbers else None


def test_a_failed_trial_is_marked_and_outlived(open_search: Open) -> None:
    search = finish(open_search(), SimulatedPool(2, fate=failing({0, 3})))
    assert [number for number, trial in search.trials.items() if trial.state == "failed"] == [0, 3]
    assert search.trials[0].reason == "TrainingError: no (loop.py:1)"


def test_too_many_failures_end_the_study(open_search: Open) -> None:
    with pytest.raises(StudyError, match=r"\d of \d trials failed; the last error: TrainingError: no"):
        finish(open_search(), SimulatedPool(1, fate=failing(set(range(99)))))


def test_a_full_disk_stops_the_study_which_goes_on_later(open_search: Open) -> None:
    fate = failing({2}, "OutputError", "cannot write x: the disk is full")
    with pytest.raises(OutputError, match="the disk is full"):
        finish(open_search(), SimulatedPool(1, fate=fate))
    assert table(finish(open_search(), SimulatedPool(1)))[2][4] != "failed"


def test_a_lost_worker_costs_nothing_and_three_the_trial(open_search: Open) -> None:
    left = Counter({1: 2, 4: 99})

    def fate(message: Mapping[str, Any]) -> Any:
        number = int(Path(message["folder"]).name)
        left[number] -= 1
        return {"kind": "lost", "value": {"message": "killed"}} if left[number] >= 0 else None

    search = finish(open_search(), SimulatedPool(2, fate=fate))
    assert search.trials[1].state != "failed"
    assert search.trials[4].reason == "its worker was lost each time that it was tried: killed"


def test_a_hanging_trial_is_stopped_and_fails(open_search: Open) -> None:
    search = open_search(hang_limit_s=0.2)
    pool = SimulatedPool(1, fate=lambda message: {} if message["folder"].endswith("0002") else None)
    finish(search, pool)
    assert pool.stopped == [number for number, place in pool.folders.items() if place.endswith("0002")]
    assert search.trials[2].reason == "no step for 0.2 s"


def test_checkpoints_of_losers_are_deleted_and_the_winners_kept(open_search: Open) -> None:
    search = open_search()
    for event in filter(None, run_campaign(search, SimulatedPool(1))):
        if event.kind == "begun":
            (search.folder / "trials" / f"{event.job:04}").mkdir(parents=True, exist_ok=True)
        elif event.kind == "done" and event.value["rung"] == 1:
            there = {int(path.name) for path in (search.folder / "trials").iterdir()}
            assert len(there) <= 3
    assert search.best is not None
    assert [path.name for path in (search.folder / "trials").iterdir()] == [f"{search.best.number:04}"]


def test_the_best_may_have_stopped_early(open_search: Open) -> None:
    def stops_at_once(message: Mapping[str, Any]) -> Any:
        if not message["folder"].endswith("0004"):
            return None
        rows = [{**row, "rank_accuracy": 0.99} for row in simulated_rows(message)]
        return {"kind": "done", "value": {"score": 0.99, "stopped": True, "rows": rows}}

    search = finish(open_search(), SimulatedPool(1, fate=stops_at_once))
    assert search.best is not None
    assert (search.best.number, search.best.state) == (4, "stopped")


@pytest.mark.parametrize("semantics", ["continue", "kerastuner"])
def test_the_best_is_that_of_all_at_every_moment(open_search: Open, semantics: str) -> None:
    def ends_badly_or_early(message: Mapping[str, Any]) -> Any:
        number = int(Path(message["folder"]).name)
        if number == (search.best and search.best.number):  # promoted, the best of all fails
            return failing({number})(message)
        rows = simulated_rows(message)
        value = {"score": rows[-1]["rank_accuracy"], "stopped": number % 5 == 0, "rows": rows}
        return {"kind": "done", "value": value}

    search = open_search(semantics=semantics, fail_share=1)
    scored: dict[int, tuple[int, float, int]] = {}
    for event in filter(None, run_campaign(search, SimulatedPool(1, fate=ends_badly_or_early))):
        if event.kind == "done":
            early = event.value["stopped"] and semantics == "continue"
            reached = search.config.max_epochs if early else event.value["rows"][-1]["epoch"]
            scored[event.job] = (reached, event.value["score"], -event.job)
        elif event.kind == "failed":
            scored.pop(event.job, None)
        best = -max(scored.values())[-1] if scored else None
        assert search.best is (None if best is None else search.trials[best])


@pytest.mark.parametrize("semantics", ["continue", "kerastuner"])
def test_one_that_stops_early_in_its_last_job_can_be_the_best(open_search: Open, semantics: str) -> None:
    stopped: set[str] = set()

    def stops(message: Mapping[str, Any]) -> Any:
        if message["to_epoch"] < 9 or stopped:
            return None
        stopped.add(message["folder"])
        rows = simulated_rows(message)[:-1]
        return {"kind": "done", "value": {"score": 0.99, "stopped": True, "rows": rows}}

    search = open_search(semantics=semantics)
    finish(search, SimulatedPool(1, fate=stops))
    assert search.best is not None
    assert search.best.score == 0.99
    assert search.best.state == ("stopped" if semantics == "continue" else "finished")


def test_another_studys_journal_is_refused(open_search: Open, tmp_path: Path) -> None:
    finish(open_search(max_epochs=3), SimulatedPool(1))
    with pytest.raises(CheckpointError, match=r"does not fit its study\.yaml"):
        open_search(max_epochs=27)


@pytest.mark.parametrize("changed", [{"seed": 1}, {"subset": 500}, {"semantics": "kerastuner"}])
def test_a_study_whose_settings_were_changed_is_refused(open_search: Open, changed: dict[str, Any]) -> None:
    finish(open_search(), SimulatedPool(1))
    with pytest.raises(CheckpointError, match=r"does not fit its study\.yaml"):
        open_search(**changed)


@pytest.mark.parametrize(
    "settings",
    [
        {"algorithm": "asha", "formula": "kerastuner"},
        {"algorithm": "asha", "iterations": 2},
        {"trials": 5},
    ],
)
def test_settings_without_effect_are_refused(open_search: Open, settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"hyperband's|asha"):
        open_search(**settings)


def test_of_a_damaged_journal_the_rest_is_done_again(open_search: Open, tmp_path: Path) -> None:
    straight = table(finish(open_search(), SimulatedPool(1)))
    journal = tmp_path / "journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join([*lines[:20], b"00000000 {}\n", *lines[21:]]))
    search = open_search()
    assert search.journal.damaged is not None
    assert table(finish(search, SimulatedPool(1))) == straight


def altered(journal: Path, place: int, change: Callable[[dict[str, Any]], list[dict[str, Any]]]) -> None:
    """The journal with other entries in place of one, and the right checksums."""
    lines = journal.read_bytes().splitlines(keepends=True)
    entries = change(json.loads(lines[place].partition(b" ")[2]))
    texts = [json.dumps(entry).encode() for entry in entries]
    lines[place : place + 1] = [b"%08x %s\n" % (zlib.crc32(text), text) for text in texts]
    journal.write_bytes(b"".join(lines))


LR = {"lr": 0.1, "depth": [3, 3]}


@pytest.mark.parametrize("algorithm", ["hyperband", "asha"])
@pytest.mark.parametrize(
    ("event", "change"),
    [
        ("asked", lambda entry: [entry, entry]),
        ("told", lambda entry: [entry, entry]),
        ("asked", lambda entry: []),
        ("asked", lambda entry: [entry | {"trial": entry["trial"] + 1}]),
        ("asked", lambda entry: [entry | {"rung": entry["rung"] + 1}]),
        ("asked", lambda entry: [entry | {"bracket": 5}]),
        ("asked", lambda entry: [entry | {"settings": {}}]),
        ("asked", lambda entry: [entry | {"settings": LR | {"lr": 7.0}}]),
        ("asked", lambda entry: [entry | {"settings": LR | {"lr": True}}]),
        ("asked", lambda entry: [entry | {"settings": LR | {"lr": "0.1"}}]),
        ("asked", lambda entry: [entry | {"settings": LR | {"depth": [3]}}]),
        ("asked", lambda entry: [entry | {"settings": LR | {"batch": 5}}]),
        ("told", lambda entry: [entry | {"trial": 70}]),
        ("told", lambda entry: [entry | {"rung": 2}]),
        ("told", lambda entry: [entry | {"rows": [entry["rows"][0] | {"epoch": 9}]}]),
        ("told", lambda entry: [entry | {"rows": entry["rows"] * 2}]),
        ("told", lambda entry: [{"event": "returned", "trial": 70, "reason": ""}, entry]),
        ("told", lambda entry: [{"event": "returned", "trial": entry["trial"], "reason": ""}, entry]),
    ],
)
def test_what_cannot_have_happened_is_cut_off_and_done_again(
    open_search: Open, tmp_path: Path, algorithm: str, event: str, change: Any
) -> None:
    straight = table(finish(open_search(algorithm=algorithm, max_epochs=3), SimulatedPool(1)))
    journal = tmp_path / "journal.jsonl"
    events = [json.loads(line.partition(b" ")[2])["event"] for line in journal.read_bytes().splitlines()]
    place = [number for number, each in enumerate(events) if each == event][3]
    altered(journal, place, change)
    search = open_search(algorithm=algorithm, max_epochs=3)
    told = str(search.journal.damaged)
    assert place < int(told.partition(", line ")[2].partition(",")[0])
    assert "the rest is in journal.jsonl.damaged" in told
    assert "\n" not in told
    assert table(finish(search, SimulatedPool(1))) == straight
    assert open_search(algorithm=algorithm, max_epochs=3).journal.damaged is None


def test_a_trial_that_goes_on_with_other_settings_is_cut_there(open_search: Open, tmp_path: Path) -> None:
    straight = table(finish(open_search(), SimulatedPool(1)))
    lines = (tmp_path / "journal.jsonl").read_bytes().splitlines()
    place = next(number for number, line in enumerate(lines) if b'"asked"' in line and b'"rung": 1' in line)
    altered(tmp_path / "journal.jsonl", place, lambda entry: [entry | {"settings": LR}])
    search = open_search()
    assert f"line {place + 1}, is damaged" in str(search.journal.damaged)
    assert table(finish(search, SimulatedPool(1))) == straight


def test_a_measurement_that_is_not_finite_is_a_failed_trial(open_search: Open) -> None:
    def wild(message: Mapping[str, Any]) -> Any:
        if not message["folder"].endswith("0002"):
            return None
        rows = [{**row, "val_loss": float("nan")} for row in simulated_rows(message)]
        return {"kind": "done", "value": {"score": 0.5, "stopped": False, "rows": rows}}

    search = finish(open_search(), SimulatedPool(1, fate=wild))
    assert search.trials[2].state == "failed"
    assert "val_loss" in str(search.trials[2].reason)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"max_epochs": 10**9}, "max_epochs"),
        ({"max_epochs": 10**30, "factor": 2}, "max_epochs"),
        ({"iterations": 10**9}, "iterations"),
        ({"iterations": 50_000}, "make .* trials: 100,000 are the most"),
        ({"max_epochs": 100_000, "factor": 2}, "make .* trials: 100,000 are the most"),
        ({"algorithm": "asha", "trials": 10**9}, "trials"),
        ({"factor": 10**400}, "factor"),
        ({"subset": 10**30}, "subset"),
    ],
)
def test_a_study_without_end_is_refused_before_it_takes_memory(
    open_search: Open, settings: dict[str, Any], told: str
) -> None:
    base = open_search().config.model_dump()
    with pytest.raises(ValueError, match=told):
        StudyConfig.model_validate({**base, **settings})


def test_iterations_repeat_the_brackets_with_new_trials(open_search: Open, tmp_path_factory: Any) -> None:
    once, twice = open_search(), open_search(tmp_path_factory.mktemp("twice"), iterations=2)
    assert twice.config.budget.trials == 2 * once.config.budget.trials
    finish(twice, SimulatedPool(3))
    assert len({tuple(trial.settings.values()) for trial in twice.trials.values()}) == len(twice.trials)


def test_the_slots_of_workers_never_overlap(open_search: Open) -> None:
    search = finish(open_search(), SimulatedPool(3))
    by_slot: dict[int, list[tuple[float, float]]] = {}
    for trial in search.trials.values():
        for job in trial.jobs:
            by_slot.setdefault(job["slot"], []).append((job["began"], job["ended"]))
    assert set(by_slot) == {0, 1, 2}
    for spans in by_slot.values():
        for (_, ended), (began, _) in itertools.pairwise(sorted(spans)):
            assert ended <= began


def test_a_small_space_ends_the_study_early(open_search: Open) -> None:
    class Few(RandomSampler):
        def __call__(self, trial: int, seen: Any, settings: Any) -> Any:
            return super().__call__(trial, seen, settings) if trial < 4 else None

    config = open_search().config
    search = open_search(sampler=Few(config.space, 0, lambda _: True))
    assert len(finish(search, SimulatedPool(2)).trials) == 4


@pytest.mark.parametrize("draws", [1, 2])
def test_its_trials_draw_as_it_says_and_as_before_where_it_says_nothing(open_search: Open, draws: int) -> None:
    search = open_search()
    assert search.config.draws == 1  # its settings are of before there was a choice
    search.config = search.config.model_copy(update={"draws": draws})
    pool = SimulatedPool(1)
    submitted: list[int] = []
    submit = pool.submit

    def noted(job: int, message: Mapping[str, Any]) -> None:
        submitted.append(message["draws"])
        submit(job, message)

    pool.submit = noted  # type: ignore[method-assign]
    finish(search, pool)
    assert set(submitted) == {draws}

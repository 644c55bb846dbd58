"""Whole comparisons by the command line: real workers, really killed, come to the findings of the unkilled one."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.commands import call, command, finish

import foveate
from foveate.errors import ConfigError

pytestmark = pytest.mark.slow

TINY = (
    "stages=[{filters: 4, kernels: [3, 3]}, {filters: 6, kernels: [3, 3], dropout: 0.2}]",
    "epochs=3",
    "passes_per_epoch=1",
    "batch=50",
    "tta_views=1",
)
ARMS = [
    "--arm",
    "minute",
    "--arm",
    "minute,attention=none",
    "--arm",
    "minute,attention=none,optimizer=sgd,lr=0.01",
]


def words(*arguments: str) -> list[str]:
    settings = [word for setting in TINY for word in ("--set", setting)]
    return ["compare", "digits", *ARMS, "--threads", "1", "--seeds", "2", "--subset", "200", *settings, *arguments]


def findings(folder: Path, split: str = "validation") -> Any:
    return json.loads((folder / f"findings-{split}.json").read_text())


def rows(folder: Path, split: str = "validation") -> list[dict[str, str]]:
    with (folder / f"results-{split}.csv").open() as file:
        return [{name: row[name] for name in row if name != "train_s"} for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("comparisons")


@pytest.fixture(scope="module")
def whole(folder: Path) -> Path:
    """A comparison that nobody interrupts, by one worker."""
    (folder / "whole.txt").write_text(finish(folder, *words("--name", "whole")))
    return folder / "runs" / "compare" / "whole"


def test_it_ends_with_verdicts_a_page_and_the_bits_of_every_run(whole: Path) -> None:
    printed = (whole.parents[2] / "whole.txt").read_text()
    # The reference is the one arm... of two without attention none is alone: the first.
    assert "minute,attention=none minus minute" in printed
    assert "report: runs/compare/whole/compare.html" in printed
    arms = {row["arm"] for row in rows(whole)}
    assert {"minute", "minute,attention=none"} < arms
    with np.load(whole / "right-validation.npz", allow_pickle=False) as file:
        right = np.unpackbits(file["right"], axis=1)
        assert len(file["runs"]) == len(rows(whole))
        accuracy = float(rows(whole)[0]["accuracy"])
        assert right[0].sum() / 287 == pytest.approx(accuracy)
    assert (whole / "compare.html").stat().st_size > 10_000
    assert not (whole / "results-test.csv").exists()


@pytest.mark.parametrize("victim", ["driver", "worker"])
def test_killed_and_taken_up_it_comes_to_the_same(folder: Path, whole: Path, victim: str) -> None:
    """By two workers, where the whole one had one."""
    place = whole.with_name(f"killed-{victim}")
    with subprocess.Popen(
        command(*words("--name", place.name, "--workers", "2")), cwd=folder, stdout=subprocess.DEVNULL
    ) as driver:
        deadline = time.monotonic() + 300
        while len(list(place.glob("runs/*/*/validation.json"))) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        if victim == "worker":
            children = Path(f"/proc/{driver.pid}/task/{driver.pid}/children").read_text().split()
            os.kill(int(children[0]), signal.SIGKILL)
            assert driver.wait() == 0
        else:
            driver.kill()
    if victim == "driver":
        assert not (place / "results-validation.csv").exists()
        finish(folder, "compare", "--resume", str(place))
    assert rows(place) == rows(whole)
    assert findings(place) == findings(whole)


def test_the_test_split_is_opened_after_all_and_by_the_same_networks(folder: Path, whole: Path) -> None:
    before = rows(whole)
    printed = finish(folder, "compare", "--resume", str(whole), "--final")
    assert "opening the test split: " in printed
    assert "test images; differences in points" in printed
    assert rows(whole) == before
    assert len(rows(whole, "test")) == len(before)
    assert findings(whole, "test") != findings(whole)
    assert foveate.open_comparison(whole).split == "test"
    finish(folder, "compare", "--resume", str(whole))
    assert len(json.loads((whole / "test_openings.json").read_text())) == 1
    assert re.search(r"measured on the [0-9,]+ test images", (whole / "compare.html").read_text())


def test_an_arm_that_fails_is_named_and_the_rest_goes_on(folder: Path) -> None:
    settings = [word for setting in TINY for word in ("--set", setting)]
    arms = ["--arm", "minute", "--arm", "minute,attention=none", "--arm", "minute,optimizer=adamw,lr=1.0e+30"]
    sizes = ["--seeds", "2", "--subset", "100", "--threads", "1", "--workers", "0", "--no-controls"]
    printed = finish(folder, "compare", "digits", *arms, *settings, *sizes, "--name", "failing")
    assert printed.count("failed: TrainingError: the loss became") == 2
    place = folder / "runs" / "compare" / "failing"
    told = rows(place)
    assert [bool(row["failed"]) for row in told] == [False, False, True] * 2
    assert "No seed has a result of both." in printed
    assert printed.count("failed and left out: minute,optimizer=adamw,lr=1.0e+30, 100 images, seed ") == 2
    # What was never trained is not trained when the test split is open.
    printed = finish(folder, "compare", "--resume", str(place), "--final", "--workers", "0")
    assert "opening the test split: 3 arms × 2 seeds, 4 runs" in printed
    assert [row["failed"].split(":")[0] for row in rows(place, "test")] == ["", "", "TrainingError"] * 2
    assert (place / "compare.html").read_text().count("Failed and left out: minute,optimizer=adamw") == 2
    assert len(json.loads((place / "test_openings.json").read_text())) == 1


def test_an_arm_is_compared_with_itself_by_other_seeds(folder: Path) -> None:
    settings = [word for setting in TINY for word in ("--set", setting)]
    arms = ["--arm", "minute,attention=none", "--arm", "minute,attention=none,seeds=100+", "--name", "itself"]
    sizes = ["--seeds", "2", "--subset", "100", "--threads", "1", "--workers", "0"]
    finish(folder, "compare", "digits", *arms, *settings, *sizes)
    place = folder / "runs" / "compare" / "itself"
    assert [row["seed"] for row in rows(place)] == ["0", "100", "1", "101"]
    assert "rule: dunnett" in (place / "comparison.yaml").read_text()
    assert "With seeds of its own: minute,attention=none,seeds=100+" in (place / "compare.html").read_text()


def test_a_plan_opens_no_test_split() -> None:
    with pytest.raises(ConfigError, match="a plan opens no test split: leave final out"):
        foveate.plan_comparison("digits", ("minute",), final=True)


def test_a_plan_says_how_many_seeds_it_takes(folder: Path) -> None:
    settings = [word for setting in TINY for word in ("--set", setting)]
    arms = ["--arm", "minute,attention=eca", "--plan", "--seeds", "3", "--delta", "5"]
    sizes = ["--subset", "100", "--threads", "1", "--workers", "0"]
    printed = finish(folder, "compare", "digits", *arms, *settings, *sizes)
    assert "seeds of every arm, for an answer in 80 % of comparisons:" in printed
    assert "minute,attention=eca minus minute,attention=none (100 images): " in printed
    page = (folder / "runs" / "compare" / "digits-plan" / "compare.html").read_text()
    assert "to see a difference of 5 points" in page
    assert "Inconclusive" not in page
    seeds = {row["seed"] for row in rows(folder / "runs" / "compare" / "digits-plan")}
    assert seeds == {"1000000", "1000001", "1000002"}
    place = str(folder / "runs" / "compare" / "digits-plan")
    assert finish(folder, "compare", "--resume", place).count("to see a difference of 5 points") == 1
    refused = call(folder, "compare", "--resume", place, "--final")
    assert (refused.status, refused.err.count("\n")) == (2, 1)
    assert "opens no test split" in refused.err


class TestBadInput:
    @pytest.mark.parametrize(
        ("arms", "message"),
        [
            ([], "nothing to compare"),
            (["minute", "minute,size=24"], "differ in size"),
            (["minute", "minute,split_seed=3"], "differ in split_seed"),
            (["minute", "minute,threads=1"], "differ in threads"),
            (["minute", "minute"], "are the same"),
            (["minute", "minute,attention=luong_scaled"], "are the same"),
            (["minute,attention=none"], "is alone and has no attention to leave out"),
            (["minute", "minute,attention=lung"], "did you mean 'luong'"),
            (["minuet"], "did you mean 'minute'"),
            (["fast", "fast,tta_views=1"], "are the same"),
            (["small", "small,keep=last"], "are the same"),
            (["minute,attention=custom:Mine"], "hand it over first, from Python"),
            (["minute,attention=residual_mask,batch_norm=false"], "normalises batches itself"),
        ],
    )
    def test_arms_that_make_no_comparison(self, tmp_path: Path, arms: list[str], message: str) -> None:
        """Nothing is read before: there is no such data set."""
        with pytest.raises(ConfigError, match=message):
            foveate.compare("no-such-data", arms, runs=tmp_path / "runs", settings={"threads": 2})
        assert not (tmp_path / "runs").exists()

    @pytest.mark.parametrize(
        "more",
        [
            {"seeds": 0},
            {"delta": 0.0},
            {"alpha": 1.0},
            {"subsets": (0,)},
            {"subsets": (9, 400)},
            {"subsets": (10**6,)},
            {"subsets": (50, 50)},
            {"zzz": 1},
            {"subsets": 300},
            {"subsets": None},
            {"subsets": ["200"]},
            {"subsets": [1.5]},
            {"seeds": 1, "pilot": True},
        ],
    )
    def test_numbers_out_of_range(self, tmp_path: Path, more: dict[str, Any]) -> None:
        with pytest.raises(ConfigError, match=next(iter(more))):
            foveate.compare("digits", ["minute"], runs=tmp_path / "runs", **more)
        assert not (tmp_path / "runs").exists()

    @pytest.mark.parametrize("arms", ["minute", [("minute", {"lr": 1})]])
    def test_what_is_no_list_of_texts(self, tmp_path: Path, arms: Any) -> None:
        with pytest.raises(ConfigError, match=r"arms=.*: give a list"):
            foveate.compare("digits", arms, runs=tmp_path / "runs")

    def test_a_difference_that_no_accuracy_has(self, tmp_path: Path) -> None:
        done = call(tmp_path, "compare", "digits", "--arm", "minute", "--delta", "150")
        assert (done.status, done.err.count("\n")) == (2, 1)
        assert "--delta 150: give points of accuracy" in done.err

    @pytest.mark.parametrize(
        ("more", "told"),
        [
            ({"alpha": 2}, "alpha=2: "),
            ({"alpha": 0.3}, "alpha=0.3: "),
            ({"deltas": 0.1}, "did you mean 'delta'"),
            ({"seeds": 0}, "seeds=0: "),
            ({"hang_limit_s": -1}, "hang_limit_s=-1: "),
            ({"zzz": 1}, "zzz"),
            ({"rule": "seeds"}, "rule='seeds': give blocks, dunnett or pairs"),
            ({"rule": "dunet"}, "did you mean 'dunnett'"),
            ({"name": "taken"}, "taken exists: choose another --name"),
        ],
    )
    def test_what_needs_no_data_is_refused_before_any_is_read(
        self, tmp_path: Path, more: dict[str, Any], told: str
    ) -> None:
        (tmp_path / "runs" / "compare" / "taken").mkdir(parents=True)
        with pytest.raises(ConfigError, match=told):
            foveate.compare("no-such-data", ["minute"], runs=tmp_path / "runs", **more)

    def test_blocks_of_seeds_that_an_arm_does_not_share(self, tmp_path: Path) -> None:
        arms = ["minute,attention=none", "minute", "minute,seeds=100+"]
        with pytest.raises(ConfigError, match="with seeds of its own shares none: give dunnett or pairs"):
            foveate.compare("no-such-data", arms, runs=tmp_path / "runs", rule="blocks")

    @pytest.mark.parametrize("own", ["first_seed", "pilot"])
    def test_a_plan_with_what_is_its_own(self, own: str) -> None:
        with pytest.raises(ConfigError, match=f"is a pilot: leave {own} out"):
            foveate.plan_comparison("no-such-data", ["minute"], **{own: 1})

    def test_a_seed_for_all_arms(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="--seeds and --first-seed"):
            foveate.compare("digits", ["minute"], runs=tmp_path / "runs", settings={"seed": 7})

    def test_a_comparison_whose_settings_were_changed_by_hand(self, whole: Path, tmp_path: Path) -> None:
        place = tmp_path / "changed"
        shutil.copytree(whole, place)
        text = (place / "comparison.yaml").read_text()
        (place / "comparison.yaml").write_text(text.replace("label_smoothing: 0.1", "label_smoothing: 0.2", 1))
        done = call(tmp_path, "compare", "--resume", str(place))
        assert (done.status, done.err.count("\n")) == (2, 1)
        assert "was changed: restore the original" in done.err

    def test_a_resumed_comparison_with_other_settings(self, whole: Path, tmp_path: Path) -> None:
        done = call(tmp_path, "compare", "--resume", str(whole), "--seeds", "9")
        assert done.status == 2
        assert done.err.startswith("foveate: --resume takes every setting from the comparison")

    def test_one_seed_has_no_interval(self, folder: Path) -> None:
        settings = [word for setting in TINY for word in ("--set", setting)]
        printed = finish(
            folder, "compare", "digits", "--arm", "minute,attention=eca", "--seeds", "1", "--subset", "100",
            "--threads", "1", "--workers", "0", "--name", "single", *settings,
        )  # fmt: skip
        assert "from one seed, which has no interval." in printed


def test_groups_of_images_are_counted_also_where_an_earlier_version_kept_none(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (90, 8, 8, 3), np.uint8)
    np.savez(
        tmp_path / "scans.npz", images=pixels, labels=np.arange(90) % 2,
        split=np.repeat(["train", "val"], [50, 40]), group=[f"patient {each // 5}" for each in range(90)],
    )  # fmt: skip
    settings = dict(each.split("=", 1) for each in TINY[1:4]) | {"size": 16, "threads": 1}
    arms = ["minute,attention=none", "minute,attention=none,optimizer=sgd"]
    made = foveate.compare(
        tmp_path / "scans.npz", arms, seeds=2, controls=False, workers=0, runs=tmp_path / "runs", settings=settings
    )
    (finding,) = made.findings
    assert finding.difference is not None
    assert (finding.difference.images, finding.difference.groups) == (40, 8)
    assert "The images are of 8 groups" in made.report.read_text()
    (made.path / "groups-validation.npy").unlink()
    assert foveate.resume_comparison(made.path, workers=0).findings == [finding]
    assert findings(made.path)[0]["difference"]["groups"] == 8

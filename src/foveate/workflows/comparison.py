"""Comparisons, as the command line and the Python API call them: compare, resume, plan."""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from foveate.comparison.arms import check_different
from foveate.comparison.experiment import Experiment
from foveate.comparison.findings import PairFinding
from foveate.comparison.groups import keep_groups
from foveate.comparison.outcomes import Outcome
from foveate.comparison.settings import ComparisonConfig
from foveate.comparison.training import JudgedSplit, run_arm
from foveate.config import check_keywords, read_yaml
from foveate.data.dataset import Dataset
from foveate.errors import CheckpointError, ComparisonError, ConfigError, DataError
from foveate.execution.pool import Pool
from foveate.files import locked
from foveate.records import Digest, Record, read_record
from foveate.training.fit import DRAWS
from foveate.training.saving import interruptible
from foveate.training.settings import precision_told
from foveate.validation import check_values, validated
from foveate.workflows.campaign import (
    create_folder,
    finish,
    load_data,
    load_data_again,
    read_settings,
    resuming,
    sees_no_steps,
)
from foveate.workflows.comparison_arms import (
    PILOT_SEED,
    check_rule,
    check_subsets,
    controls_of,
    requested_arms,
    resolved_arms,
    rule_for,
    starts_told,
)
from foveate.workflows.comparison_files import (
    OPENINGS,
    record_test_opening,
    write_comparison_page,
    write_results,
)
from foveate.workflows.output import check_output_name, refuse_within
from foveate.workflows.request import Display, NullDisplay, settings_digest, tell
from foveate.workflows.workers import Workers


class _Sealed(Record):
    """The contents of `digest.json`, which shows whether `comparison.yaml` was changed."""

    sha256: Digest


@dataclass(frozen=True)
class Comparison:
    """A comparison's folder, `runs/compare/<name>/`, and what lies in it."""

    path: Path
    _known: Outcome | None = field(default=None, repr=False, compare=False)
    """The results of its runs, where this process has just computed them."""

    @property
    def config(self) -> ComparisonConfig:
        """Its settings.

        Raises:
            CheckpointError: when they are damaged.
        """
        return read_settings(self.path / "comparison.yaml", ComparisonConfig)

    @property
    def experiment(self) -> Experiment:
        """Its runs, as measured on the split that it is judged on."""
        return Experiment(self.config, self.path, self.split)

    @property
    def split(self) -> JudgedSplit:
        """The split that it is judged on: the test split once that is open."""
        return "test" if (self.path / "results-test.csv").exists() else "validation"

    @property
    def test_openings(self) -> Path:
        """When the test split was opened, and by which command; no such file: it was not."""
        return self.path / OPENINGS

    @property
    def outcome(self) -> Outcome:
        """The results of its runs."""
        return self._known or Outcome(self.experiment)

    @property
    def findings(self) -> list[PairFinding]:
        """The difference and the verdict of every pair."""
        return self.outcome.findings

    @property
    def report(self) -> Path:
        """The page that tells everything about it."""
        return self.path / "compare.html"


def compare(
    data: str | Path,
    arms: Sequence[str],
    *,
    seeds: int = 5,
    controls: bool = True,
    final: bool = False,
    workers: int | None = None,
    ray: str | None = None,
    gpus: float | None = None,
    data_dir: Path | str | None = None,
    runs: Path | str = "runs",
    name: str | None = None,
    settings: Mapping[str, Any] = {},
    display: Display | None = None,
    **more: Any,
) -> Comparison:
    """Train arms with the same seeds, and say of every pair whether they differ.

    The reference is the arm without attention where there is one alone, else the first. Of one arm it is the same
    without attention. Every other arm is compared with it, and with controls made of it where the costs differ:
    as wide as it takes to have the arm's parameters, and the arm's training FLOPs.

    Args:
        data: as `train` takes it.
        arms: each `PRESET[,KEY=VALUE…]`; its `start` may be the name of a run in `runs`.
        seeds: of every arm; the first is `first_seed`.
        controls: whether to make them.
        final: open the test split after every run has ended, and judge by it.
        workers, ray, gpus: as `tune` takes them.
        settings: of every arm.
        more: of `ComparisonConfig`: `first_seed`, `subsets`, `delta` (a share: 0.005 is half a point), `alpha`,
            `rule` (`blocks`, `dunnett` or `pairs`: how the pairs are judged together), `hang_limit_s`.

    Raises:
        CheckpointError, ConfigError, DataError, OutputError: for a request that cannot be met; nothing is written
            then.
        ComparisonError: when no run came to an end.
        KeyboardInterrupt: after Ctrl-C or SIGTERM; the comparison can be resumed.
    """
    display = display or NullDisplay()
    if isinstance(arms, str) or not all(isinstance(arm, str) for arm in arms):
        raise ConfigError(f"arms={arms!r}: give a list of texts, such as 'minute,attention=none'")
    subsets = more.get("subsets", (None,))
    if not isinstance(subsets, Sequence) or not all(isinstance(each, int | None) for each in subsets):
        raise ConfigError(f"subsets={subsets!r}: give a list of numbers of images; None: all")
    if more.get("pilot") and seeds < 2:
        raise ConfigError(f"seeds={seeds}: a plan learns from two seeds at least how much they spread")
    if more.get("pilot") and final:
        raise ConfigError("a plan opens no test split: leave final out")
    if any(setting.rpartition(".")[2] == "seed" for setting in (*settings, *more)):
        raise ConfigError("seed: all arms have the same seeds; say which by --seeds and --first-seed")
    check_keywords(ComparisonConfig.model_fields, more)
    check_rule(more.get("rule"))
    check_values(ComparisonConfig, {**more, "seeds": seeds})
    refuse_within(runs, data)
    check_output_name(Path(runs), "compare", name)
    crew = Workers(workers, ray, gpus)
    given = {"threads": crew.threads_for(settings), **settings}
    first_seed = int(more.get("first_seed", 0))
    parsed = requested_arms(arms, given, first_seed, seeds, pilot=bool(more.get("pilot")), runs=Path(runs))
    more["rule"] = rule_for(parsed, more.get("rule"))
    asked = [arm.config for arm in parsed]
    crew.check_attention(each.model.attention for each in asked)
    base = asked[0]
    dataset, device, location = load_data(data, base, data_dir, display)
    if final and "test" not in dataset.splits:
        raise DataError(f"{dataset.name} has no test images: add a test split to it, or compare without --final")
    if len(dataset.splits["validation"]) < 2:
        raise DataError(f"{dataset.name} has a single validation image: add images, or set val_fraction higher")
    check_subsets(subsets, dataset)
    resolved = resolved_arms(parsed, dataset, device, subsets)
    told = starts_told(resolved, dataset, display)
    tell(display, *precision_told(asked, [arm.config for arm in resolved], device), *told)
    check_different(resolved, first_seed, seeds)  # again: what the data decides may make arms the same
    if controls:
        resolved += controls_of(resolved, dataset, display)
    config = validated(
        ComparisonConfig,
        {
            **more,
            **location,
            "num_classes": len(dataset.class_names),
            "arms": resolved,
            "told": told,
            "seeds": seeds,
            "draws": DRAWS,
        },
    )

    with contextlib.closing(crew.open_pool(run_arm, base, device)) as pool:
        fallback = f"{dataset.name}-plan" if config.pilot else dataset.name
        folder = create_folder(
            "compare",
            "comparison.yaml",
            config,
            dataset,
            device,
            runs=runs,
            name=name,
            fallback=fallback,
            sealed=True,
        )
        made = Comparison(folder)
        return _run(made, made.config, dataset, pool, crew, display, final=final)


def plan_comparison(data: str | Path, arms: Sequence[str], *, seeds: int = 4, **options: Any) -> Comparison:
    """A pilot: a small comparison with seeds that no other has, by which the spread between seeds is learned.

    Its verdicts are no evidence. `plan` of its findings says how many seeds it takes to see a difference of δ, and
    to say that there is none.

    Args:
        options: of `compare`.

    Raises:
        As `compare`.
    """
    if own := options.keys() & {"first_seed", "pilot"}:
        raise ConfigError(f"a plan has seeds of its own, and is a pilot: leave {min(own)} out")
    return compare(data, arms, seeds=seeds, first_seed=PILOT_SEED, pilot=True, **options)


def resume_comparison(
    path: Path | str,
    data: str | Path | None = None,
    *,
    final: bool = False,
    workers: int | None = None,
    ray: str | None = None,
    gpus: float | None = None,
    data_dir: Path | str | None = None,
    display: Display | None = None,
) -> Comparison:
    """Resume a comparison that was killed or stopped; or open the test split of one that has ended.

    Args:
        data: where its data set lies now, if it was moved; it must be the same. `data_dir` says it of `cifar10`.

    Raises:
        CheckpointError: when it is not a comparison, is damaged, or its data set has changed.
        DataError: when its data set is not there.
        ComparisonError, KeyboardInterrupt: as in `compare`.
    """
    display = display or NullDisplay()
    crew = Workers(workers, ray, gpus)
    comparison = open_comparison(path)
    config = comparison.config
    sealed = read_record(comparison.path / "digest.json", _Sealed, fix="restore it from a copy")
    if sealed.sha256 != settings_digest(read_yaml(comparison.path / "comparison.yaml")):
        raise CheckpointError(f"{comparison.path / 'comparison.yaml'} was changed: restore the original")
    if final and config.pilot:
        raise ConfigError(f"{comparison.path} is a plan's pilot: it opens no test split")
    crew.check_attention(arm.config.model.attention for arm in config.arms)
    base = config.arms[0].config
    config, dataset, device = load_data_again(
        "compare", config, base, comparison.path, display, data=data, data_dir=data_dir
    )
    if final and "test" not in dataset.splits:
        raise DataError(f"{dataset.name} has no test images: go on without --final")
    with contextlib.closing(crew.open_pool(run_arm, base, device)) as pool:
        return _run(comparison, config, dataset, pool, crew, display, final=final)


def open_comparison(path: Path | str) -> Comparison:
    """A comparison that lies in a folder.

    Raises:
        CheckpointError: when it is not a comparison.
    """
    path = Path(path)
    if not (path / "comparison.yaml").is_file():
        raise CheckpointError(
            f"{path} is not a comparison (no comparison.yaml): give a folder made by `foveate compare`"
        )
    return Comparison(path)


def _run(
    comparison: Comparison,
    config: ComparisonConfig,
    dataset: Dataset,
    pool: Pool,
    crew: Workers,
    display: Display,
    *,
    final: bool,
) -> Comparison:
    """Do what is to be done, and write what it came to.

    Args:
        config: of the comparison, with the place where its data lies now.
    """
    with contextlib.ExitStack() as held:
        held.enter_context(locked(comparison.path, f"{comparison.path} is being run"))
        keep_groups(comparison.path, dataset)
        # Read under the lock: another process may have opened the test split until then.
        opened = comparison.test_openings.exists()
        final = final or opened
        command = resuming("compare", comparison.path, comparison.config, config, crew, final=final)
        interrupted = held.enter_context(interruptible(command, at_once=sees_no_steps(pool)))
        # Once the test split is open nothing is trained any more.
        splits: list[JudgedSplit] = ["test"] if opened else ["validation", "test"] if final else ["validation"]
        for split in splits:
            experiment = Experiment(config, comparison.path, split)
            if split == "test" and experiment.pending():
                record_test_opening(comparison.test_openings, command)
                known = Experiment(config, comparison.path, comparison.split)
                write_comparison_page(Outcome(known), has_test=True)  # which says from now on that it was opened
            finish(experiment, pool, interrupted, display)
            if len(failures := experiment.failures()) == len(experiment.runs):
                raise ComparisonError(f"no run came to an end; the last error: {[*failures.values()][-1]}")
            outcome = Outcome(experiment)
            write_results(outcome, has_test="test" in dataset.splits)
    return Comparison(comparison.path, outcome)

"""What a person sees on a terminal: progress while the work goes on, tables at its end."""

import contextlib
import csv
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any, TypeVar

from foveate.files import cache_folder
from foveate.progress import Track, untracked

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import RenderableType

    from foveate.comparison.experiment import Experiment
    from foveate.comparison.experiment import Update as RunUpdate
    from foveate.comparison.training import JudgedSplit
    from foveate.exporting.proof import Score
    from foveate.inference.faithfulness import Verdict
    from foveate.inference.tables import Columns, Row
    from foveate.training.loop import EpochResult
    from foveate.tuning.search import Search, Update
    from foveate.workflows.cache import Cached, Cleared
    from foveate.workflows.check import Check
    from foveate.workflows.comparison import Comparison
    from foveate.workflows.export import Export
    from foveate.workflows.measure import MeasuredModel
    from foveate.workflows.predict import Predicted
    from foveate.workflows.run import Run
    from foveate.workflows.serve import Serving
    from foveate.workflows.study import Study

__all__ = [
    "Bars",
    "ComparisonBars",
    "ComparisonLines",
    "Lines",
    "Messages",
    "StudyLines",
    "StudyTable",
    "comparison_display",
    "display",
    "message_display",
    "print_cache",
    "print_check",
    "print_cleared",
    "print_comparison",
    "print_export",
    "print_plan",
    "print_predictions",
    "print_results",
    "print_serving",
    "print_study",
    "print_verdicts",
    "study_display",
    "told_of_predictions",
]

T = TypeVar("T")
_BEGAN = time.monotonic()


class Lines:
    """Follows the work by plain lines, for logs and pipes: no bar, one line an epoch."""

    track: "Track" = staticmethod(untracked)

    def say(self, line: str) -> None:
        """Print a line of its own."""
        print(line, flush=True)

    def epoch(self, result: "EpochResult", *, epochs: int, best: bool) -> None:
        """Print what the epoch gave and how long the rest will take."""
        parts = [
            f"epoch {result.epoch:>{len(str(epochs))}}/{epochs}",
            f"loss {result.train_loss:.4f}",
            f"accuracy {result.train_accuracy:6.2%}",
        ]
        if result.val_loss is not None and result.val_accuracy is not None:
            parts += [f"val loss {result.val_loss:.4f}", f"val accuracy {result.val_accuracy:6.2%}"]
        left = timedelta(seconds=round((epochs - result.epoch) * result.seconds))
        parts += [f"{result.images_per_s:,.0f} images/s", f"{left} left"]
        self.say("  ".join(parts) + ("  best" if best else ""))


class Bars(Lines):
    """Follows the work by a bar with images/s and the time left, and prints each epoch's line above it."""

    def __init__(self) -> None:
        from rich.console import Console

        self.console = Console(highlight=False)
        self.track = self._track

    def say(self, line: str) -> None:
        """Print a line of its own."""
        self.console.print(line, markup=False, soft_wrap=True)

    def _track(self, items: Iterable[T], *, total: int, label: str, images_each: int = 1) -> Iterator[T]:
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(compact=True),
        )
        with Progress(*columns, console=self.console, transient=True) as progress:
            task = progress.add_task(label, total=total, rate="")
            began = time.monotonic()
            for done, item in enumerate(items, start=1):
                yield item
                rate = done * images_each / (time.monotonic() - began)
                progress.update(task, completed=done, rate=f"{rate:,.0f} images/s" if rate else "")


def display() -> Lines:
    """A bar on a terminal, plain lines elsewhere."""
    return Bars() if sys.stdout.isatty() else Lines()


class Messages(Bars):
    """Bars and lines on standard error: standard output is for what was asked for."""

    def __init__(self) -> None:
        from rich.console import Console

        super().__init__()
        self.console = Console(highlight=False, stderr=True)
        if not sys.stderr.isatty():
            self.track = untracked

    def say(self, line: str) -> None:
        """Print a line of its own."""
        print(line, file=sys.stderr, flush=True)


def message_display() -> Messages:
    """For verbs whose answer goes to standard output."""
    return Messages()


def print_verdicts(verdicts: "Sequence[Verdict]", run: "Path") -> None:
    """What a run's maps are worth, in words."""
    for verdict in verdicts:
        print(verdict.words)
    print(f"time: {time.monotonic() - _BEGAN:.1f} s in all")
    print(f"report: {run / 'report.html'}")


def print_predictions(columns: "Columns", rows: "Iterable[Row]") -> None:
    """A line an image: probability, label, and what else was asked for, then its name."""
    from foveate.records import printable

    unsure = len("unsure: ") if columns.min_probability else 0
    width = min(30, unsure + max(map(len, columns.class_names)))
    for row in rows:
        if row["label"] is None:
            print(f"{'-':>7}  {'unreadable':{width}}  {printable(row['id'])}: {row['reason']}")
            continue
        others = "".join(
            f"  {row[f'probability_{place}']:7.2%} {_clipped(row[f'label_{place}'], width)}"
            for place in range(2, columns.top + 1)
            if row[f"label_{place}"] is not None
        )
        if columns.sets:
            others += f"  {{{', '.join(row['set'])}}}"
        marked = "  (unlike the training images)" if row["unlike"] else ""
        label = (
            row["label"] if row["label"] == row.get("likeliest", row["label"]) else f"unsure: {row['likeliest']}"
        )
        print(
            f"{row['probability']:7.2%}  {_clipped(label, width):{width}}{others}  {printable(row['id'])}{marked}"
        )


def told_of_predictions(counted: "Predicted") -> str:
    """All of them in one line."""
    most = ", ".join(f"{_clipped(label, 30)} ({count:,})" for label, count in counted.labels.most_common(5))
    parts = [f"{counted.images:,} {'image' if counted.images == 1 else 'images'}"]
    if most:
        parts[0] += f" by class: {most}" + (", …" if len(counted.labels) > 5 else "")
    if counted.unlike:
        parts.append(f"{counted.unlike:,} unlike the training images")
    if counted.unreadable:
        parts.append(f"{counted.unreadable:,} cannot be read")
    return "; ".join(parts)


def _clipped(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"


def print_check(checked: "Check") -> None:
    """Every finding in a line, with some of its images below, and where the report lies."""
    for finding in checked.findings:
        print(f"{finding['severity']:7} {finding['text']}")
        for group in finding["groups"][:3]:
            shown = (f"{each} ({told})" if (told := finding["remarks"].get(each)) else each for each in group[:4])
            print(f"        {'  '.join(shown)}{'  …' if len(group) > 4 else ''}")
        if (more := len(finding["groups"]) - 3) > 0:
            print(f"        and {more:,} more")
    if not checked.findings:
        print("no problems found")
    print(f"time: {time.monotonic() - _BEGAN:.1f} s in all")
    print(f"findings: {checked.path / 'check.json'}")
    print(f"report: {checked.report}")


def print_export(done: "Export") -> None:
    """Each file beside the trained network, and where they lie."""
    from foveate.exporting.proof import LOST_POINTS

    certificate = done.certificate
    if certificate.torch is None:
        print("unproved: nobody measured whether the file gives what the trained network gives")
    elif certificate.data is not None:
        print(f"on {certificate.data.images:,} {certificate.data.split} images of {certificate.data.name}:")
        print(f"torch: {_accuracy(certificate.torch)}")
    for file in certificate.files:
        if (found := file.measured) is not None:
            print(
                f"{file.name}: {_accuracy(found.score)}, same class for {found.equal_classes:.2%}, "
                f"largest difference of a logit {found.largest_difference.logits:.2g}"
            )
            if file.precision == "int8" and found.most_lost_points > LOST_POINTS:
                print(f"  so few images cannot exclude that {found.most_lost_points:.1f} points are lost")
    print(f"time: {time.monotonic() - _BEGAN:.1f} s in all")
    print(f"model: {done.model}")
    if done.web.exists():
        print(f"page: {done.web}")
    print(f"certificate: {done.page}")


def _accuracy(score: "Score") -> str:
    low, high = score.interval
    return f"accuracy {score.accuracy:.4f} ({low:.4f} to {high:.4f})"


_KINDS = {
    "images": "decoded images",
    "download": "download",
    "unfinished": "left by a process that was killed",
    "damaged": "damaged, or of an older version",
    "foreign": "not Foveate's",
}


def print_cache(found: "Sequence[Cached]") -> None:
    """A row for each thing that lies in the cache, and what all of it takes."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from foveate.records import printable

    if not found:
        print(f"the cache is empty: {cache_folder()}")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("data set", "what", "images", "side", "on disk", "last used", "from"):
        right = title in ("images", "side", "on disk")
        table.add_column(title, justify="right" if right else "left", overflow="fold")
    for each in sorted(found, key=lambda each: -each.used):
        cells = [
            printable(each.name or each.path.name),
            _KINDS[each.kind],
            f"{each.images:,}" if each.images else "–",
            f"{each.size}" if each.size else "–",
            _bytes(each.bytes_on_disk),
            _ago(time.time() - each.used),
            printable(each.location),
        ]
        table.add_row(*(Text(cell) for cell in cells))  # brackets are no markup
    Console(width=None if sys.stdout.isatty() else 140).print(table)
    print(f"{_bytes(sum(each.bytes_on_disk for each in found))} in {cache_folder()}")
    print("clear it: foveate cache --clear")


def print_cleared(cleared: "Cleared") -> None:
    """What was removed, and what was not."""
    from foveate.records import printable

    freed = _bytes(sum(each.bytes_on_disk for each in cleared.removed))
    print(f"{len(cleared.removed)} removed, {freed} freed, in {cache_folder()}")
    for each, reason in cleared.left:
        print(f"left: {printable(str(each.path))} ({reason})")


def print_serving(serving: "Serving") -> None:
    """Where the server is, and how to stop it."""
    print(f"serving {serving.name} at {serving.url} (Ctrl-C stops it)", flush=True)


def _bytes(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def _ago(seconds: float) -> str:
    """A time that has passed, in its largest unit; a clock that was set back makes none of it."""
    for unit, length in (("day", 86_400), ("hour", 3600), ("minute", 60)):
        if (count := int(seconds // length)) > 0:
            return f"{count} {unit}{'' if count == 1 else 's'} ago"
    return "just now"


def print_results(run: "Run | MeasuredModel", *, verbose: bool = False) -> None:
    """Accuracy with its 95 % interval, the worst class, and where the report lies; `verbose`: every metric."""
    for split, report in run.metrics.items():
        low, high = report["intervals"]["accuracy"]
        print(f"{split} accuracy: {report['accuracy']:.1%} ({low:.1%} to {high:.1%}) of {report['n']:,} images")
        recalls = {name: found for name, found in report["per_class"].items() if found["support"]}
        name, found = min(recalls.items(), key=lambda each: each[1]["recall"])
        print(f"worst class: {_clipped(name, 40)}, {found['recall']:.1%} of its {found['support']:,} images")
        if (corruptions := report.get("corruptions")) is not None:
            _print_corruptions(split, corruptions)
    if verbose:
        _print_metrics(run.metrics)
    print(f"time: {time.monotonic() - _BEGAN:.1f} s in all")
    print(f"report: {run.report}")


def _print_metrics(metrics: "Mapping[str, Any]") -> None:
    """The table of every metric, and what was measured of the same weights in other ways."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("Metric")
    for split, report in metrics.items():
        table.add_column(f"{split} (n = {report['n']:,})", justify="right")
        table.add_column("95 % interval", justify="right")
    for metric in next(iter(metrics.values()))["intervals"]:
        cells = [metric.replace("_", " ")]
        for report in metrics.values():
            low, high = report["intervals"][metric]
            cells += [f"{report[metric]:.4f}", f"{low:.4f} to {high:.4f}"]
        table.add_row(*cells)
    Console(width=None if sys.stdout.isatty() else 120).print(table)
    for split, report in metrics.items():
        for name, variant in report.get("variants", {}).items():
            low, high = variant["intervals"]["accuracy"]
            print(f"{split} accuracy, {name}: {variant['accuracy']:.4f} ({low:.4f} to {high:.4f})")
        if report.get("gate") is not None:
            print(f"gate of the attention: {report['gate']:+.4f}")
        if (calibration := report.get("calibration")) is not None:
            before, after = report["expected_calibration_error"], calibration["expected_calibration_error"]
            how = f"logits divided by {calibration['temperature']:.3f}"
            print(f"{split} calibration error, {how}: {after:.4f} (was {before:.4f})")


def _print_corruptions(split: str, corruptions: "Mapping[str, Any]") -> None:
    """Accuracy by kind and severity."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold", title_justify="left")
    severities = len(next(iter(corruptions["accuracy"].values())))
    for title in ("corruption", *(f"severity {number}" for number in range(1, severities + 1)), "mean"):
        table.add_column(title, justify="left" if title == "corruption" else "right")
    for kind, accuracies in corruptions["accuracy"].items():
        table.add_row(kind.replace("_", " "), *(f"{value:.4f}" for value in (*accuracies, mean(accuracies))))
    print(f"{split} accuracy of {corruptions['images']:,} images under corruptions:")
    Console(width=None if sys.stdout.isatty() else 120).print(table)
    print(f"mean: {corruptions['mean']:.4f}; as they are: {corruptions['clean']:.4f}")


class StudyLines(Lines):
    """Follows a study by plain lines: one for each job that ends."""

    @contextlib.contextmanager
    def following(self, search: "Search", workers: int) -> Iterator[None]:
        """Say before anything runs what it will take, and after the first trial how long."""
        from foveate.tuning.search import cost_of

        cost = cost_of(search.config)
        about = "" if search.config.algorithm == "hyperband" else "about "
        self.say(
            f"{search.config.algorithm}, {search.config.formula}: {about}{cost.trials} trials, {cost.jobs} jobs, "
            f"{cost.epochs} epochs on {workers} worker{'' if workers == 1 else 's'}"
            + (f"; {search.epochs_done} epochs done before" if search.epochs_done else "")
        )
        self._bound = 0
        yield

    def update(self, search: "Search", update: "Update") -> None:
        """A line for each job that ended, well or not."""
        if update.kind in ("begun", "epoch"):
            return
        job = update.job
        told = f"trial {job.trial:>3}  bracket {job.bracket}  rung {job.rung}  to epoch {job.to_epoch:>3}"
        if update.kind == "done":
            early = "  stopped early" if update.value["stopped"] else ""
            self.say(f"{told}  accuracy {update.value['score']:6.2%}{early}  {progress_of(search)}")
        elif update.kind == "failed":
            self.say(f"{told}  failed: {update.value['reason']}")
        else:
            self.say(f"{told}  begins again: {update.value['message']}")
        if update.kind == "done" and search.config.storage is None:
            bound = disk_bound(search)
            if bound > 1.2 * self._bound:
                self._bound = bound
                self.say(
                    f"checkpoints: {bound / 1e6:,.0f} MB at most, if none becomes larger than the largest so far"
                )


class StudyTable(StudyLines, Bars):
    """Follows a study by a table that is drawn anew: what runs, how far the rungs are, the best, the time left."""

    @contextlib.contextmanager
    def following(self, search: "Search", workers: int) -> Iterator[None]:
        """Draw it while the study runs."""
        from rich.live import Live

        self._epochs: dict[int, int] = {}
        with (
            super().following(search, workers),
            Live(
                get_renderable=lambda: self.draw(search),
                console=self.console,
                refresh_per_second=2,
                transient=True,
            ),
        ):
            yield

    def update(self, search: "Search", update: "Update") -> None:
        """Count epochs; print what ended above the table."""
        if update.kind == "epoch":
            self._epochs[update.job.trial] = update.value["epoch"]
        super().update(search, update)

    def draw(self, search: "Search") -> "RenderableType":
        """The table as it is now."""
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False, header_style="bold")
        for title in ("trial", "bracket", "rung", "epoch"):
            table.add_column(title, justify="right", no_wrap=True)
        table.add_column("settings")
        for job in list(search.running.values()):
            epoch = self._epochs.get(job.trial, job.from_epoch)
            settings = "  ".join(f"{name} {_short(value)}" for name, value in job.settings.items())
            cells = (job.trial, job.bracket, job.rung, f"{max(epoch, job.from_epoch)}/{job.to_epoch}")
            table.add_row(*map(str, cells), Text(settings, no_wrap=True, overflow="ellipsis"))
        return Group(table, Text(progress_of(search)))


def progress_of(search: "Search") -> str:
    """How far a study is: epochs, the time left at the pace so far, the best."""
    from foveate.tuning.search import cost_of

    total, done = cost_of(search.config).epochs, search.epochs_done
    left = timedelta(seconds=round(search.elapsed_s / done * max(0, total - done))) if done else "?"
    best = search.best
    told = "" if best is None or best.score is None else f"  best {best.score:.2%} (trial {best.number})"
    return f"{done}/{total} epochs  {left} left{told}"


def disk_bound(search: "Search") -> int:
    """Bytes that the checkpoints may take, if none becomes larger than the largest there is."""
    from foveate.tuning.search import cost_of

    sizes = []
    for file in (search.folder / "trials").rglob("*.safetensors"):
        with contextlib.suppress(FileNotFoundError):  # workers delete what they need no more
            sizes.append(file.stat().st_size)
    return (
        cost_of(search.config).trials
        * max(sizes, default=0)
        * (2 if search.config.semantics == "kerastuner" else 1)
    )


def print_study(study: "Study") -> None:
    """The winner, and the command that trains it."""
    with study.results.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    states = Counter(row["state"] for row in rows)
    print(f"{len(rows)} trials: {', '.join(f'{count} {state}' for state, count in states.items())}")
    print(f"time: {time.monotonic() - _BEGAN:.1f} s in all")
    print(f"results: {study.results}")
    print(f"report: {study.report}")
    if study.best.exists():
        print(study.best.read_text(encoding="utf-8").splitlines()[0].removeprefix("# "))
        print(f"train it on all images and open the test split: foveate train --from {study.path}")


def study_display() -> StudyLines:
    """A table on a terminal, plain lines elsewhere."""
    return StudyTable() if sys.stdout.isatty() else StudyLines()


class ComparisonLines(Lines):
    """Follows a comparison by plain lines: one for each run that ends."""

    @contextlib.contextmanager
    def following(self, experiment: "Experiment", split: "JudgedSplit", workers: int) -> Iterator[None]:
        """Say before anything runs what there is to do."""
        config, left = experiment.config, len(experiment.pending(split))
        doing = "opening the test split:" if split == "test" else "training"
        sizes = f" × {len(config.subsets)} sizes" if len(config.subsets) > 1 else ""
        done = sum(experiment.result(run, split) is not None for run in experiment.runs)
        before = f"; {done} done before" if done else ""
        self.say(
            f"{doing} {len(config.arms)} arms × {config.seeds} seed{'s' if config.seeds > 1 else ''}{sizes}, "
            f"{left} runs on {workers} worker{'' if workers == 1 else 's'}{before}"
        )
        if split == "validation":
            for arm in config.arms:
                control = f" (control of {', '.join(arm.matched)})" if arm.matched else ""
                self.say(f"  {arm.name}{control}")
        self._done, self._left, self._began = 0, left, time.monotonic()
        yield

    def update(self, experiment: "Experiment", update: "RunUpdate") -> None:
        """A line for each run that ended, well or not."""
        if update.kind in ("begun", "epoch"):
            return
        run = update.run
        subset = experiment.config.subsets[run.subset]
        images = "" if subset is None else f"  {subset:,} images"
        told = f"{experiment.config.arms[run.arm].name}  seed {run.seed}{images}"
        if update.kind == "again":
            self.say(f"{told}  begins again: {update.value['message']}")
            return
        self._done += 1
        pace = (time.monotonic() - self._began) / self._done
        left = timedelta(seconds=round(pace * (self._left - self._done)))
        if update.kind == "done":
            self.say(
                f"{told}  accuracy {update.value['accuracy']:.2%}  {self._done}/{self._left} runs, {left} left"
            )
        else:
            self.say(f"{told}  failed: {update.value['reason']}")


class ComparisonBars(ComparisonLines, Bars):
    """The same on a terminal, with what is running below."""

    @contextlib.contextmanager
    def following(self, experiment: "Experiment", split: "JudgedSplit", workers: int) -> Iterator[None]:
        """Draw it while the comparison runs."""
        from rich.live import Live

        self._running: dict[Any, int] = {}
        with (
            super().following(experiment, split, workers),
            Live(
                get_renderable=lambda: self.draw(experiment),
                console=self.console,
                refresh_per_second=2,
                transient=True,
            ),
        ):
            yield

    def update(self, experiment: "Experiment", update: "RunUpdate") -> None:
        """Count epochs; print what ended above."""
        if update.kind in ("begun", "epoch"):
            self._running[update.run] = update.value.get("epoch", 0)
        else:
            self._running.pop(update.run, None)
        super().update(experiment, update)

    def draw(self, experiment: "Experiment") -> "RenderableType":
        """What runs now."""
        from rich.text import Text

        arms = experiment.config.arms
        running = [
            f"{arms[run.arm].name}, seed {run.seed}" + (f", epoch {epoch} ended" if epoch else "")
            for run, epoch in list(self._running.items())
        ]
        return Text("\n".join([*running, f"{self._done}/{self._left} runs"]), overflow="ellipsis", no_wrap=True)


def comparison_display() -> ComparisonLines:
    """What runs on a terminal, plain lines elsewhere."""
    return ComparisonBars() if sys.stdout.isatty() else ComparisonLines()


def print_comparison(comparison: "Comparison") -> None:
    """The verdict of every pair, and where the report lies."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from foveate.report.verdicts import verdict_in_words

    split, experiment = comparison.split, comparison.experiment
    config = experiment.config
    arms = config.arms
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("arm", "accuracy %", "sd", "without attention", "parameters", "ms an image", "seeds"):
        table.add_column(title, justify="left" if title == "arm" else "right", overflow="fold")

    def named(arm: int, subset: int | None) -> str:
        return arms[arm].name + (f", {subset:,} images" if subset is not None else "")

    for each in experiment.summaries(split):
        values = [100 * value for value in each.accuracies]
        cells = [
            f"{mean(values):.2f}" if values else "–",
            f"{stdev(values):.2f}" if len(values) > 1 else "–",
            f"{100 * each.without_attention:.2f}" if each.without_attention is not None else "–",
            f"{each.cost.parameters:,}",
            f"{each.ms_per_image:.3f}" if each.ms_per_image is not None else "–",
            str(len(each.seeds)),
        ]
        table.add_row(Text(named(each.arm, each.subset)), *cells)  # brackets are no markup
    Console(width=None if sys.stdout.isatty() else 140).print(table)
    for run, reason in experiment.failures(split).items():
        print(f"failed and left out: {named(run.arm, config.subsets[run.subset])}, seed {run.seed}: {reason}")
    print(f"on the {split} images, differences in points [interval over seeds, all together at ", end="")
    print(f"{100 * (1 - config.alpha):g} %]:")
    wanted = {"seeds_wanted": config.seeds, "next_seed": config.first_seed + config.seeds}
    for finding in experiment.findings(split):
        size = f" ({finding.subset:,} images)" if finding.subset is not None else ""
        print(f"{arms[finding.pair.arm].name} less {arms[finding.pair.other].name}{size}:")
        interval = finding.verdict.interval if finding.verdict else None
        bounds = f" [{100 * interval[0]:+.2f}, {100 * interval[1]:+.2f}]" if interval else ""
        words = verdict_in_words(finding, **wanted)
        print(f"  {words}{bounds}")
    print(f"time: {time.monotonic() - _BEGAN:.1f} s in all")
    print(f"report: {comparison.report}")


def print_plan(comparison: "Comparison") -> None:
    """By the spread of a pilot's differences, how many seeds would see δ."""
    from foveate.report.verdicts import plan_in_words, spread_in_words

    experiment = comparison.experiment
    arms, delta = experiment.config.arms, experiment.config.delta
    print(f"seeds at which a true difference of {100 * delta:g} points would be seen in 80% of comparisons:")
    for finding in experiment.findings(comparison.split):
        size = f" ({finding.subset:,} images)" if finding.subset is not None else ""
        names = f"{arms[finding.pair.arm].name} less {arms[finding.pair.other].name}{size}"
        print(f"  {names}: {plan_in_words(finding)}")
    print(spread_in_words(experiment.config.seeds))
    print(f"report: {comparison.report}")


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value).replace(" ", "")

"""What a person sees on a terminal: progress while the work goes on, tables at its end."""

import csv
import sys
import time
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any, TypeVar

from foveate.files import cache_folder
from foveate.progress import Track, untracked

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import RenderableType

    from foveate.execution.campaign import Campaign
    from foveate.execution.pool import Event
    from foveate.exporting.proof import Score
    from foveate.inference.faithfulness import Verdict
    from foveate.inference.tables import Columns, Row
    from foveate.training.loop import EpochResult
    from foveate.workflows.cache import Cached, Cleared
    from foveate.workflows.check import Check
    from foveate.workflows.comparison import Comparison
    from foveate.workflows.export import Export
    from foveate.workflows.measure import MeasuredModel
    from foveate.workflows.predict import Predicted
    from foveate.workflows.run import Run
    from foveate.workflows.serve import Serving
    from foveate.workflows.study import Study

T = TypeVar("T")
_BEGAN = time.monotonic()


class PlainDisplay:
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

    def follow(
        self, events: "Iterable[Event | None]", campaign: "Campaign", workers: int
    ) -> "Generator[Event | None, None, None]":
        """Print what there is to do, and then a line for each job that ends."""
        for line in campaign.announcement(workers):
            self.say(line)
        for event in events:
            if event is not None and event.kind in ("done", "failed", "lost"):
                for line in campaign.lines(event):
                    self.say(line)
            yield event


class RichDisplay(PlainDisplay):
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

    def follow(
        self, events: "Iterable[Event | None]", campaign: "Campaign", workers: int
    ) -> "Generator[Event | None, None, None]":
        """The same, above a table of the jobs that are running."""
        from rich.live import Live

        rows: dict[int, tuple[str, ...]] = {}
        with Live(
            get_renderable=lambda: self.draw(campaign, list(rows.values())),
            console=self.console,
            refresh_per_second=2,
            transient=True,
        ):
            for event in super().follow(events, campaign, workers):
                if event is not None and event.kind in ("begun", "progress"):
                    rows[event.job] = campaign.row(event.job, event.value.get("epoch", 0))
                elif event is not None:
                    rows.pop(event.job, None)
                yield event

    @staticmethod
    def draw(campaign: "Campaign", rows: "Sequence[tuple[str, ...]]") -> "RenderableType":
        """The table as it is now, and how far the campaign is."""
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False, header_style="bold")
        *narrow, wide = campaign.columns
        for title in narrow:
            table.add_column(title, justify="right", no_wrap=True)
        table.add_column(wide)
        for *cells, last in rows:
            table.add_row(*cells, Text(last, no_wrap=True, overflow="ellipsis"))
        return Group(table, Text(campaign.progress()))


def display() -> PlainDisplay:
    """A bar on a terminal, plain lines elsewhere."""
    return RichDisplay() if sys.stdout.isatty() else PlainDisplay()


class MessageDisplay(RichDisplay):
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
    from foveate.records import printable

    if not found:
        print(f"the cache is empty: {cache_folder()}")
        return
    rows = [
        [
            printable(each.name or each.path.name),
            _KINDS[each.kind],
            f"{each.images:,}" if each.images else "–",
            f"{each.size}" if each.size else "–",
            _bytes(each.bytes_on_disk),
            _ago(time.time() - each.used),
            printable(each.location),
        ]
        for each in sorted(found, key=lambda each: -each.used)
    ]
    titles = ("data set", "what", "images", "side", "on disk", "last used", "from")
    _print_table(titles, rows, left=("data set", "what", "last used", "from"))
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
    titles, rows = ["Metric"], []
    for split, report in metrics.items():
        titles += [f"{split} (n = {report['n']:,})", "95 % interval"]
    for metric in next(iter(metrics.values()))["intervals"]:
        rows.append([metric.replace("_", " ")])
        for report in metrics.values():
            low, high = report["intervals"][metric]
            rows[-1] += [f"{report[metric]:.4f}", f"{low:.4f} to {high:.4f}"]
    _print_table(titles, rows, left=("Metric",), width=120)
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
    severities = range(1, 1 + len(next(iter(corruptions["accuracy"].values()))))
    rows = [
        [kind.replace("_", " "), *(f"{value:.4f}" for value in (*accuracies, mean(accuracies)))]
        for kind, accuracies in corruptions["accuracy"].items()
    ]
    print(f"{split} accuracy of {corruptions['images']:,} images under corruptions:")
    titles = ("corruption", *(f"severity {number}" for number in severities), "mean")
    _print_table(titles, rows, left=("corruption",), width=120)
    print(f"mean: {corruptions['mean']:.4f}; as they are: {corruptions['clean']:.4f}")


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


def print_comparison(comparison: "Comparison") -> None:
    """The verdict of every pair, and where the report lies."""
    from foveate.comparison.outcomes import arm_summaries

    experiment, config = comparison.experiment, comparison.config
    rows = []
    for each in arm_summaries(experiment):
        values = [100 * value for value in each.accuracies]
        rows.append(
            [
                _of_size(config.arms[each.arm].name, each.subset),
                f"{mean(values):.2f}" if values else "–",
                f"{stdev(values):.2f}" if len(values) > 1 else "–",
                f"{100 * each.without_attention:.2f}" if each.without_attention is not None else "–",
                f"{each.cost.parameters:,}",
                f"{each.ms_per_image:.3f}" if each.ms_per_image is not None else "–",
                str(len(each.seeds)),
            ]
        )
    titles = ("arm", "accuracy %", "sd", "without attention", "parameters", "ms an image", "seeds")
    _print_table(titles, rows, left=("arm",))
    for run, reason in experiment.failures().items():
        arm = _of_size(config.arms[run.arm].name, config.subsets[run.subset])
        print(f"failed and left out: {arm}, seed {run.seed}: {reason}")
    print(
        f"on the {comparison.split} images, differences in points [interval over seeds, all together at ", end=""
    )
    print(f"{100 * (1 - config.alpha):g} %]:")
    for finding in comparison.findings:
        interval = finding.verdict.interval if finding.verdict else None
        bounds = f" [{100 * interval[0]:+.2f}, {100 * interval[1]:+.2f}]" if interval else ""
        print(f"{finding.title}:\n  {finding.words}{bounds}")
    _print_report(comparison.report)


def print_plan(comparison: "Comparison") -> None:
    """By the spread of a pilot's differences, how many seeds would see δ."""
    from foveate.comparison.outcomes import spread_words

    config = comparison.config
    print(
        f"seeds at which a true difference of {100 * config.delta:g} points would be seen in 80% of comparisons:"
    )
    for finding in comparison.findings:
        print(f"  {finding.title}: {finding.plan}")
    print(spread_words(config.seeds))
    print(f"report: {comparison.report}")


def _of_size(arm: str, subset: int | None) -> str:
    return arm if subset is None else f"{arm}, {subset:,} images"


def _print_report(page: "Path") -> None:
    print(f"time: {time.monotonic() - _BEGAN:.1f} s in all")
    print(f"report: {page}")


def _print_table(
    titles: "Sequence[str]", rows: "Iterable[Sequence[str]]", *, left: "Sequence[str]", width: int = 140
) -> None:
    """A table as wide as the terminal, or as `width` elsewhere; numbers stand at the right."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in titles:
        table.add_column(title, justify="left" if title in left else "right", overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))  # brackets in a name are no markup
    Console(width=None if sys.stdout.isatty() else width).print(table)

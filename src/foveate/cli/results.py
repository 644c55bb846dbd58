"""What the commands print at their end: the results of a run, a comparison, predictions, the cache."""

from collections.abc import Mapping, Sequence
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any

from foveate.counts import plural
from foveate.terminal import print_lines, print_table

if TYPE_CHECKING:
    from foveate.workflows.cache import Cached
    from foveate.workflows.comparison import Comparison
    from foveate.workflows.evaluate import MeasuredModel
    from foveate.workflows.predict import Predicted
    from foveate.workflows.run import Run

_MOST_RECALLS = 10
"""Classes whose recall is printed."""


def told_of_predictions(counted: "Predicted") -> str:
    """All of them in one line."""
    from foveate.inference.tables import shortened

    most = ", ".join(f"{shortened(label, 30)} ({count:,})" for label, count in counted.labels.most_common(5))
    parts = [plural(counted.images, "image")]
    if most:
        parts[0] += f" by class: {most}" + (", …" if len(counted.labels) > 5 else "")
    if counted.unlike:
        parts.append(f"{counted.unlike:,} unlike the training images")
    if counted.unreadable:
        parts.append(f"{counted.unreadable:,} cannot be read")
    return "; ".join(parts)


def print_comparison(comparison: "Comparison") -> None:
    """The table of arms and the verdict of every pair; of a pilot, how many seeds it takes."""
    from foveate.comparison.outcomes import arm_words, plan_lines, verdict_lines

    outcome = comparison.outcome
    if outcome.config.pilot:
        print_lines(plan_lines(outcome), report=comparison.report)
        return
    titles = ("Accuracy", "Attention ablated", "Parameters", "ms per image", "Seeds")
    rows = [
        [arm_words(outcome.config.arms[each.arm].name, each.subset), *(each.cells[title] for title in titles)]
        for each in outcome.summaries
    ]
    print_table(("Arm", *titles), rows, left=("Arm",))
    print_lines(verdict_lines(outcome), report=comparison.report)


def print_cache(found: "Sequence[Cached]") -> None:
    """A row for each thing that lies in the cache, and what all of it takes."""
    from foveate.files import cache_folder
    from foveate.workflows.cache import TITLES, bytes_words

    if not found:
        print(f"the cache is empty: {cache_folder()}")
        return
    rows = [each.cells for each in sorted(found, key=lambda each: -each.used)]
    print_table(TITLES, rows, left=("data set", "what", "last used", "from"))
    print(f"{bytes_words(sum(each.bytes_on_disk for each in found))} in {cache_folder()}")
    print("clear it: foveate cache --clear")


def print_results(run: "Run | MeasuredModel", *, verbose: bool = False) -> None:
    """Accuracy with its 95 % interval, the worst class, what to try next after a run, and where the report lies.

    Where classes are uneven, the recall of each comes first. Of several processes that trained it the first alone
    says so.

    Args:
        verbose: every metric too.
    """
    from foveate.confidence import too_few_told
    from foveate.data.folds import OUT_OF_FOLD
    from foveate.execution.devices import is_first
    from foveate.inference.tables import shortened
    from foveate.report.caveats import few_images_told

    if not is_first():
        return
    other = getattr(run, "on_other_data", True)  # more of such images would not change the network
    for split, report in run.metrics.items():
        _print_uneven(split, report, balanced=getattr(run, "counts_evenly", False))
        low, high = report["intervals"]["accuracy"]
        spread = ""
        if folds := [each["accuracy"] for each in report.get("folds", ())]:
            spread = f"; {len(folds)} folds: {min(folds):.1%} to {max(folds):.1%}, standard deviation "
            spread += f"{100 * stdev(folds):.1f} points"
        measured = f"{report['accuracy']:.1%} ({low:.1%} to {high:.1%}) of {plural(report['n'], 'image')}"
        print(f"{split} accuracy: {measured}{spread}")
        recalls = {name: found for name, found in report["per_class"].items() if found["support"]}
        if (line := few_images_told(split, report["n"], (low, high), report.get("most_folds", 0))) is not None:
            print(line)
        name, found = min(recalls.items(), key=lambda each: each[1]["recall"])
        if found["recall"] == max(each["recall"] for each in recalls.values()):
            print(f"every class: {found['recall']:.1%} of its images are right")
        else:
            own = plural(found["support"], "image")
            print(f"worst class: {shortened(name, 40)}, {found['recall']:.1%} of its {own}")
        fitted_on = not other and split in ("validation", OUT_OF_FOLD) and report.get("calibration") is None
        if fitted_on and (line := too_few_told(report["n"])) is not None:
            print(line)
        if (corruptions := report.get("corruptions")) is not None:
            _print_corruptions(split, corruptions)
    if next_step := getattr(run, "next_step", None):
        print(f"next: {next_step}")
    if verbose:
        _print_metrics(run.metrics)
    print_lines((), report=run.report)


def _print_uneven(split: str, report: "Mapping[str, Any]", *, balanced: bool) -> None:
    """The recall of every class, the lowest first, where their numbers of images differ much."""
    from foveate.inference.tables import shortened
    from foveate.report.caveats import uneven_told

    classes = {name: found for name, found in report["per_class"].items() if found["support"]}
    line = uneven_told({name: found["support"] for name, found in classes.items()}, balanced=balanced)
    if line is None:
        return
    print(line)
    ranked = sorted(classes.items(), key=lambda each: each[1]["recall"])
    for name, found in ranked[:_MOST_RECALLS]:
        low, high = found["intervals"]["recall"]
        recall = f"{found['recall']:.1%} ({low:.1%} to {high:.1%}) of its {plural(found['support'], 'image')}"
        print(f"  recall of {shortened(name, 40)}: {recall}")
    if (more := len(ranked) - _MOST_RECALLS) > 0:
        print(f"  and {more:,} classes with a higher recall: the report has all of them")
    if (balanced_accuracy := report.get("balanced_accuracy")) is not None:  # earlier versions did not measure it
        low, high = report["intervals"]["balanced_accuracy"]
        print(f"{split} balanced accuracy (mean recall): {balanced_accuracy:.1%} ({low:.1%} to {high:.1%})")


def _print_metrics(metrics: "Mapping[str, Any]") -> None:
    """The table of every metric, and what was measured of the same weights in other ways."""
    from foveate.report.caveats import undefined

    titles, rows = ["Metric"], []
    for split, report in metrics.items():
        titles += [f"{split} (n = {report['n']:,})", "95 % interval"]
    for metric in dict.fromkeys(name for report in metrics.values() for name in report["intervals"]):
        rows.append([metric.replace("_", " ")])
        for report in metrics.values():
            if metric not in report["intervals"]:
                rows[-1] += ["–", "not measured"]  # by an earlier version
                continue
            low, high = report["intervals"][metric]
            none = undefined(metric, report[metric], (low, high))
            rows[-1] += (
                ["–", "no score above 0.5"] if none else [f"{report[metric]:.4f}", f"{low:.4f} to {high:.4f}"]
            )
    print_table(titles, rows, left=("Metric",), width=120)
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
    print_table(titles, rows, left=("corruption",), width=120)
    print(f"mean: {corruptions['mean']:.4f}; as they are: {corruptions['clean']:.4f}")

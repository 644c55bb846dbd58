"""Everything a comparison's page shows, as plain data, to one HTML file that loads nothing from anywhere."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from matplotlib.figure import Figure

from foveate.report import comparison_plots
from foveate.report.html import flat, render_template, write_page

__all__ = ["ComparisonPage", "plan_in_words", "spread_in_words", "verdict_in_words", "write_comparison_report"]


@dataclass(frozen=True, kw_only=True)
class ComparisonPage:
    """A comparison as its page shows it."""

    title: str
    split: str
    arms: Sequence[Mapping[str, Any]]
    """With `name`, `label`, `matched`, `subset`, `seeds`, `accuracies`, `without_attention`, `gates`, `cost`
    and `ms_per_image`; the first is the reference."""
    findings: Sequence[Mapping[str, Any]]
    """With `arm`, `other`, their `labels`, `subset`, `seeds`, `seeds_wanted`, `next_seed`, `difference`, `verdict`
    and `seeds_needed`."""
    failed: Sequence[tuple[str, int, int | None, str]]
    """Runs without a result: arm, seed, training images and why."""
    settings: Mapping[str, Any]
    environment: Mapping[str, Any]
    test: str
    """The command that opens the test split."""
    spread: tuple[float, float] | None = None
    """Of a pilot: how many times that of its seeds the true spread may be."""

    @property
    def subtitle(self) -> str:
        """What is compared."""
        seeds, images = self.settings["seeds"], f"{self.split} images of {Path(self.settings['data']).name}"
        sizes = [f"{size:,}" if size else "all" for size in self.settings["subsets"]]
        trained = "" if sizes == ["all"] else f", trained on {' and '.join(sizes)} images"
        counted = f"{seeds} seed{'s' if seeds > 1 else ''}"
        return f"Against {self.arms[0]['name']}, {counted}{trained}, judged on the {images}"


def verdict_in_words(finding: Mapping[str, Any]) -> str:
    """One sentence."""
    verdict, difference = finding["verdict"], finding["difference"]
    if verdict is None:
        return "No seed has a result of both."
    points = f"{100 * difference['mean']:+.2f} points"
    if (count := len(finding["seeds"])) < finding["seeds_wanted"]:
        points += f" over the {count} of {finding['seeds_wanted']} seeds in which both came to an end"
    if difference["alike"]:
        points += ", both right on the same images in every seed: what differs may have no effect"
    if verdict["interval"] is None:
        return f"Cannot tell: {points}, of one seed, which has no interval."
    delta = f"{100 * verdict['delta']:g} points"
    if verdict["answer"] == "no difference":
        return f"No difference larger than {delta} ({points})."
    if verdict["answer"] == "cannot tell":
        if verdict["seeds"] is None:
            return f"Cannot tell: {points}; not even thousands of seeds would."
        return (
            f"Cannot tell: {points}; about {verdict['seeds']:,} new seeds would, "
            f"in a comparison of their own (--first-seed {finding['next_seed']})."
        )
    return f"{verdict['answer'].capitalize()}: {points}."


def plan_in_words(finding: Mapping[str, Any]) -> str:
    """How many seeds a comparison of a pilot's pair takes."""
    difference, needed = finding["difference"], finding["seeds_needed"]
    if difference is None or difference["sd"] is None:
        return "unknown, it takes two seeds of both at least"
    told = "not even thousands" if needed is None else f"{needed:,}"
    return f"{told} ({len(finding['seeds'])} pilot seeds spread by {100 * difference['sd']:.2f} points)"


def spread_in_words(seeds: int, times: tuple[float, float]) -> str:
    """How well a pilot of so many seeds knows their spread, which truly is so many times as large."""
    low, high = times
    return (
        f"the true spread is {low:.2g} to {high:.2g} times that of {seeds} seeds: take more where they are cheap"
    )


def write_comparison_report(page: ComparisonPage, folder: Path) -> Path:
    """Write compare.html and its plots as PNG into `folder`, which exists; returns the page's path.

    Raises:
        OutputError: when a file cannot be written.
    """
    figures = _figures(page)
    rows = [
        {**arm, "mean": mean(arm["accuracies"]), "sd": stdev(arm["accuracies"]) if len(arm["seeds"]) > 1 else None}
        if arm["accuracies"]
        else {**arm, "mean": None, "sd": None}
        for arm in page.arms
    ]
    html = render_template(
        "compare.html",
        figures,
        page=page,
        arms=rows,
        findings=[
            {**finding, "words": verdict_in_words(finding), "plan": plan_in_words(finding)}
            for finding in page.findings
        ],
        spread=spread_in_words(page.settings["seeds"], page.spread) if page.spread else None,
        settings=flat(page.settings),
        environment=flat(page.environment),
    )
    return write_page(folder / "compare.html", html, figures)


def _figures(page: ComparisonPage) -> dict[str, Figure]:
    """By the name of their PNG."""
    figures: dict[str, Figure] = {}
    told = [finding for finding in page.findings if finding["difference"] is not None]
    if told:
        figures["differences"] = comparison_plots.differences(told, page.settings["delta"])
    if ended := [arm for arm in page.arms if arm["accuracies"]]:
        figures["accuracies"] = comparison_plots.accuracies(ended)
    if len(page.settings["subsets"]) > 1 and told:
        figures["data_size"] = comparison_plots.over_data_size(told, page.settings["delta"])
    return figures

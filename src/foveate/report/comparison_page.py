"""Everything a comparison's page shows, as plain data, to one HTML file that loads nothing from anywhere."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from matplotlib.figure import Figure

from foveate.report import comparison_plots
from foveate.report.html import flat, render_template, write_page

__all__ = ["ComparisonPage", "write_comparison_report"]


@dataclass(frozen=True, kw_only=True)
class ComparisonPage:
    """A comparison as its page shows it."""

    title: str
    split: str
    arms: Sequence[Mapping[str, Any]]
    """With `name`, `label`, `matched`, `subset`, `seeds`, `accuracies`, `without_attention`, `gates`, `cost`
    and `ms_per_image`; the first is the reference."""
    findings: Sequence[Mapping[str, Any]]
    """With `arm`, `other`, their `labels`, `subset`, `seeds`, `difference` and `verdict`; `words`: the verdict in
    one sentence; `plan`: how many seeds it takes."""
    failed: Sequence[tuple[str, int, int | None, str]]
    """Runs without a result: arm, seed, training images and why."""
    settings: Mapping[str, Any]
    environment: Mapping[str, Any]
    test: str
    """The command that opens the test split."""
    spread: str | None = None
    """Of a pilot: how well it knows by how much seeds differ."""

    @property
    def subtitle(self) -> str:
        """What is compared."""
        seeds, images = self.settings["seeds"], f"{self.split} images of {Path(self.settings['data']).name}"
        sizes = [f"{size:,}" if size else "all" for size in self.settings["subsets"]]
        trained = "" if sizes == ["all"] else f", trained on {' and '.join(sizes)} images"
        counted = f"{seeds} seed{'s' if seeds > 1 else ''}"
        return f"Against {self.arms[0]['name']}, {counted}{trained}, judged on the {images}"


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
        findings=page.findings,
        spread=page.spread,
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

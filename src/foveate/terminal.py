"""How work is shown on a terminal: its progress, and lines and tables at its end."""

import sys
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, TextIO, TypeVar, cast

from foveate.durations import left
from foveate.progress import Track, untracked
from foveate.streams import Lasting

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import RenderableType

    from foveate.execution.campaign import Campaign
    from foveate.execution.pool import Event
    from foveate.training.state import EpochResult

T = TypeVar("T")
_BEGAN = time.monotonic()
"""When the command began: this module is imported first."""


class PlainDisplay:
    """Shows the work by plain lines, for logs and pipes: no bar, one line per epoch. A reader may go away."""

    track: "Track" = staticmethod(untracked)

    def __init__(self, file: TextIO) -> None:
        self.file = cast("TextIO", Lasting(file))

    def say(self, line: str) -> None:
        """Print a separate line."""
        print(line, file=self.file, flush=True)

    def epoch(self, result: "EpochResult", *, epochs: int, best: bool) -> None:
        """Print what the epoch gave and how long the rest will take."""
        parts = [
            f"epoch {result.epoch:>{len(str(epochs))}}/{epochs}",
            f"loss {result.train_loss:.4f}",
            f"accuracy {result.train_accuracy:6.2%}",
        ]
        if result.val_loss is not None and result.val_accuracy is not None:
            parts += [f"val loss {result.val_loss:.4f}", f"val accuracy {result.val_accuracy:6.2%}"]
        kept = " (features kept from before)" if result.features_kept else ""
        parts += [f"{result.images_per_s:,.0f} images/s{kept}", left((epochs - result.epoch) * result.seconds)]
        self.say("  ".join(filter(None, [*parts, "best" if best else ""])))

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
    """Shows the work by a bar with images/s and the time left, and prints each epoch's line above it."""

    def __init__(self, file: TextIO) -> None:
        from rich.console import Console

        super().__init__(file)
        self.console = Console(file=self.file, highlight=False)
        self.track = self._track

    def say(self, line: str) -> None:
        """Print a separate line, above whatever is drawn anew."""
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


def display(file: TextIO | None = None) -> PlainDisplay:
    """A bar on a terminal, plain lines elsewhere; on standard output, or on another file."""
    file = file or sys.stdout
    return RichDisplay(file) if file.isatty() else PlainDisplay(file)


def print_lines(lines: Iterable[str], **places: "Path") -> None:
    """What came of the work, how long the command took, and under their names where things lie."""
    for line in lines:
        print(line)
    print(f"time: {time.monotonic() - _BEGAN:.1f} s in all")
    for name, place in places.items():
        print(f"{name}: {place}")


def print_table(
    titles: Sequence[str], rows: Iterable[Sequence[str]], *, left: Sequence[str], width: int = 140
) -> None:
    """A table as wide as the terminal, or as `width` elsewhere; columns but those named in `left` hold numbers."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in titles:
        table.add_column(title, justify="left" if title in left else "right", overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))  # brackets in a name are no markup
    Console(width=None if sys.stdout.isatty() else width).print(table)

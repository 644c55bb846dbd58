"""What lies beside the Parquet files that are read, or should: files of a series, images, unfinished downloads."""

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path

from foveate.counts import plural
from foveate.data.folder import IMAGE_SUFFIXES
from foveate.data.source import listed
from foveate.records import printable

_NUMBERED = re.compile(r"(.*-)(\d+)-of-(\d{1,5})(.*)", re.DOTALL)


def passed_over(shards: Sequence[Path], beside: Iterable[Path], named: Collection[str]) -> Iterator[str]:
    """Notes on files of a series, as `train-00000-of-00003.parquet`, that are missing, and on what is not read.

    Args:
        beside: the other files of the folder.
        named: those of them that rows name as their images.
    """
    series: dict[tuple[Path, str, str, str], dict[int, int]] = {}
    for path in shards:
        if numbered := _NUMBERED.fullmatch(path.name):
            begin, number, total, end = numbered.groups()
            series.setdefault((path.parent, begin, total, end), {})[int(number)] = len(number)
    for (_, begin, total, end), there in sorted(series.items()):
        if missing := [number for number in range(int(total)) if number not in there]:
            width = max(there.values())
            names = [f"{begin}{number:0{width}}-of-{total}{end}" for number in missing]
            yield f"the Parquet files are not complete: {listed(list(map(printable, names)), 3)} missing"
    left = sorted(
        path.name
        for path in beside
        if (path.suffix.lower() in IMAGE_SUFFIXES or path.suffix == ".incomplete") and str(path) not in named
    )
    if left:
        were = "was" if len(left) == 1 else "were"
        yield f"{plural(len(left), 'file')} beside the Parquet files {were} left out: {listed(left, 5)}"

"""Times as people write and read them: `5m`, `90s`, `1h30m`."""

import math
import re
from datetime import timedelta

from foveate.errors import ConfigError


def seconds(text: str) -> float:
    """The seconds that `90s`, `30m`, `1.5h` or `1h30m` is.

    Raises:
        ConfigError: for anything else, and for nothing; a number alone may mean minutes or seconds.
    """
    number = r"(\d+(?:\.\d*)?)"
    if re.fullmatch(number, text.strip()):
        number = text.strip()
        raise ConfigError(
            f"--time {number}: give its unit too, as in {number}m for minutes or {number}s for seconds"
        )
    parts = re.fullmatch(f"(?:{number}h)?(?:{number}m)?(?:{number}s?)?", text.strip())
    hours, minutes, rest = (float(part or 0) for part in parts.groups()) if parts else (0.0, 0.0, 0.0)
    found = 3600 * hours + 60 * minutes + rest
    if not found > 0:
        raise ConfigError(f"--time {text}: give a time such as 90s, 30m, 1h or 1h30m")
    return found


def told(duration_s: float) -> str:
    """About how long that is, to be read: `40 s`, `11 min`, `2.5 h`."""
    if duration_s < 90:
        return f"{max(1, round(duration_s))} s"
    if duration_s < 90 * 60:
        return f"{duration_s / 60:.0f} min"
    return f"{duration_s / 3600:.1f} h"


def left(duration_s: float) -> str:
    """The time that is left, as a line of progress has it: `0:07:00 left`; empty where less than a second is."""
    whole = round(duration_s)
    return f"{timedelta(seconds=whole)} left" if whole > 0 else ""


def written(duration_s: float) -> str:
    """That time at least, as `seconds` reads it: `40s`, `11m`, `3h`."""
    for unit, length in (("h", 3600), ("m", 60)):
        if duration_s > 1.5 * length:
            return f"{math.ceil(duration_s / length)}{unit}"
    return f"{max(1, math.ceil(duration_s))}s"

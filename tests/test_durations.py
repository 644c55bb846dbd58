"""Times as people write and read them."""

import pytest

from foveate.durations import left, seconds, told, written
from foveate.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90s", 90),
        ("5m", 300),
        ("1h", 3600),
        ("1.5h", 5400),
        ("1h30m", 5400),
        ("1m30s", 90),
        ("1m30", 90),
        (" 2m ", 120),
    ],
)
def test_times_are_read(text: str, expected: float) -> None:
    assert seconds(text) == expected


@pytest.mark.parametrize("text", ["45", " 5 ", "0", "1.5"])
def test_a_number_alone_is_asked_for_its_unit(text: str) -> None:
    with pytest.raises(
        ConfigError, match=f"give its unit too, as in {text.strip()}m for minutes or {text.strip()}s"
    ):
        seconds(text)


@pytest.mark.parametrize("text", ["", "0m", "5 minutes", "-3m", "m", "1s2h", "nan", "1e3s", "5d"])
def test_what_is_no_time_is_refused_with_examples(text: str) -> None:
    with pytest.raises(ConfigError, match="give a time such as 90s, 30m, 1h or 1h30m"):
        seconds(text)


@pytest.mark.parametrize(
    ("duration_s", "expected"), [(0.2, "1 s"), (89, "89 s"), (270, "4 min"), (660, "11 min"), (9000, "2.5 h")]
)
def test_times_are_told_in_the_unit_that_fits(duration_s: float, expected: str) -> None:
    assert told(duration_s) == expected


@pytest.mark.parametrize(
    ("duration_s", "expected"), [(0.0, "1s"), (12.1, "13s"), (90, "90s"), (91, "2m"), (301, "6m"), (5401, "2h")]
)
def test_times_are_written_as_they_are_read_and_never_shorter(duration_s: float, expected: str) -> None:
    assert written(duration_s) == expected
    assert seconds(expected) >= duration_s


@pytest.mark.parametrize(("duration_s", "line"), [(420, "0:07:00 left"), (0.6, "0:00:01 left"), (0.4, "")])
def test_what_is_left_is_told_from_a_second_on(duration_s: float, line: str) -> None:
    assert left(duration_s) == line

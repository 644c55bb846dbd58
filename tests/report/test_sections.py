"""Texts of a page: where their lines may end, and which parts of them are commands."""

import pytest
from markupsafe import Markup

from foveate.report.sections import breakable, isolated, prose, small


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("attention=none", "attention=none"),
        ("minute,attention=none", "minute,<wbr>attention=none"),
        ("of 1,234,567 images 0.125", "of 1,234,567 images 0.125"),
        ("runs/train/<b>/x", "runs/<wbr>train/&lt;b&gt;/x"),
        ("", ""),
        ("photographs/of/animals.jpg", "photographs/<wbr>of/<wbr>animals.<wbr>jpg"),
        ("a_name_that_is_longer_than_24=x", "a_<wbr>name_<wbr>that_<wbr>is_<wbr>longer_<wbr>than_<wbr>24=<wbr>x"),
        ("LuongRowAttention2d", "Luong<wbr>Row<wbr>Attention2d"),
        ("2026-11-27T06:13:20+00:00", "2026-11-27T<wbr>06:13:20+00:00"),
        ("f" * 40, "f" * 16 + "<wbr>" + "f" * 16 + "<wbr>" + "f" * 8),
        ("words that are short need no more than spaces", "words that are short need no more than spaces"),
        (Markup("<b>made,elsewhere,by,others</b>"), "<b>made,elsewhere,by,others</b>"),
    ],
)
def test_a_line_ends_after_signs_and_never_within_a_short_word(text: str, told: str) -> None:
    assert breakable(text) == told


def test_commands_of_messages_are_code_and_class_names_stay_as_they_are() -> None:
    assert prose("run `foveate tune --resume <x>`.") == "run <code>foveate tune --resume &lt;x&gt;</code>."
    assert prose("classes x`y`z and `") == "classes x`y`z and `"
    assert (
        small("failed", "remove `storage`, <b>") == "failed<small>remove <code>storage</code>, &lt;b&gt;</small>"
    )


def test_a_name_from_right_to_left_is_isolated() -> None:
    assert isolated("قط <b>") == "<bdi>قط &lt;b&gt;</bdi>"

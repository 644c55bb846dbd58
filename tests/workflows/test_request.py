"""What every command has: the command line that does the same."""

import shlex

from hypothesis import given
from hypothesis import strategies as st

from foveate.cli.options import given_settings
from foveate.workflows.request import command_line

NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.none() | st.booleans() | NUMBERS | st.text() | st.text("\n\r\x85\u2028 01e.:'\"")


@given(lr=VALUES, device=VALUES)
def test_a_recorded_command_gives_the_same_settings_again(lr: object, device: object) -> None:
    settings = {"lr": lr, "device": device}
    words = shlex.split(command_line("train", "a folder", settings=settings))
    assert words[:3] == ["foveate", "train", "a folder"]
    assert words[3::2] == ["--set", "--set"]
    assert given_settings(words[4::2]) == settings


def test_a_text_is_written_bare_where_yaml_reads_it_so() -> None:
    settings = {"device": "cpu", "attention": "none", "lr": 0.1, "head": "no"}
    assert command_line("train", "digits", settings=settings, seed=0, final=True, name=None) == (
        "foveate train digits --seed 0 --final --set device=cpu --set attention=none --set lr=0.1 "
        "--set 'head='\"'\"'no'\"'\"''"
    )

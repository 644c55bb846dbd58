"""What only the terminal shows; whole commands are in integration/."""

import sys
from collections.abc import Callable

import pytest

from foveate.cli import Bars, Lines, _display, _settings
from foveate.errors import ConfigError
from foveate.training.loop import EpochResult

EPOCH = EpochResult(3, 0.5, 0.8125, 0.25, 0.9, 0.9, 1e-3, 60.0, 1234.5)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Callable[[], Lines]:
    """Makes the display of a terminal; to be called in the test, where stdout is the captured one."""

    def display() -> Lines:
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setenv("COLUMNS", "100")
        return _display()

    return display


def test_a_terminal_gets_a_bar_with_rate_and_time_left(
    terminal: Callable[[], Lines], capsys: pytest.CaptureFixture[str]
) -> None:
    display = terminal()
    assert isinstance(display, Bars)
    assert list(display.track(iter(range(30)), total=30, label="epoch 1/2", images_each=8)) == list(range(30))
    shown = capsys.readouterr().out
    assert "epoch 1/2" in shown
    assert "100%" in shown
    assert " images/s" in shown
    assert "\x1b[2K" in shown  # the bar is taken away when it is done
    list(display.track(iter(range(3)), total=3, label="reading files", images_each=0))
    assert "images/s" not in capsys.readouterr().out


def test_a_long_path_is_one_line_and_markup_is_left_alone(
    terminal: Callable[[], Lines], capsys: pytest.CaptureFixture[str]
) -> None:
    line = "left out: " + "[red]/" * 60 + "x.jpg"
    terminal().say(line)
    assert line + "\n" in capsys.readouterr().out


def test_a_pipe_gets_plain_lines_and_the_time_left_of_the_run(capsys: pytest.CaptureFixture[str]) -> None:
    display = _display()
    assert type(display) is Lines
    assert list(display.track([1, 2], total=2, label="x")) == [1, 2]
    display.epoch(EPOCH, epochs=10, best=True)
    assert capsys.readouterr().out == (
        "epoch  3/10  loss 0.5000  accuracy 81.25%  val loss 0.2500  val accuracy 90.00%  "
        "1,234 images/s  0:07:00 left  best\n"
    )


def test_settings_are_flags_that_were_given_and_yaml_values_over_them() -> None:
    given = ["lr=1e-2", "patience=null", "stages=[{filters: 2}]", "epochs=4", "attention=none"]
    assert _settings(given, epochs=3, seed=None, batch=8) == {
        "epochs": 4,
        "batch": 8,
        "lr": "1e-2",  # YAML 1.1 reads this as text, and pydantic as the number
        "patience": None,
        "stages": [{"filters": 2}],
        "attention": "none",
    }
    with pytest.raises(ConfigError, match="write it as --set KEY=VALUE"):
        _settings(["epochs"])

"""What only the command line does; whole commands are in integration/."""

import subprocess
import sys
from pathlib import Path

import pytest

from foveate.cli import main
from foveate.cli.options import given_settings
from foveate.errors import ConfigError


def test_settings_are_flags_that_were_given_and_yaml_values_over_them() -> None:
    given = ["lr=1e-2", "patience=null", "stages=[{filters: 2}]", "epochs=4", "attention=none"]
    assert given_settings(given, epochs=3, seed=None, batch=8) == {
        "epochs": 4,
        "batch": 8,
        "lr": 0.01,
        "patience": None,
        "stages": [{"filters": 2}],
        "attention": "none",
    }
    with pytest.raises(ConfigError, match="write it as --set KEY=VALUE"):
        given_settings(["epochs"])


def test_the_earlier_name_of_a_setting_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert given_settings(["train.views=6"]) == {"train.views": 6}
    assert "views is named tta_views now; the earlier name still works" in capsys.readouterr().err
    given_settings(["tta_views=6"])
    assert capsys.readouterr().err == ""


def test_the_table_of_layers_does_not_wait_for_what_draws_plots() -> None:
    code = "import sys; sys.argv = ['foveate', 'summary', '--preset', 'small']; from foveate.cli import main\n"
    code += "try:\n    main()\nfinally:\n    print({'matplotlib', 'jinja2', 'pandas', 'sklearn'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "set()"), done.stderr


def test_a_file_whose_name_begins_with_a_dash_is_told_how_to_be_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("-dash.jpg").touch()
    monkeypatch.setattr(sys, "argv", ["foveate", "predict", "run", "-dash.jpg"])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert "Give the file -dash.jpg as ./-dash.jpg" in capsys.readouterr().err

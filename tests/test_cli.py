"""What only the command line does; whole commands are in integration/."""

import pytest

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

"""What a server is asked for, before it runs."""

from pathlib import Path

import pytest
from tests import exported

from foveate.confidence import Confidence
from foveate.errors import ConfigError
from foveate.exporting.graph import described
from foveate.workflows.serve import _name_of, serve


def test_whoever_starts_it_is_told_what_the_model_cannot_say(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(described(exported.plain(), exported.card(confidence=Confidence())))
    serving = serve(path, port=0)
    serving.listening.close()
    (line,) = serving.notes
    assert "probabilities are not calibrated" in line


def test_a_variable_that_is_empty_is_not_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(described(exported.plain(), exported.card()))
    monkeypatch.setenv("FOVEATE_TOKEN", "")
    serving = serve(path, port=0)
    serving.listening.close()
    assert serving.access.token is None
    with pytest.raises(ConfigError, match=r"^--token: give at least 16"):
        serve(path, port=0, token="")


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("ants/model.onnx", "ants"),
        ("ants/model-int8.onnx", "ants-int8"),
        ("my run/weights/best.safetensors", "my-run"),
        ("ants/weights.safetensors", "weights"),
        ("flowers.onnx", "flowers"),
        ("…/model.onnx", "model"),
    ],
)
def test_a_model_goes_by_the_name_that_tells_it_from_others(tmp_path: Path, path: str, name: str) -> None:
    assert _name_of(tmp_path / path) == name

"""What a server is asked for, before it runs."""

from pathlib import Path

import pytest

from foveate.workflows.serve import _name_of


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

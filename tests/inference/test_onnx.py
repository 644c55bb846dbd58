"""An exported file under ONNX Runtime: the same answers, and no torch."""

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from PIL import Image
from tests import exported

from foveate.errors import CheckpointError
from foveate.inference.engine import load_engine
from foveate.inference.onnx import OnnxEngine
from foveate.inference.predictor import Predictor


def test_it_gives_the_logits_of_the_network_and_all_that_is_said_of_it(tmp_path: Path) -> None:
    engine = load_engine(exported.write(tmp_path / "model.onnx"))
    assert isinstance(engine, OnnxEngine)
    assert engine.about == exported.network().about
    for count in (1, 3, 64):
        images = exported.images(count)
        np.testing.assert_allclose(engine.logits(images), exported.network().logits(images), atol=1e-4)


def test_images_of_any_memory_order_are_taken(tmp_path: Path) -> None:
    engine = OnnxEngine(exported.write(tmp_path / "model.onnx"))
    images = exported.images(4)
    turned = np.asfortranarray(images)
    np.testing.assert_array_equal(engine.logits(turned), engine.logits(images))


def test_an_upper_case_suffix_is_an_onnx_file_too(tmp_path: Path) -> None:
    assert isinstance(load_engine(exported.write(tmp_path / "MODEL.ONNX")), OnnxEngine)


def test_predictions_are_those_of_the_network(tmp_path: Path) -> None:
    path = exported.write(tmp_path / "model.onnx")
    images = list(exported.images(20))
    here = Predictor.load(path).predict(images, coverage=0.9)
    there = Predictor(exported.network()).predict(images, coverage=0.9)
    for one, other in zip(here, there, strict=True):
        assert (one.label, one.set, one.unlike) == (other.label, other.set, other.unlike)
        assert one.probability == pytest.approx(other.probability, abs=1e-5)


def test_predicting_imports_no_torch(tmp_path: Path) -> None:
    path, image = exported.write(tmp_path / "model.onnx"), tmp_path / "image.png"
    Image.fromarray(exported.images(1)[0]).save(image)
    code = (
        "import sys, json; from foveate.inference.predictor import Predictor; "
        "found = Predictor.load(sys.argv[1]).predict(sys.argv[2]); "
        "slow = {'torch', 'scipy', 'sklearn', 'matplotlib', 'pyarrow', 'onnx'}; "
        "print(json.dumps([found[0].label, sorted(slow & sys.modules.keys())]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, path, image], capture_output=True, text=True, check=True, timeout=60
    )
    label, slow = json.loads(done.stdout)
    assert label in exported.NAMES
    assert slow == []
    assert done.stderr == ""


def _appended(path: Path, make: Any) -> Path:
    """The exported file with more before its logits; `make` gives nodes from "before" to "logits"."""
    proto = onnx.load(exported.write(path))
    for node in proto.graph.node:
        for names in (node.input, node.output):
            names[:] = ["before" if name == "logits" else name for name in names]
    nodes, tensors = make()
    proto.graph.node.extend(nodes)
    proto.graph.initializer.extend(tensors)
    path.write_bytes(exported.unsealed(proto))
    return path


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the peak of memory is read from /proc")
def test_a_graph_that_takes_more_memory_than_there_is_is_one_line(tmp_path: Path) -> None:
    def doubled() -> Any:
        names = ["before", *(f"doubled{number}" for number in range(45))]
        nodes = [
            helper.make_node("Concat", [one, one], [other], axis=0) for one, other in itertools.pairwise(names)
        ]
        return [*nodes, helper.make_node("Identity", [names[-1]], ["logits"])], []

    path = _appended(tmp_path / "model.onnx", doubled)
    # In a process of its own, as the limit is a process': here half of 400 MB.
    code = """if True:
        import sys, numpy as np
        from pathlib import Path
        from foveate.errors import CheckpointError
        from foveate.inference import onnx
        onnx.host_memory = lambda: 400 << 20
        engine = onnx.OnnxEngine(Path(sys.argv[1]))
        try:
            engine.logits(np.zeros((1, 16, 16, 3), np.uint8))
        except CheckpointError as error:
            print(error)
        with open("/proc/self/status") as status:
            print(next(int(line.split()[1]) >> 10 for line in status if line.startswith("VmHWM")))
    """
    done = subprocess.run(
        [sys.executable, "-c", code, path], capture_output=True, text=True, check=True, timeout=60
    )
    line, peak = done.stdout.splitlines()
    assert "cannot be run" in line
    assert "foveate export" in line
    assert int(peak) < 400


def test_outputs_that_are_not_finite_are_one_line(tmp_path: Path) -> None:
    def divided() -> Any:
        zero = numpy_helper.from_array(np.zeros((), np.float32), "zero")
        return [helper.make_node("Div", ["before", "zero"], ["logits"])], [zero]

    engine = OnnxEngine(_appended(tmp_path / "model.onnx", divided))
    with pytest.raises(CheckpointError, match="its logits are not finite"):
        engine.logits(exported.images(1))


def test_without_onnx_runtime_the_line_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from foveate.errors import ConfigError

    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ConfigError, match=r'pip install "foveate\[onnx\]"'):
        OnnxEngine(exported.write(tmp_path / "model.onnx"))


def test_the_runtime_writes_and_sends_nothing_of_its_own(tmp_path: Path) -> None:
    # Builds of ONNX Runtime with telemetry keep a file of the session among the temporary files.
    path = exported.write(tmp_path / "model.onnx")
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    script = f"from foveate.inference.engine import load_engine; load_engine({str(path)!r})"
    environment = {**os.environ, "TMPDIR": str(temporary)}
    environment.pop("ORT_DISABLE_TELEMETRY", None)
    subprocess.run([sys.executable, "-c", script], check=True, env=environment)
    assert list(temporary.iterdir()) == []

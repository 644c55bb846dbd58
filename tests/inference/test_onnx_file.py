"""A stranger's .onnx file: what it may hold, and the line that says what it may not."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from tests import exported

from foveate.errors import CheckpointError
from foveate.inference import onnx_file
from foveate.inference.onnx import OnnxEngine
from foveate.inference.onnx_file import OPERATORS, card_strings, read_onnx

Change = Callable[[Any], object]


def changed(path: Path, change: Change) -> Path:
    proto = onnx.load(exported.write(path))
    change(proto)
    path.write_bytes(exported.unsealed(proto))
    return path


def props(**values: str | None) -> Change:
    """Other strings in the metadata; None takes one away."""

    def change(proto: Any) -> None:
        kept = {each.key: each.value for each in proto.metadata_props}
        kept |= values
        del proto.metadata_props[:]
        for name, value in kept.items():
            if value is not None:
                proto.metadata_props.add(key=name, value=value)

    return change


def external(proto: Any) -> None:
    tensor = proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../etc/passwd")


def external_constant(proto: Any) -> None:
    tensor = numpy_helper.from_array(np.zeros(3, np.float32))
    tensor.ClearField("raw_data")
    tensor.external_data.add(key="location", value="/etc/passwd")
    proto.graph.node.append(helper.make_node("Constant", [], ["outside"], value=tensor))


def branch(proto: Any) -> None:
    inner = helper.make_graph([], "inner", [], [])
    proto.graph.node.append(helper.make_node("If", ["images"], ["x"], then_branch=inner, else_branch=inner))


def hidden_branch(proto: Any) -> None:
    """A graph within an attribute of an operator that is allowed."""
    node = proto.graph.node[0]
    node.attribute.append(helper.make_attribute("body", helper.make_graph([], "inner", [], [])))


def node(op: str, domain: str = "") -> Change:
    return lambda proto: proto.graph.node.append(helper.make_node(op, ["images"], ["x"], domain=domain))


def function(proto: Any) -> None:
    proto.functions.append(helper.make_function("mine", "f", ["a"], ["b"], [], [helper.make_opsetid("", 20)]))


def domain(proto: Any) -> None:
    proto.opset_import.append(helper.make_opsetid("com.stranger", 1))


def sparse(proto: Any) -> None:
    values = numpy_helper.from_array(np.zeros(1, np.float32), "sparse")
    proto.graph.sparse_initializer.append(
        helper.make_sparse_tensor(values, numpy_helper.from_array(np.zeros(1, np.int64)), [10**12])
    )


def training(proto: Any) -> None:
    proto.training_info.add().initialization.CopyFrom(helper.make_graph([], "training", [], []))


def text(proto: Any) -> None:
    proto.graph.initializer.append(helper.make_tensor("text", TensorProto.STRING, [1], [b"x"]))


def signature(which: str, change: Change) -> Change:
    return lambda proto: change(getattr(proto.graph, which))


REFUSED: dict[str, tuple[Change, str]] = {
    "external data": (external, "external data"),
    "external data in a constant": (external_constant, "external data"),
    "If": (branch, "operator 'If'"),
    "a graph in an attribute": (hidden_branch, "a graph within its graph"),
    "Loop": (node("Loop"), "operator 'Loop'"),
    "an operator of Microsoft's": (node("Conv", "com.microsoft"), "'com.microsoft'"),
    "an unknown operator": (node("Evil\n" * 100), "operator"),
    "a function": (function, "functions of its own"),
    "sparse tensors": (sparse, "sparse tensors"),
    "text": (text, "text"),
    "graphs for training": (training, "field 20 in a model"),
    "another set of operators": (domain, "'com.stranger'"),
    "random numbers": (node("RandomUniform"), "operator 'RandomUniform'"),
    "no names": (props(names=None), "lack names"),
    "nothing": (lambda proto: proto.ClearField("metadata_props"), "lack format, names, imgsz, preprocessing"),
    "a newer format": (props(format="2"), "update foveate"),
    "an older format": (props(format="0"), "damaged"),
    "a format that is a word": (props(format='"1"'), "format"),
    "names that are no JSON": (props(names="{0: 'cat'}"), "names in its metadata"),
    "one name twice": (props(names='["a", "a", "b"]'), "distinct"),
    "a name with ESC": (props(names='["a", "\\u001b[31m", "b"]'), "names"),
    "too many names": (props(names=json.dumps([str(number) for number in range(7)])), "it gives"),
    "another size": (props(imgsz="[32, 32]"), "it takes"),
    "a size that is none": (props(imgsz="[16, 17]"), "imgsz"),
    "a huge size": (props(imgsz="[100000, 100000]"), "imgsz"),
    "another task": (props(task='"detect"'), "task"),
    "a temperature of 0": (
        props(confidence='{"temperature": 0.0, "scores": null, "unlike": null, "grouped": false}'),
        "temperature",
    ),
    "scores that do not rise": (props(confidence='{"scores": [0.5, 0.1]}'), "ascending"),
    "a NaN": (props(confidence='{"temperature": NaN}'), "confidence in its metadata"),
    "deep metadata": (props(names="[" * 100_000), "names in its metadata"),
    "a digest that is none": (props(weights='"x"'), "weights"),
    "a licence of two lines": (props(license='"a\\nb"'), "license"),
    "preprocessing of a newer version": (props(preprocessing='{"version": 2}'), "preprocessing"),
    "an input of floats": (
        signature("input", lambda each: setattr(each[0].type.tensor_type, "elem_type", 1)),
        "is damaged",
    ),
    "another input": (
        signature(
            "input", lambda each: each.append(helper.make_tensor_value_info("more", TensorProto.FLOAT, [1]))
        ),
        "it takes",
    ),
    "no unlike score": (signature("output", lambda each: each.pop()), "it gives"),
    "a weight cut short": (
        lambda proto: setattr(proto.graph.initializer[0], "raw_data", proto.graph.initializer[0].raw_data[:-1]),
        "is damaged",
    ),
    "a weight that is missing": (lambda proto: proto.graph.initializer.pop(), "is damaged"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_strangers_file_is_refused_in_one_line_that_names_what_is_wrong(kind: str, tmp_path: Path) -> None:
    change, told = REFUSED[kind]
    path = changed(tmp_path / "model.onnx", change)
    with pytest.raises(CheckpointError) as caught:
        OnnxEngine(path)
    line = str(caught.value)
    assert told in line
    assert str(path) in line
    assert "\n" not in line
    assert len(line) < 900


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "lack format"),
        (b"\xff" * 100, "not an ONNX file"),
        (b"\x08", "not an ONNX file"),
        (b"not a model", "not an ONNX file"),
        (b"\x3a\xff\xff\xff\xff\x0f", "not an ONNX file"),  # a graph longer than the file
        (b"\x0b\x0c", "not an ONNX file"),  # a group, which protobuf 2 had
        (b"\x38\x01", "not an ONNX file"),  # a graph that is a number
        (b"PK\x03\x04" + b"\0" * 100, "cannot be used"),
    ],
)
def test_bytes_that_are_no_model_are_refused(content: bytes, told: str, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=told) as caught:
        read_onnx(path)
    assert "foveate export" in str(caught.value)


def walked(content: bytes) -> str:
    """What is wrong with it, as the check says; nothing else may be raised."""
    try:
        onnx_file._walk(memoryview(content), "model", onnx_file._Found(Path("model.onnx")))
    except (CheckpointError, onnx_file.MalformedError) as error:
        return str(error)
    return ""


@given(st.binary(max_size=300))
def test_no_bytes_raise_anything_but_an_error_of_one_line(content: bytes) -> None:
    assert "\n" not in walked(content)


@given(st.data())
def test_no_damaged_byte_raises_anything_but_an_error_of_one_line(data: st.DataObject) -> None:
    whole = bytearray(helper.make_model(helper.make_graph([], "g", [], [])).SerializeToString())
    whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    assert "\n" not in walked(bytes(whole))


def test_a_second_graph_in_the_same_file_is_looked_at_as_well(tmp_path: Path) -> None:
    # protobuf joins the two, so that the operators of both are run.
    proto = helper.make_model(helper.make_graph([helper.make_node("Loop", [], ["x"])], "more", [], []))
    path = exported.write(tmp_path / "model.onnx")
    path.write_bytes(path.read_bytes() + proto.SerializeToString())
    with pytest.raises(CheckpointError, match="operator 'Loop'"):
        read_onnx(path)


def test_a_name_that_is_there_twice_in_the_metadata_is_refused(tmp_path: Path) -> None:
    path = changed(tmp_path / "model.onnx", lambda proto: proto.metadata_props.add(key="names", value="[]"))
    with pytest.raises(CheckpointError, match="'names' occurs twice"):
        read_onnx(path)


def test_what_others_add_to_the_metadata_is_passed_over(tmp_path: Path) -> None:
    path = changed(tmp_path / "model.onnx", lambda proto: proto.metadata_props.add(key="mine", value="{"))
    assert read_onnx(path)[1] == exported.card()


def test_a_file_that_is_too_large_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    with path.open("wb") as file:
        file.truncate(onnx_file.MAX_BYTES + 1)
    with pytest.raises(CheckpointError, match="more than"):
        read_onnx(path)


def test_millions_of_fields_are_refused_soon(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"\x08\x01" * (onnx_file.MAX_FIELDS + 1))
    with pytest.raises(CheckpointError, match="more than 500,000 fields"):
        read_onnx(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")
def test_a_pipe_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "model.onnx")
    with pytest.raises(CheckpointError, match="not a regular file"):
        read_onnx(tmp_path / "model.onnx")


def test_a_missing_file_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no model at"):
        read_onnx(tmp_path / "model.onnx")


def test_the_description_comes_back_as_it_was_written(tmp_path: Path) -> None:
    card = exported.card(license="apache-2.0", names=('"{}"', "=1+1", "🦊" * 90))
    path = tmp_path / "model.onnx"
    exported.write(path, license="apache-2.0", names=card.names)
    assert read_onnx(path)[1] == card
    strings = card_strings(card)
    assert json.loads(strings["names"]) == list(card.names)
    assert json.loads(strings["confidence"])["temperature"] == exported.CONFIDENCE.temperature


def test_every_operator_that_is_allowed_is_one_of_onnx() -> None:
    known = {each.name for each in onnx.defs.get_all_schemas() if each.domain == ""}
    assert known >= OPERATORS


def test_any_changed_bit_is_noticed(tmp_path: Path) -> None:
    path = exported.write(tmp_path / "model.onnx")
    content = path.read_bytes()
    read_onnx(path)
    for place in np.random.default_rng(0).integers(0, len(content), 300).tolist():
        path.write_bytes(content[:place] + bytes([content[place] ^ 0x40]) + content[place + 1 :])
        with pytest.raises(CheckpointError, match=r"model\.onnx"):
            read_onnx(path)


def test_a_checksum_that_is_none_is_damage(tmp_path: Path) -> None:
    path = exported.write(tmp_path / "model.onnx")
    proto = onnx.load(path)
    next(each for each in proto.metadata_props if each.key == "checksum").value = '"short"'
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(CheckpointError, match="its checksum is malformed"):
        read_onnx(path)


def test_a_file_without_one_was_exported_by_an_earlier_version_and_is_read(tmp_path: Path) -> None:
    assert read_onnx(changed(tmp_path / "model.onnx", lambda _: None))[1] == exported.card()

"""Files read back are strangers: limits, then a schema, then one line."""

import contextlib
import json
import time
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from foveate.errors import CheckpointError, DataError
from foveate.parsing import MAX_DEPTH, MalformedError, parse_json, parse_yaml, yaml_line, yaml_text
from foveate.records import ClassNames, FiniteJson, Line, Reason, Record, parse_record, read_record


class _Card(Record):
    names: ClassNames
    size: int
    rest: FiniteJson = None


def test_what_fits_is_read(tmp_path: Path) -> None:
    (tmp_path / "card.json").write_text('{"names": ["a", "é"], "size": 3, "rest": {"x": [1.5]}}', encoding="utf-8")
    card = read_record(tmp_path / "card.json", _Card, fix="restore it")
    assert card == _Card(names=("a", "é"), size=3, rest={"x": [1.5]})


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("null", "it must be a mapping"),
        ("[]", "it must be a mapping"),
        ("{}", "names: it is missing"),
        ('{"names": ["a"], "size": "abc"}', "size: it must be a whole number"),
        ('{"names": ["a"], "size": 1e400}', "inf"),
        ('{"names": ["a"], "size": NaN}', "the number NaN"),
        ('{"names": ["a"], "size": 1, "rest": [1, {"x": -1e999}]}', "the number -inf"),
        ('{"names": ["a"], "size": ' + "9" * 5000 + "}", "integer string conversion"),
        ('{"names": ["a", "a"], "size": 1}', "names: must be distinct: 'a' occurs twice"),
        ('{"names": ["a\\u0000"], "size": 1}', "names.0: must be printable"),
        ('{"names": ["a\\u001b[31m"], "size": 1}', "names.0: must be printable"),
        ('{"names": ["a\\nb"], "size": 1}', "names.0: must be printable"),
        ('{"names": [""], "size": 1}', "names.0: String should have at least 1 character"),
        ('{"names": null, "size": 1}', "names: it must be a list"),
        ('{"names": ["a"], "size": 1, "size": 2}', "keys must be distinct: 'size' occurs twice"),
        ('{"names": ["a"], "size": 1, "more": 1}', "more: there is no such field"),
        ("[" * 100_000, "nested"),
        ('{"a":' * 40 + "1" + "}" * 40, f"nested more than {MAX_DEPTH}"),
        ("{", "Expecting"),
        ("\udcff", "surrogates"),
    ],
)
def test_what_does_not_fit_is_one_line_with_file_and_field(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "card.json"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(CheckpointError) as caught:
        read_record(path, _Card, fix="restore it from a copy")
    message = str(caught.value)
    if told != "surrogates":
        assert told in message
    assert message.startswith(f"{path} is damaged (")
    assert message.endswith("): restore it from a copy")
    assert "\n" not in message
    assert len(message) < 600


def test_what_is_no_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No such file or directory"):
        read_record(tmp_path / "none.json", _Card, fix="restore it", error=DataError)
    with pytest.raises(CheckpointError, match="not a regular file"):
        read_record(tmp_path, _Card, fix="restore it")


def test_a_file_beyond_the_limit_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "card.json"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(CheckpointError, match="more than"):
        read_record(path, _Card, fix="restore it")


def test_a_type_that_is_no_model_is_a_schema_too() -> None:
    assert parse_record("[1, 2]", tuple[int, ...], source="here", fix="x") == (1, 2)
    with pytest.raises(CheckpointError, match=r"here is damaged \(1: "):
        parse_record('[1, "x"]', tuple[int, ...], source="here", fix="x")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a: 1\na: 2", "the key 'a' occurs twice in the mapping that begins in line 1"),
        ("b:\n  a: 1\n  a: 2", "line 2"),
        ("[" * 5000, "nested"),
        ("[" * 50_000, "more than 20,000 values"),
        ("[" + "[]," * 10_000 + "]", "more than 20,000 values"),
        ("!!float x", "could not convert"),
        ("!!python/object:os.system {}", "could not determine a constructor"),
        ("9" * 5000, "integer string conversion"),
        ("? [1]\n: 2", "unhashable"),
        ("!!timestamp x", "."),
        ("a: [", "expected"),
        ("a: &a [*a]", "nested"),
        ("\0", "special characters"),
        (
            "a: &a [1,1,1,1,1,1,1,1,1,1]\n"
            + "".join(
                f"{x}: &{x} [{','.join([f'*{y}'] * 10)}]\n" for y, x in zip("abcdefgh", "bcdefghi", strict=True)
            ),
            "more than 20,000 values",
        ),
    ],
)
def test_yaml_beyond_plain_data_is_one_line(text: str, told: str) -> None:
    with pytest.raises(MalformedError, match=told):
        parse_yaml(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2001-13-45", "2001-13-45"),
        ("2001-01-02", "2001-01-02"),
        ("[1:30, 0100, 0x1F, 1_000, 0b11, 08]", ["1:30", "0100", "0x1F", "1_000", "0b11", "08"]),
        ("[0, -3, +7, 1.5, -.5, 2., 1e3, 1.5e-4, 2E5]", [0, -3, 7, 1.5, -0.5, 2.0, 1000.0, 1.5e-4, 2e5]),
        ("a: {b: [1, 2.5, yes, null]}", {"a": {"b": [1, 2.5, True, None]}}),
        ("base: &b {x: 1, y: 2}\nc:\n  <<: *b\n  x: 3", {"base": {"x": 1, "y": 2}, "c": {"x": 3, "y": 2}}),
        ("", None),
    ],
)
def test_yaml_of_plain_data_is_read(text: str, value: object) -> None:
    assert parse_yaml(text) == value


TEXTS = (
    st.text() | st.text("\n\r\x85\u2028\u2029\ufeff -#:'\"\\%~01eEx+._") | st.from_regex(r"[-+]?[0-9.]+e?[0-9]?")
)
FLOATS = st.floats(allow_nan=False)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | FLOATS | TEXTS,
        lambda each: st.lists(each) | st.dictionaries(TEXTS, each),
        max_leaves=9,
    )
)
def test_what_is_written_as_yaml_is_read_the_same(value: object) -> None:
    assert parse_yaml(yaml_text(value)) == value
    line = yaml_line(value)
    assert parse_yaml(line) == value
    assert len(line.splitlines()) == 1


@given(st.lists(TEXTS))
def test_other_readers_of_yaml_take_our_texts_for_texts(texts: list[str]) -> None:
    assert yaml.safe_load(yaml_text(texts)) == texts


@given(st.text())
def test_any_text_is_a_value_or_malformed(text: str) -> None:
    for parse in (parse_json, parse_yaml):
        with contextlib.suppress(MalformedError):
            parse(text)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=MAX_DEPTH))
def test_json_comes_back_as_it_was_written(value: object) -> None:
    assert parse_json(json.dumps(value)) == value


def test_a_schema_refuses_what_is_not_finite() -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(FiniteJson).validate_python({"x": float("nan")})


@pytest.mark.parametrize(("value", "count"), [("[]", 10**6), ('{"a":0}', 10**6), ("0", 3 * 10**6)])
def test_values_that_would_take_far_more_memory_than_their_text_are_never_made(value: str, count: int) -> None:
    text, began = "[" + f"{value}," * count + "0]", time.process_time()
    for content in (text, text.encode()):
        with pytest.raises(MalformedError, match=r"could stand for [0-9,]+ bytes of values"):
            parse_json(content)
    assert time.process_time() - began < 1


def test_a_long_history_of_numbers_is_read() -> None:
    rows = [{"epoch": epoch, **{f"measure {k}": epoch / 7 for k in range(8)}} for epoch in range(20_000)]
    assert parse_json(json.dumps(rows)) == rows


@pytest.mark.parametrize(
    "text",
    [
        "a: !!set {b, c}",
        "a: !!binary aGVsbG8=",
        "a: [!!timestamp 2001-01-01]",
        "!!omap [a: 1]",
        "!!timestamp 2001-01-01: 1",
    ],
)
def test_what_only_a_tag_can_make_is_refused(text: str) -> None:
    with pytest.raises(MalformedError, match="it holds a value of type"):
        parse_yaml(text)


def test_a_reason_is_made_printable_and_a_line_refused() -> None:
    class Told(Record):
        reason: Reason
        line: Line = "x"

    assert Told.model_validate({"reason": "a\x1b\nb"}).reason == r"a\x1b\nb"
    with pytest.raises(ValueError, match="must be printable"):
        Told.model_validate({"reason": "", "line": "a\nb"})

"""Reading back: a file is a stranger's until its size, its structure and every value in it have been checked.

JSON and YAML are parsed within limits, and then validated by a schema (pydantic). Whatever does not fit becomes
one line that names the file and the field. Nothing that is read here can run code.
"""

import itertools
import json
import math
import re
import unicodedata
from collections.abc import Hashable, Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Any, TypeVar, cast

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    FailFast,
    Field,
    JsonValue,
    TypeAdapter,
    ValidationError,
)
from pydantic_core import ErrorDetails

from foveate.errors import CheckpointError, FoveateError
from foveate.files import read_regular

MAX_BYTES = 256 << 20
"""Of a file that is read as a whole: the largest of ours, the predictions of a page, stay far below."""
_BRACKETS = re.compile(r"[\[\]{}]")
_MOST_OPEN = 500
"""Brackets of YAML that are not closed yet: more than nesting has, as a quoted text may hold some too."""
MAX_DEPTH = 32
"""Levels of nesting: settings, the deepest of our files, have seven."""
MAX_VALUES = 2_000_000
"""In a JSON file: the largest confusion matrix that can be shown has a million."""
MAX_YAML_VALUES = 20_000
"""In a YAML file, each alias counted as what it stands for, as a few lines can stand for billions. Settings have
some hundreds, those of a comparison of many arms some thousands; PyYAML takes a second for 20,000."""
SPARE_BYTES = 48 << 20
"""Memory that the values of a JSON text may take beside as much as the text itself."""
MAX_NAME = 2000
"""Characters in a class name: the name of a folder has 255 bytes, of which each may be spelled out."""
MAX_CLASSES = 100_000
_UNPRINTABLE = ("Cc", "Cs", "Zl", "Zp")
_TURNING = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Of Unicode's bidirectional formatting: a name that has them makes others read otherwise than they are."""
"""Unicode's categories of what no name may have. Joiners, as emoji have them, are none of them."""
MAX_LINE = 20_000
"""Characters in a `Line`: an arm of a comparison can name every stage of a network."""

_SCALARS = (str, int, float, type(None))
T = TypeVar("T")


class MalformedError(ValueError):
    """A text that is not JSON or YAML, or goes beyond the limits; the message says how."""


class Record(BaseModel):
    """A frozen group of values that are read back: unknown keys and numbers that are not finite are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def printable(name: str) -> str:
    """`name` as text for any screen and file: control characters, line breaks, characters that turn the direction
    of all that follows, and bytes that are not UTF-8 are spelled out.
    """

    def spelled(letter: str) -> str:
        if "\udc80" <= letter <= "\udcff":  # how Python holds a byte that is not UTF-8
            return f"\\x{ord(letter) - 0xDC00:02x}"
        return letter.encode("unicode_escape").decode()

    return "".join(
        spelled(each) if unicodedata.category(each) in _UNPRINTABLE or each in _TURNING else each for each in name
    )


def _printable(text: str) -> str:
    if printable(text) != text:
        raise ValueError("must be printable: it has a control character or a line break")
    return text


def distinct(values: Sequence[T]) -> Sequence[T]:
    """`values`, for a pydantic field whose items must differ.

    Raises:
        ValueError: naming the first item that occurs twice.
    """
    seen: set[T] = set()
    for value in values:
        if value in seen:
            raise ValueError(f"must be distinct: {value!r} occurs twice")
        seen.add(value)
    return values


def _finite(value: JsonValue) -> JsonValue:
    check_structure(value)
    return value


Name = Annotated[str, Field(min_length=1, max_length=MAX_NAME), AfterValidator(_printable)]
Line = Annotated[str, Field(min_length=1, max_length=MAX_LINE), AfterValidator(_printable)]
"""A text that a person wrote and that is shown in one line; refused where it is not printable."""
Reason = Annotated[str, Field(max_length=MAX_LINE), AfterValidator(printable)]
"""A text of whatever origin that is shown in one line; what is not printable is spelled out."""
Count = Annotated[int, Field(strict=True, ge=0, le=2**53)]
Seconds = Annotated[float, Field(strict=True, ge=0, le=1e12)]
Accuracy = Annotated[float, Field(strict=True, ge=0, le=1)]
Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
"""A SHA-256 in hexadecimal."""
ClassNames = Annotated[
    tuple[Name, ...], Field(min_length=1, max_length=MAX_CLASSES), FailFast(), AfterValidator(distinct)
]
FiniteJson = Annotated[JsonValue, AfterValidator(_finite)]
"""Any value of JSON, within the limits, whose numbers are finite."""


def read_record(path: Path, schema: type[T], *, fix: str, error: type[FoveateError] = CheckpointError) -> T:
    """What the JSON file at `path` holds, as `schema` describes it.

    Args:
        schema: a pydantic model or any type that pydantic knows.
        fix: the end of the message: what to do about a file that does not fit.
        error: what is raised.

    Raises:
        FoveateError: of the type `error`, in one line that names the file and the field.
    """
    try:
        content = read_regular(path, MAX_BYTES)
    except OSError as problem:
        raise error(f"cannot read {path} ({problem.strerror or problem}): {fix}") from problem
    return parse_record(content, schema, source=str(path), fix=fix, error=error)


def parse_record(
    content: bytes | str,
    schema: type[T],
    *,
    source: str,
    fix: str,
    error: type[FoveateError] = CheckpointError,
) -> T:
    """As `read_record`, of JSON that was read already; `source` names where it stands."""
    try:
        value = parse_json(content)
    except MalformedError as problem:
        raise error(f"{source} is damaged ({problem}): {fix}") from problem
    return validate_record(value, schema, source=source, fix=fix, error=error)


def validate_record(
    value: Any, schema: type[T], *, source: str, fix: str, error: type[FoveateError] = CheckpointError
) -> T:
    """As `read_record`, of a value that was parsed already; `source` names where it stands."""
    try:
        valid: T = _adapter(cast("Hashable", schema)).validate_python(value)
    except ValidationError as problem:
        raise error(f"{source} is damaged ({first_problem(problem)}): {fix}") from problem
    return valid


_IN_PLAIN_WORDS = {
    "bool_parsing": "it must be true or false",
    "bool_type": "it must be true or false",
    "dict_type": "it must be a mapping, `name: value`",
    "extra_forbidden": "there is no such field",
    "float_parsing": "it must be a number",
    "float_type": "it must be a number",
    "int_from_float": "it must be a whole number",
    "int_parsing": "it must be a whole number",
    "int_parsing_size": "it must be a whole number of fewer digits",
    "int_type": "it must be a whole number",
    "list_type": "it must be a list",
    "missing": "it is missing",
    "model_type": "it must be a mapping, `name: value`",
    "string_type": "it must be a text",
    "too_long": "it must have at most {max_length} of them",
    "too_short": "it must have at least {min_length} of them",
    "tuple_type": "it must be a list",
}
"""What pydantic says in the terms of Python, by the type of its error."""


def problem_in_words(first: ErrorDetails) -> str:
    """What is wrong with a value, in words that know nothing of Python."""
    plain = _IN_PLAIN_WORDS.get(first["type"])
    return plain.format(**first.get("ctx", {})) if plain else first["msg"].removeprefix("Value error, ")


def first_problem(error: ValidationError) -> str:
    """The first thing that a schema refuses, as `field: what is wrong with it`, on one line and short."""
    first = error.errors(include_url=False)[0]
    where = ".".join(str(part)[:80] for part in first["loc"])
    what = problem_in_words(first)
    return printable(" ".join(f"{where}: {what}".removeprefix(": ").split())[:300])


def parse_json(content: bytes | str) -> Any:
    """The value of a JSON text.

    Raises:
        MalformedError: for what is not JSON, a key that occurs twice, a number that is not finite or has
            thousands of digits, nesting beyond `MAX_DEPTH`, and values that would take far more memory than the
            text.
    """
    _check_memory(content)
    try:
        value = json.loads(content, object_pairs_hook=_without_duplicates, parse_constant=_refuse_constant)
    except RecursionError:
        raise MalformedError(f"it is nested more than {MAX_DEPTH} levels deep") from None
    except ValueError as error:  # UnicodeDecodeError, and integers of too many digits, as well
        raise MalformedError(_short(error)) from error
    check_structure(value)
    return value


def parse_yaml(text: str) -> Any:
    """The value of a YAML text: strings, numbers, booleans, null, lists and mappings; dates stay strings.

    Raises:
        MalformedError: as `parse_json`.
    """
    # Each value but the first stands behind one of these. PyYAML takes 50 µs and 1 kB for a value.
    if sum(map(text.count, ",\n[{")) > MAX_YAML_VALUES:
        raise MalformedError(f"it holds more than {MAX_YAML_VALUES:,} values")
    # PyYAML looks at all open brackets at each new one: 5,000 take it eight seconds.
    brackets = (1 if each in "[{" else -1 for each in _BRACKETS.findall(text))
    if max(itertools.accumulate(brackets), default=0) > _MOST_OPEN:
        raise MalformedError(f"it is nested more than {MAX_DEPTH} levels deep")
    try:
        value = yaml.load(text, _Loader)  # noqa: S506 (a SafeLoader)
    except RecursionError:
        raise MalformedError(f"it is nested more than {MAX_DEPTH} levels deep") from None
    except (yaml.YAMLError, ValueError, TypeError, AttributeError, LookupError) as error:
        # Beside its own errors, the loader lets through those of the constructors that a tag can name.
        raise MalformedError(_short(error)) from error
    check_structure(
        value, finite=False, most=MAX_YAML_VALUES
    )  # `.inf` may be given for a setting, whose range then says what is right
    return value


def check_structure(value: Any, *, finite: bool = True, most: int = MAX_VALUES) -> None:
    """Refuse nesting beyond `MAX_DEPTH`, more values than `most`, and numbers that are not `finite`.

    Raises:
        MalformedError: for these.
    """
    left = most
    waiting: list[tuple[int, Iterable[Any]]] = [(0, (value,))]
    while waiting:
        depth, values = waiting.pop()
        if depth > MAX_DEPTH:
            raise MalformedError(f"it is nested more than {MAX_DEPTH} levels deep")
        for each in values:
            left -= 1
            _check_type(each, finite=finite)
            if each and isinstance(
                each, dict | list
            ):  # what is empty goes no deeper, and a text can hold much of it
                waiting.append((depth + 1, each.values() if isinstance(each, dict) else each))
        if left < 0:
            raise MalformedError(f"it holds more than {most:,} values")


def _check_type(value: Any, *, finite: bool) -> None:
    if finite and isinstance(value, float) and not math.isfinite(value):
        raise MalformedError(f"it holds the number {value}")
    # As tags of YAML can make: sets, bytes, dates.
    keys = value if isinstance(value, dict) else ()
    for each in (() if isinstance(value, dict | list) else (value,), keys):
        if (foreign := next((one for one in each if not isinstance(one, _SCALARS)), None)) is not None:
            raise MalformedError(f"it holds a value of type {type(foreign).__name__}")


def _check_memory(content: bytes | str) -> None:
    """Refuse a JSON text whose values could take `SPARE_BYTES` more than the text itself, before they are made.

    It counts characters without parsing, so that this takes no memory, and is wrong on the safe side.
    """
    marks: tuple[Any, ...] = (b",", b'"', b'\\"', b"[", b"{", b"\\u")
    if isinstance(content, str):
        marks = tuple(mark.decode() for mark in marks)
    commas, quotes, within, lists, mappings, escapes = map(content.count, marks)
    # What CPython 3.11 takes for a number and its place in a list; half a short key and its place in a mapping,
    # while that is being made; an empty list; a mapping of one key.
    needed = 40 * commas + 70 * (quotes - within) + 120 * lists + 300 * mappings
    if escapes or not content.isascii():
        needed += 4 * len(content)  # one wide character in a string makes each of its characters take four bytes
    if needed > len(content) + SPARE_BYTES:
        raise MalformedError(f"its {len(content):,} bytes could stand for {needed:,} bytes of values")


def _without_duplicates(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        try:
            distinct([key for key, _ in pairs])
        except ValueError as error:
            raise MalformedError(f"keys {error}") from None
    return values


def _refuse_constant(name: str) -> None:
    raise MalformedError(f"it holds the number {name}")


_NUMBERS = {
    "tag:yaml.org,2002:int": re.compile(r"[-+]?(?:0|[1-9][0-9]*)$"),
    "tag:yaml.org,2002:float": re.compile(
        r"[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?$|[-+]?\.(?:inf|Inf|INF)$|\.(?:nan|NaN|NAN)$"
    ),
}
"""How numbers are written, by their tags: of whole ones with a zero before them nobody can say what they are."""


class _Loader(yaml.SafeLoader):
    """PyYAML's loader of plain data, which leaves dates as text and refuses duplicate keys.

    Numbers are those of YAML 1.2: PyYAML's own are those of 1.1, where 1:30 is 90 and 0100 is 64.
    """

    yaml_implicit_resolvers = {  # noqa: RUF012 (PyYAML's own attribute)
        letter: [(tag, _NUMBERS.get(tag, pattern)) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
        for letter, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """A mapping; MalformedError where a key occurs twice."""
        # Before `<<` merges other mappings in, which may hold the same keys.
        keys = [(key.tag, key.value) for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        twice = next((key for place, key in enumerate(keys) if key in keys[:place]), None)
        if twice is not None:
            line = node.start_mark.line + 1
            raise MalformedError(f"the key {twice[1]!r} occurs twice in the mapping that begins in line {line}")
        return super().construct_mapping(node, deep=deep)


@cache
def _adapter(schema: Hashable) -> TypeAdapter[Any]:
    return TypeAdapter(cast("Any", schema))


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


class WeightsOrigin(Record):
    """Where the weights come from that a training started from: whoever uses the network must be told."""

    name: Line
    origin: Line
    licence: Line
    sha256: Digest

    @property
    def words(self) -> str:
        """All of it but the digest, in one line."""
        return f"{self.name}; licence {self.licence}; from {self.origin}"

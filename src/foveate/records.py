"""Reading back: a file is a stranger's until its size, its structure and every value in it have been checked.

JSON is parsed within limits, and then validated by a schema (pydantic). Whatever does not fit becomes one line
that names the file and the field.
"""

import unicodedata
from collections.abc import Hashable, Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Any, TypeVar, cast

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
from foveate.files import read_regular, reading_from
from foveate.parsing import MalformedError, check_structure, parse_json

MAX_BYTES = 256 << 20
"""Of a file that is read as a whole: the largest of ours, the predictions of a page, stay far below."""
MAX_NAME = 2000
"""Characters in a class name: the name of a folder has 255 bytes, of which each may be spelled out."""
MAX_CLASSES = 100_000
_UNPRINTABLE = ("Cc", "Cs", "Zl", "Zp")
"""Unicode's categories that no name may have. Joiners, as emoji have them, are not among them."""
_TURNING = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Unicode's bidirectional formatting: in a name, it makes the text around it look different from what it is."""
MAX_LINE = 20_000
"""Characters in a `Line`: an arm of a comparison can name every stage of a network."""

T = TypeVar("T")


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
"""A text from any source that is shown on one line; characters that are not printable are spelled out."""
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
    with reading_from(path, fix, error):
        content = read_regular(path, MAX_BYTES)
    return parse_record(content, schema, source=str(path), fix=fix, error=error)


def parse_record(
    content: bytes | str, schema: type[T], *, source: str, fix: str, error: type[FoveateError] = CheckpointError
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


@cache
def _adapter(schema: Hashable) -> TypeAdapter[Any]:
    return TypeAdapter(cast("Any", schema))


class WeightsOrigin(Record):
    """The origin of the weights that a training started from, which every user of the network must be told."""

    name: Line
    origin: Line
    licence: Line
    sha256: Digest

    @property
    def words(self) -> str:
        """All of it but the digest, in one line."""
        return f"{self.name}; licence {self.licence}; from {self.origin}"

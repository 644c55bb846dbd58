"""JSON and YAML of strangers to plain values, within limits; nothing that is read can run code."""

import itertools
import json
import math
import re
from collections import Counter
from collections.abc import Hashable, Iterable
from typing import Any

import yaml

from foveate.errors import one_line

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
_SCALARS = (str, int, float, type(None))


class MalformedError(ValueError):
    """A text that is not JSON or YAML, or goes beyond the limits; the message says how."""


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
        raise MalformedError(one_line(error)) from error
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
        raise MalformedError(one_line(error)) from error
    # `.inf` may be given for a setting, whose range then says what is right.
    check_structure(value, finite=False, most=MAX_YAML_VALUES)
    return value


def yaml_text(value: Any) -> str:
    """A value of plain data as YAML, in its own order."""
    text: str = yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True)
    return text


def yaml_line(value: Any) -> str:
    """A value of plain data as YAML in one line, as a command line takes it."""
    text: str = yaml.dump(
        value,
        Dumper=_Dumper,
        default_flow_style=True,
        width=float("inf"),
        sort_keys=False,
        allow_unicode=True,
    )
    return text.removesuffix("\n").removesuffix("\n...")


def check_structure(value: Any, *, finite: bool = True, most: int = MAX_VALUES) -> None:
    """Raise MalformedError for nesting beyond `MAX_DEPTH`, more values than `most`, and numbers that are not
    `finite`.
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
            # What is empty goes no deeper, and a text can hold much of it.
            if each and isinstance(each, dict | list):
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
        twice = next(key for key, times in Counter(key for key, _ in pairs).items() if times > 1)
        raise MalformedError(f"keys must be distinct: {twice!r} occurs twice")
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


class _Dumper(yaml.SafeDumper):
    """PyYAML's writer of plain data, whose texts our loader and PyYAML's read as the same texts.

    It quotes what either loader takes for a number, as `1e5`. A text with a line break stands in double quotes,
    which escape it: PyYAML's single quotes give U+0085 back as a space.
    """

    yaml_implicit_resolvers = {  # noqa: RUF012 (PyYAML's own attribute)
        letter: _Loader.yaml_implicit_resolvers[letter] + resolvers
        for letter, resolvers in yaml.SafeDumper.yaml_implicit_resolvers.items()
    }

    def represent_text(self, text: str) -> yaml.ScalarNode:
        """A text, quoted so that it is read as written."""
        style = '"' if _LINE_BREAKS.intersection(text) else None
        return self.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_LINE_BREAKS = frozenset("\n\r\x85\u2028\u2029")
_Dumper.add_representer(str, _Dumper.represent_text)

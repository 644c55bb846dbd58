"""Seeded damage to files: bytes, lines, fields and types, for whoever attacks what reads them back.

`mutated` gives one damaged version of a file's content. It also damages the meaning of JSON, YAML and journals:
the text stays whole, a journal's checksums are right, and a value, a key or a line is not what it was.
"""

import copy
import json
import random
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import yaml

__all__ = ["mutated"]

HOSTILE: tuple[Any, ...] = (
    None, True, -1, 0, 1, 2**31, 10**30, -0.5, 1.5, 1e300, float("nan"), float("inf"), "", "0", "\x1b[2J\n",
    "x" * 5_000, "../../..", "/", [], [None], [[[[[[]]]]]], {}, {"a": {"b": 1}}, "2001-01-01", "\ud83d\ude00",
)  # fmt: skip
"""Values in place of others."""


def mutated(name: str, content: bytes, draw: random.Random) -> tuple[str, bytes]:
    """How a file of this name was damaged, in words, and what it holds then."""
    kinds: dict[str, Callable[[bytes, random.Random], bytes]] = dict(_OF_BYTES)
    if name.endswith(".json"):
        kinds |= {f"json, {kind}": _json(change) for kind, change in _OF_VALUES.items()}
    elif name.endswith(".yaml"):
        kinds |= {f"yaml, {kind}": _yaml(change) for kind, change in _OF_VALUES.items()}
    elif name.endswith(".jsonl"):
        kinds |= {f"line, {kind}": _line(change) for kind, change in _OF_VALUES.items()}
        kinds |= _OF_LINES
    kind = draw.choice(sorted(kinds))
    return kind, kinds[kind](content, draw)


def _flip(content: bytes, draw: random.Random) -> bytes:
    damaged = bytearray(content or b"\0")
    for _ in range(draw.choice((1, 1, 8))):
        damaged[draw.randrange(len(damaged))] ^= 1 << draw.randrange(8)
    return bytes(damaged)


def _cut(content: bytes, draw: random.Random) -> bytes:
    return content[: draw.randrange(len(content) + 1)]


def _insert(content: bytes, draw: random.Random) -> bytes:
    place, size = draw.randrange(len(content) + 1), draw.choice((1, 16, 300))
    return content[:place] + draw.choice((draw.randbytes(size), b"[" * size, b"\0" * size)) + content[place:]


def _swap_blocks(content: bytes, draw: random.Random) -> bytes:
    one, two = sorted(draw.randrange(len(content) + 1) for _ in range(2))
    return content[one:two] + content[:one] + content[two:]


_OF_BYTES: Mapping[str, Callable[[bytes, random.Random], bytes]] = {
    "bits flipped": _flip,
    "cut off": _cut,
    "bytes inserted": _insert,
    "blocks swapped": _swap_blocks,
}


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every container of a value with each of its keys."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield value, key
        yield from _places(value[key])


def _replace(value: Any, draw: random.Random) -> Any:
    places = list(_places(value))
    if not places or draw.random() < 0.05:
        return draw.choice(HOSTILE)
    container, key = draw.choice(places)
    container[key] = draw.choice(HOSTILE)
    return value


def _swap(value: Any, draw: random.Random) -> Any:
    """Two values of anywhere; but not one within the other, which would have no end."""
    places = [(container, key) for container, key in _places(value) if not isinstance(container[key], dict | list)]
    if len(places) > 1:
        (one, first), (two, second) = draw.sample(places, 2)
        one[first], two[second] = two[second], one[first]
    return value


def _remove(value: Any, draw: random.Random) -> Any:
    if places := list(_places(value)):
        container, key = draw.choice(places)
        del container[key]
    return value


def _rename(value: Any, draw: random.Random) -> Any:
    if places := [(container, key) for container, key in _places(value) if isinstance(container, dict)]:
        container, key = draw.choice(places)
        container[draw.choice(("other", "", "\x1b", "x" * 400))] = container.pop(key)
    return value


def _add(value: Any, draw: random.Random) -> Any:
    containers = [value, *(container[key] for container, key in _places(value))]
    container = draw.choice([each for each in containers if isinstance(each, dict | list)] or [{}])
    if isinstance(container, dict):
        container["added"] = draw.choice(HOSTILE)
    else:
        container.append(copy.deepcopy(draw.choice(container)) if container else draw.choice(HOSTILE))
    return value


_OF_VALUES: Mapping[str, Callable[[Any, random.Random], Any]] = {
    "a value replaced": _replace,
    "values swapped": _swap,
    "a value removed": _remove,
    "a key renamed": _rename,
    "a value added": _add,
}


def _json(change: Callable[[Any, random.Random], Any]) -> Callable[[bytes, random.Random], bytes]:
    return lambda content, draw: json.dumps(change(json.loads(content), draw)).encode()


def _yaml(change: Callable[[Any, random.Random], Any]) -> Callable[[bytes, random.Random], bytes]:
    return lambda content, draw: yaml.safe_dump(change(yaml.safe_load(content), draw), sort_keys=False).encode()


def _line(change: Callable[[Any, random.Random], Any]) -> Callable[[bytes, random.Random], bytes]:
    """An entry of a journal, with the right checksum."""

    def changed(content: bytes, draw: random.Random) -> bytes:
        lines = content.splitlines(keepends=True)
        place = draw.randrange(len(lines))
        text = json.dumps(change(json.loads(lines[place].partition(b" ")[2]), draw)).encode()
        return b"".join([*lines[:place], b"%08x %s\n" % (zlib.crc32(text), text), *lines[place + 1 :]])

    return changed


def _repeat_line(content: bytes, draw: random.Random) -> bytes:
    lines = content.splitlines(keepends=True)
    lines.insert(draw.randrange(len(lines) + 1), draw.choice(lines))
    return b"".join(lines)


def _drop_line(content: bytes, draw: random.Random) -> bytes:
    lines = content.splitlines(keepends=True)
    del lines[draw.randrange(len(lines))]
    return b"".join(lines)


def _shuffle_lines(content: bytes, draw: random.Random) -> bytes:
    lines = content.splitlines(keepends=True)
    one, two = (draw.randrange(len(lines)) for _ in range(2))
    lines[one], lines[two] = lines[two], lines[one]
    return b"".join(lines)


_OF_LINES: Mapping[str, Callable[[bytes, random.Random], bytes]] = {
    "a line repeated": _repeat_line,
    "a line dropped": _drop_line,
    "lines swapped": _shuffle_lines,
}

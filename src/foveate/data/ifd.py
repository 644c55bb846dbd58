"""The first image file directory of a TIFF file or of EXIF data: its tags, each read when it is asked for."""

import struct

MAX_TAGS = 4096
"""Tags that are looked at; a photograph has some dozens."""

_ORDERS = {b"II": "<", b"MM": ">"}
_INTEGERS = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 13: "I", 16: "Q", 17: "q", 18: "Q"}
_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
"""Bytes of one value by the number of its type (TIFF 6.0, page 15, and BigTIFF)."""
_ORIENTATION = 274


class Directory:
    """The tags of the first directory. Types are taken as they are written: cameras often choose another one.

    Raises:
        ValueError: where there is no TIFF header with a directory, or more than `MAX_TAGS` tags.
    """

    def __init__(self, data: bytes) -> None:
        self.data = data
        if data[:2] not in _ORDERS or not {42, 43} & set(data[2:4]):
            raise ValueError("not a TIFF header")
        self.order = _ORDERS[data[:2]]
        self.big = 43 in data[2:4]
        """Whether it is BigTIFF, with 64 bits for each place in the file."""
        start, head, entry = (8, "Q", "HHQ8s") if self.big else (4, "H", "HHI4s")
        (at,) = self._unpack("Q" if self.big else "I", start)
        (count,) = self._unpack(head, at)
        if count > MAX_TAGS:
            raise ValueError(f"more than {MAX_TAGS:,} tags")
        at += struct.calcsize(f"={head}")
        step = struct.calcsize(f"={entry}")
        self._entries: dict[int, tuple[int, int, int]] = {}
        for place in range(at, at + count * step, step):
            tag, kind, values, _ = self._unpack(entry, place)
            self._entries.setdefault(tag, (kind, values, place + step - (8 if self.big else 4)))

    def __contains__(self, tag: int) -> bool:
        return tag in self._entries

    def raw(self, tag: int, most: int) -> tuple[int, int, bytes]:
        """The number of its type, how many values it has (of which at most `most` are read), and their bytes.

        Raises:
            ValueError: where the tag is missing, of an unknown type, or ends behind the end of the data.
        """
        if tag not in self:
            raise ValueError(f"tag {tag} is missing")
        kind, count, at = self._entries[tag]
        if kind not in _BYTES:
            raise ValueError(f"tag {tag} has type {kind}, which is unknown")
        count = min(count, most)
        size = count * _BYTES[kind]
        if size > (8 if self.big else 4):
            (at,) = self._unpack("Q" if self.big else "I", at)
        if at + size > len(self.data):
            raise ValueError(f"truncated: tag {tag} ends behind the end of the file")
        return kind, count, self.data[at : at + size]

    def integers(self, tag: int, most: int = 1) -> tuple[int, ...]:
        """At most `most` values of the tag; none where it is missing.

        Raises:
            ValueError: as `raw`, and where they are not integers.
        """
        if tag not in self:
            return ()
        kind, count, raw = self.raw(tag, most)
        if kind not in _INTEGERS:
            raise ValueError(f"tag {tag} holds no integers")
        return struct.unpack(f"{self.order}{count}{_INTEGERS[kind]}", raw)

    def integer(self, tag: int, default: int) -> int:
        """The first value of the tag; `default` where it has none.

        Raises:
            ValueError: as `integers`.
        """
        return next(iter(self.integers(tag)), default)

    def _unpack(self, layout: str, at: int) -> tuple[int, ...]:
        try:
            return struct.unpack_from(self.order + layout, self.data, at)
        except (struct.error, OverflowError) as error:
            raise ValueError("truncated: the directory ends behind the end of the file") from error


def orientation_of(exif: bytes) -> int | None:
    """What EXIF data say of how an image is to be turned; None where they do not, or are damaged.

    Nothing else of them is read, so whatever else is wrong in them does not matter.
    """
    try:
        found = Directory(exif.removeprefix(b"Exif\0\0")).integers(_ORIENTATION)
    except ValueError:
        return None
    return found[0] if found else None

"""What a server takes on at one time: places for images, and bytes that are being received."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from foveate.inference.engine import BATCH

BUSY = "too many images are under way: try again"
RETRY_S = 1
"""After which a client that was refused may try again."""


@dataclass(frozen=True)
class Limits:
    """Bounds that hold whatever is sent."""

    images: int = 2 * BATCH
    """Under way at one time: one batch that the network is asked, one that is being decoded. With more, answers
    would come later and no faster."""
    body_bytes: int = 10_000_000
    """Of a request."""
    bytes_at_once: int = 256 << 20
    """Of all requests that are being received or answered."""
    json_bytes: int = 2_000_000
    """Of numbers written as JSON: Python's parser lets nobody else go on meanwhile."""
    request_s: float = 20.0
    """In which a request must have been received, and an answer be taken."""
    connections: int = 512
    decode_s: float = 10.0
    """In which an image must be decoded."""


class Busy(Exception):  # noqa: N818 (it is an answer, not a fault)
    """There is no place at present."""


class Load:
    """What is under way. It is used by one thread alone, that of the event loop; any may read it."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.images = 0
        self.bytes = 0
        self.announced = 0
        """Requests that have just come and have not asked for places yet."""

    @property
    def is_full(self) -> bool:
        """Whether there is no place for another image."""
        return self.images >= self._limits.images

    @property
    def will_be_full(self) -> bool:
        """Whether there will be none for a request that comes now."""
        return self.images + self.announced >= self._limits.images

    @contextlib.contextmanager
    def take(self, images: int) -> Iterator[None]:
        """Places for images.

        Raises:
            Busy: where there are fewer.
        """
        if self.images + images > self._limits.images:
            raise Busy
        self.images += images
        try:
            yield
        finally:
            self.images -= images

    def receive(self, count: int) -> None:
        """Room for bytes, which `release` gives back.

        Raises:
            Busy: where there is no room.
        """
        if self.bytes + count > self._limits.bytes_at_once:
            raise Busy
        self.bytes += count

    def release(self, count: int) -> None:
        """Give room back."""
        self.bytes -= count

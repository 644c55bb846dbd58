"""What does the work of the application: from the bytes of images to logits."""

import asyncio
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from foveate.data.arriving import ArrivingImages
from foveate.inference.engine import BATCH, Engine
from foveate.serving.batching import Batcher
from foveate.serving.explaining import explain
from foveate.serving.metrics import Metrics

Pixels = NDArray[np.uint8]
Logits = NDArray[np.float32]


class Backend(Protocol):
    """Decodes images and asks the network; any number of requests at a time."""

    def start(self) -> None:
        """Wait until it can answer.

        Raises:
            FoveateError: when it cannot.
        """
        ...

    async def image(self, image: bytes) -> tuple[Pixels, Logits]:
        """Pixels [size, size, 3] and logits [K] of an encoded image.

        Raises:
            BadImageError: when it cannot be decoded.
            Busy: when nobody takes it on at present.
        """
        ...

    async def logits(self, pixels: Pixels) -> Logits:
        """Logits [n, K] of images [n, size, size, 3], n at least 1.

        Raises:
            Busy: when nobody takes them on at present.
        """
        ...

    async def explanation(self, method: str, pixels: Pixels, class_index: int) -> dict[str, str]:
        """What `explain` says of an image [size, size, 3].

        Raises:
            Busy: when nobody takes it on at present.
        """
        ...

    def close(self) -> None:
        """End what was started."""
        ...


class LocalBackend:
    """The network in this process, and processes of its own that decode.

    Args:
        engine: runs the network.
        decoders: processes that decode.
        decode_s: in which an image must be decoded.
        metrics: told how many images each batch has.
    """

    def __init__(self, engine: Engine, *, decoders: int, decode_s: float, metrics: Metrics) -> None:
        self._size = engine.about.size
        self._under_way = 0
        """Images that are decoded, wait or are in a batch. The thread of the event loop alone writes it."""
        self._images = ArrivingImages(engine.about.preprocessing, workers=decoders, timeout_s=decode_s)
        self._batcher = Batcher(engine, expected=lambda: self._under_way, asked=metrics.asked)

    def start(self) -> None:
        """Start the processes, and ask the network once: the first batch takes longer than all that follow."""
        self._images.start()
        self._batcher.logits(np.zeros((1, self._size, self._size, 3), np.uint8)).result()

    async def image(self, image: bytes) -> tuple[Pixels, Logits]:
        """Pixels and logits of an encoded image."""
        self._under_way += 1
        try:
            pixels = await asyncio.wrap_future(self._images.decode(image))
            logits = await asyncio.wrap_future(self._batcher.logits(pixels[None]))
        finally:
            self._under_way -= 1
        return pixels, logits[0]

    async def logits(self, pixels: Pixels) -> Logits:
        """Logits of images, batch by batch."""
        self._under_way += len(pixels)
        try:
            asked = [self._batcher.logits(pixels[at : at + BATCH]) for at in range(0, len(pixels), BATCH)]
            parts = [await asyncio.wrap_future(each) for each in asked]
        finally:
            self._under_way -= len(pixels)
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    async def explanation(self, method: str, pixels: Pixels, class_index: int) -> dict[str, str]:
        """Where the network looks in an image."""
        asked = self._batcher.call(lambda engine: explain(engine, method, pixels, class_index))
        return await asyncio.wrap_future(asked)

    def close(self) -> None:
        """Answer what the network was asked, and end the processes."""
        self._batcher.close()
        self._images.close()

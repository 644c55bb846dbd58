"""One thread that asks the network: requests that come within a few milliseconds share a batch."""

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from foveate.inference.engine import BATCH, Engine

WAIT_S = 0.004
"""For which the first image of a batch waits for others at most."""
T = TypeVar("T")


@dataclass(frozen=True)
class _Images:
    pixels: NDArray[np.uint8]
    logits: "Future[NDArray[np.float32]]"


@dataclass(frozen=True)
class _Call:
    function: Callable[[Engine], Any]
    result: "Future[Any]"


class Batcher:
    """Asks an engine from one thread, and does nothing else with it at the same time.

    Args:
        engine: runs the network.
        expected: how many images may still come before the next batch, those that wait already among them: where
            no more are under way, none is waited for.
        asked: told how many images each batch has.
    """

    def __init__(
        self, engine: Engine, *, expected: Callable[[], int] = lambda: BATCH, asked: Callable[[int], None]
    ) -> None:
        self._engine, self._expected, self._asked = engine, expected, asked
        self._waiting: deque[_Images | _Call] = deque()
        self._count = 0
        """Images that wait."""
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="inference", daemon=True)
        self._thread.start()

    def logits(self, pixels: NDArray[np.uint8]) -> "Future[NDArray[np.float32]]":
        """Logits [n, K] of images [n, H, W, 3], at most `BATCH`."""
        result: Future[NDArray[np.float32]] = Future()
        self._put(_Images(pixels, result), len(pixels))
        return result

    def call(self, function: Callable[[Engine], T]) -> "Future[T]":
        """What `function` says of the engine, when its turn has come."""
        result: Future[T] = Future()
        self._put(_Call(function, result), 0)
        return result

    def close(self) -> None:
        """Do what was asked for, and no more."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    def _put(self, item: _Images | _Call, images: int) -> None:
        with self._changed:
            self._waiting.append(item)
            self._count += images
            self._changed.notify()

    def _run(self) -> None:
        while (taken := self._take()) is not None:
            if isinstance(taken, _Call):
                with _told(taken.result):
                    taken.result.set_result(taken.function(self._engine))
            else:
                self._ask(taken)

    def _take(self) -> list[_Images] | _Call | None:
        """The next batch, or the next call; None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closing)
            if not self._waiting:
                return None
            until = time.monotonic() + WAIT_S
            while self._count < min(BATCH, self._expected()) and not self._closing:
                left = until - time.monotonic()
                if left <= 0:
                    break
                self._changed.wait(left)
            first = self._waiting.popleft()
            if isinstance(first, _Call):
                return first
            batch, count = [first], len(first.pixels)
            while self._waiting:
                following = self._waiting[0]
                if isinstance(following, _Call) or count + len(following.pixels) > BATCH:
                    break
                self._waiting.popleft()
                batch.append(following)
                count += len(following.pixels)
            self._count -= count
            return batch

    def _ask(self, batch: list[_Images]) -> None:
        pixels = batch[0].pixels if len(batch) == 1 else np.concatenate([each.pixels for each in batch])
        self._asked(len(pixels))
        with _told(*(each.logits for each in batch)):
            logits = self._engine.logits(pixels)
            start = 0
            for each in batch:
                each.logits.set_result(logits[start : start + len(each.pixels)])
                start += len(each.pixels)


@contextlib.contextmanager
def _told(*futures: "Future[Any]") -> Any:
    """Give an exception to those who wait, and go on."""
    try:
        yield
    except Exception as error:  # whatever it is, it is theirs
        for each in futures:
            if not each.done():
                each.set_exception(error)

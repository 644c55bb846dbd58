"""Fixtures that several folders of tests share."""

import contextlib
import io
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from PIL import Image
from tests.commands import undrawn

# Keras, the oracle of some tests, reads this when it is imported.
os.environ["KERAS_BACKEND"] = "torch"
# As the command line does it: threads that wait for each other sleep. Read when torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
if "PYTEST_XDIST_WORKER" in os.environ:
    # As many workers as processors, with as many threads each, wait for each other most of the time.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
# No test is timed: on a busy machine any of them may be slow.
settings.register_profile("foveate", deadline=None)
settings.load_profile("foveate")


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep every test out of the user's cache."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("FOVEATE_CACHE", str(folder))
    return folder


@pytest.fixture(autouse=True)
def own_seeds() -> None:
    """Begin every test with the same random numbers, whatever ran before it: else one in a thousand fails."""
    if (torch := sys.modules.get("torch")) is not None:
        torch.manual_seed(0)


@pytest.fixture
def blank_plots(request: pytest.FixtureRequest) -> Iterator[None]:
    """Draw nothing, unless a test asks for `drawn_plots`: plots are 95 % of what a tiny run costs."""
    with contextlib.nullcontext() if "drawn_plots" in request.fixturenames else undrawn():
        yield


@pytest.fixture
def drawn_plots() -> None:
    """Draw plots as they are; tests/report draws each of them."""


@pytest.fixture(scope="session")
def cifar10() -> str:
    """The folder of the real CIFAR-10."""
    folder = os.environ.get("FOVEATE_DATA")
    if not folder:
        pytest.skip("needs the real CIFAR-10: set FOVEATE_DATA to the folder that holds it")
    return folder


@pytest.fixture(scope="session")
def ants_bees(cifar10: str) -> Path:
    """The folder of real photographs of ants and bees, in `train` and `val`, which lies beside CIFAR-10."""
    folder = Path(cifar10).parent / "ants-bees"
    if not folder.is_dir():
        pytest.skip("needs photographs of ants and bees: a folder `ants-bees` beside FOVEATE_DATA")
    return folder


@pytest.fixture(scope="session")
def cifar10_images(cifar10: str) -> Callable[[str, int], tuple[np.ndarray, np.ndarray]]:
    """Gives the first images [N, 32, 32, 3] and labels [N] of a split, without decoding all others."""

    import pyarrow.parquet as pq

    def first(split: str, count: int) -> tuple[np.ndarray, np.ndarray]:
        rows = pq.read_table(min(Path(cifar10).rglob(f"{split}-*.parquet"))).slice(0, count).to_pylist()
        pixels = [np.asarray(Image.open(io.BytesIO(row["img"]["bytes"]))) for row in rows]
        return np.stack(pixels), np.array([row["label"] for row in rows])

    return first


@pytest.fixture
def photographs(tmp_path: Path) -> Callable[..., Path]:
    """Makes a folder of JPEG files, `root/<class>/<number>.jpg`, whose classes differ in colour."""

    def make(
        name: str = "photographs", *, classes: tuple[str, ...] = ("red", "green", "blue"), each: int = 12
    ) -> Path:
        rng = np.random.default_rng(len(name))
        root = tmp_path / name
        for channel, label in enumerate(classes):
            (root / label).mkdir(parents=True)
            for number in range(each):
                pixels = rng.integers(0, 120, (20, 24, 3), dtype=np.uint8)
                pixels[..., channel % 3] += 120
                Image.fromarray(pixels).save(root / label / f"{number}.jpg")
        return root

    return make


@pytest.fixture
def open_search(tmp_path: Path) -> Callable[..., Any]:
    """A study of simulated trials in a folder, as far as it came."""
    from tests.studies import open_search  # imports torch, which reads what is set above

    return lambda folder=tmp_path, **settings: open_search(folder, **settings)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Makes a real file system of a size, such as `64k`."""
    mounted: list[Path] = []

    def make(size: str) -> Path:
        disk = tmp_path / f"disk-{size}"
        disk.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(disk)]
        if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
            pytest.skip("mounting a small file system needs root, and a machine that lets a test do it")
        mounted.append(disk)
        return disk

    yield make
    for disk in mounted:
        subprocess.run(["umount", str(disk)], check=True)

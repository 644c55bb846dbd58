"""Reports as `evaluation` makes them, and pages of plain data around them."""

import io
import shutil
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from foveate.evaluation import score
from foveate.model.layers import LayerRow, LayerTable
from foveate.model.receptive_field import Sight
from foveate.report.run_folder import measured_splits, mistake
from foveate.report.run_page import DatasetSummary, RunPage
from foveate.report.sections import Picture
from foveate.training.measured import Measured
from foveate.training.state import EpochResult

CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
NASTY = (
    "<script>alert('a')</script>",
    "$5 & more_than^that$",
    "two\nlines",
    "猫と犬",
    '"quoted" onerror=alert(1)',
    "x" * 200,
)


@pytest.fixture(scope="session")
def nasty() -> tuple[str, ...]:
    """Class names that break what does not escape or measure them."""
    return NASTY


@pytest.fixture(scope="session")
def scored() -> Callable[..., Measured]:
    """Makes what `metrics.json` holds of a model that is mostly right; the larger `skill`, the more often."""

    @cache
    def make(
        names: tuple[str, ...] = CIFAR10,
        *,
        images: int = 600,
        skill: float = 3.0,
        seed: int = 0,
        groups: tuple[str, ...] = (),
    ) -> Measured:
        rng = np.random.default_rng(seed)
        labels = rng.integers(len(names), size=images)
        logits = rng.normal(size=(images, len(names)))
        logits[np.arange(images), labels] += skill
        of_groups = rng.choice(groups, images).tolist() if groups else None
        report = score(logits, labels, names, of_groups, resamples=50).to_dict()
        return measured_splits({"all": {**report, "variants": {}, "gate": None}})["all"]

    return make


@pytest.fixture(scope="session")
def epochs() -> Callable[..., list[EpochResult]]:
    """Makes a history of `count` epochs; those that `validated` leaves out were not validated."""

    def make(count: int = 45, *, validated: Callable[[int], bool] = lambda _: True) -> list[EpochResult]:
        rows: list[EpochResult] = []
        for epoch in range(1, count + 1):
            there = validated(epoch)
            rows.append(
                EpochResult(
                    epoch=epoch,
                    train_loss=0.35 + 1.4 * 0.9**epoch,
                    train_accuracy=0.88 - 0.5 * 0.9**epoch,
                    val_loss=0.5 + 1.1 * 0.88**epoch + 0.08 * (epoch % 3) if there else None,
                    val_accuracy=0.85 - 0.42 * 0.88**epoch - 0.03 * (epoch % 3) if there else None,
                    val_macro_f1=0.84 if there else None,
                    lr=1e-3,
                    seconds=61.5,
                    images_per_s=650.4,
                )
            )
        return rows

    return make


@pytest.fixture(scope="session")
def mistakes() -> Callable[..., list[Picture]]:
    """Makes `count` mistakes, whose pictures are noise: the heaviest a PNG can be."""

    def make(count: int = 24, *, names: Sequence[str] = CIFAR10, size: int = 32) -> list[Picture]:
        rng = np.random.default_rng(0)

        def picture() -> bytes:
            buffer = io.BytesIO()
            Image.fromarray(rng.integers(0, 256, (size, size, 3), dtype=np.uint8)).save(buffer, format="png")
            return buffer.getvalue()

        return [
            mistake(
                picture(),
                f"test-00000-of-00001.parquet#{number}",
                true=names[number % len(names)],
                predicted=names[(number + 1) % len(names)],
                confidence=1 - number / 100,
            )
            for number in range(count)
        ]

    return make


@pytest.fixture(scope="session")
def paged(scored: Callable[..., Measured]) -> Callable[..., RunPage]:
    """Makes the page of a model of CIFAR-10's classes, only validated; other fields as given."""

    def make(names: tuple[str, ...] = CIFAR10, **fields: Any) -> RunPage:
        counts = {split: dict.fromkeys(names, 4000) for split in ("train", "validation", "test")}
        of_data = {key: fields.pop(key) for key in ("bad", "notes", "mistakes", "abstaining") if key in fields}
        plain = {
            "title": "cifar10-paper",
            "subtitle": f"{len(names)} classes, seed 0",
            "dataset": DatasetSummary(name="cifar10", size=32, counts=counts, **of_data),
            "reports": {"validation": scored(names)},
        }
        return RunPage(**plain | fields)

    return make


@pytest.fixture(scope="session")
def run(
    paged: Callable[..., RunPage],
    epochs: Callable[..., list[EpochResult]],
    mistakes: Callable[..., list[Picture]],
) -> Callable[..., RunPage]:
    """Makes the page of a run that has all there is to show, with 24 mistakes."""

    def make(names: tuple[str, ...] = CIFAR10, **fields: Any) -> RunPage:
        plain = {
            "history": epochs(),
            "settings": {
                "preset": "paper",
                "data": {"size": 32, "val_fraction": 0.2},
                "model": {"attention": "luong_row", "stages": [{"filters": 64, "kernels": [3, 3]}]},
                "train": {"epochs": 45, "seed": 1, "gradient_clip": None, "compile": False},
            },
            "environment": {"processor": "a processor", "threads": 2, "versions": {"torch": "2.13.0"}},
            "timing": {"train_s": 2767.5, "images_per_s": 650.4, "epochs": 45},
            "layers": LayerTable(
                rows=(
                    LayerRow("stages.0.convs.0", "Conv2d", (32, 32, 64), 1792),
                    LayerRow("stages.0.attention", "LuongRowAttention2d", (16, 16, 64), 0),
                    LayerRow("head.dense", "Linear", (512,), 3277312),
                ),
                trainable=5370314,
                non_trainable=640,
                sight=Sight(32, 26, 6, (6, 32)),
            ),
            "attention": "luong_row",
            "mistakes": mistakes(names=names),
            "command": "foveate train cifar10 --preset paper",
        }
        return paged(names, **plain | fields)

    return make


@pytest.fixture
def look() -> Callable[[Path, int, str], None]:
    """Opens a page in a browser: nothing is too wide, nothing is loaded, no text is faint, or large in a plot."""

    def look(path: Path, width: int, scheme: str) -> None:
        sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install '.[browser]'")
        chromium = shutil.which("chromium")
        if not chromium:
            pytest.skip("needs chromium, as from Debian's package of that name")
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        with sync_api.sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium, args=arguments)
            page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
            asked: list[str] = []
            complaints: list[str] = []
            page.on("request", lambda request: asked.append(request.url))
            page.on("console", lambda message: complaints.append(message.text))
            page.goto(path.as_uri())
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
            assert page.evaluate(OVERFLOWS) == []
            assert [url for url in asked if not url.startswith("data:")] == [path.as_uri()]
            assert complaints == []
            assert min(page.evaluate(CONTRASTS)) >= 4.5
            assert max(page.evaluate(LETTERS), default=0) <= 16  # the page's own
            assert page.evaluate(MOVING_CAPTIONS) == []
            assert page.evaluate(TOWERS) == []
            browser.close()

    return look


OVERFLOWS = """() => {
  // Text that reaches out of the box it stands in, unless that scrolls or cuts it on purpose.
  const kinds = '.headline > div, .card, .mistakes figure, figcaption, header, pre, nav';
  const boxes = [...document.querySelectorAll(kinds)];
  const range = document.createRange();
  return boxes.flatMap(box => {
    const edge = box.getBoundingClientRect().right;
    const walker = document.createTreeWalker(box, NodeFilter.SHOW_TEXT);
    const out = [];
    while (walker.nextNode()) {
      const node = walker.currentNode, parent = node.parentElement;
      if (!node.data.trim() || parent.closest('svg, .scroll, .mistakes small')) continue;
      range.selectNodeContents(node);
      if (range.getBoundingClientRect().right > edge + .5) out.push(node.data.trim());
    }
    return out;
  });
}"""

LETTERS = """() => [...document.querySelectorAll('figure svg')].flatMap(svg => {
  const scale = svg.getBoundingClientRect().width / svg.viewBox.baseVal.width;
  return [...svg.querySelectorAll('text')].map(text => scale * parseFloat(getComputedStyle(text).fontSize));
})"""

MOVING_CAPTIONS = """() => [...document.querySelectorAll('caption, .caption')]
  .filter(e => e.closest('.scroll') || e.scrollWidth > e.clientWidth + 1).map(e => e.textContent)"""

TOWERS = """() => [...document.querySelectorAll('thead th:not(:has(small))')].filter(e => {
  // A heading of a column that has more lines than words: it is broken within them.
  const range = document.createRange();
  range.selectNodeContents(e);
  const lines = new Set([...range.getClientRects()].map(rect => Math.round(rect.top)));
  return lines.size > e.innerText.split(/[\\s_]+/).length;
}).map(e => e.textContent)"""

CONTRASTS = """() => {
  const parse = text => text.match(/[\\d.]+/g).map(Number);
  const luminance = ([r, g, b]) => [r, g, b]
    .map(v => v / 255).map(v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
  const ground = element => {
    for (let e = element; e; e = e.parentElement) {
      const colour = parse(getComputedStyle(e).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  return [...document.querySelectorAll('p, small, td, th, dt, figcaption, a, h1, h2, h3, summary')].map(e => {
    const [a, b] = [luminance(parse(getComputedStyle(e).color)), luminance(ground(e))].sort((x, y) => y - x);
    return (a + .05) / (b + .05);
  });
}"""

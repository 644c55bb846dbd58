"""The exported page in Chromium against the file that it holds, under ONNX Runtime, fed by Pillow.

For each image file: whether the class is the same, and how far apart the pixels are that each side made of it. The
page is opened from file://, with no network to be had.

    python benchmarks/web_page.py EXPORTED IMAGES…
"""

import base64
import shutil
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from playwright.sync_api import Page, sync_playwright

from foveate.data.decode import decode_file
from foveate.inference.onnx import OnnxEngine
from harness import begin, command_line, print_goal, write_record

GOAL_EQUAL = 0.995
ASK = """async ([base64]) => {
  const text = atob(base64);
  const blob = new Blob([Uint8Array.from(text, (letter) => letter.charCodeAt(0))]);
  const began = performance.now();
  const told = await window.foveate.ask(blob);
  const ms = performance.now() - began;
  return { label: told.order[0], ms, pixels: btoa(String.fromCharCode(...told.pixels)) };
}"""


def main() -> None:
    """Ask both sides about each image, and print the shares."""
    parser = command_line(__doc__, chromium=shutil.which("chromium") or "chromium")
    parser.add_argument("exported", type=Path, help="folder made by `foveate export --web`")
    parser.add_argument("images", type=Path, nargs="+", help="folders of image files, or files")
    arguments = begin(parser)
    held = "model-int8.onnx" if (arguments.exported / "model-int8.onnx").exists() else "model.onnx"
    engine, requests = OnnxEngine(arguments.exported / held), list[str]()
    found: dict[str, Any] = {"file": held, "sets": {}}
    with sync_playwright() as playwright:
        flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = playwright.chromium.launch(executable_path=arguments.chromium, args=flags)
        page = browser.new_context(offline=True).new_page()
        page.on("request", lambda request: requests.append(request.url))
        page.goto((arguments.exported / "index.html").resolve().as_uri())
        page.get_by_text("Ready.").wait_for()
        found["browser"] = browser.version
        for place in arguments.images:
            files = sorted(each for each in place.rglob("*") if each.is_file()) if place.is_dir() else [place]
            equal, mean_off, most_off, ms = zip(*compared(page, engine, files), strict=True)
            found["sets"][place.name] = {
                "images": len(files),
                "equal": float(np.mean(equal)),
                "pixels_identical": float(np.mean(np.equal(most_off, 0))),
                "mean_difference": float(np.mean(mean_off)),
                "largest_difference": max(most_off),
                "ms": statistics.median(ms),
            }
        found["requests"] = [url for url in requests if not url.startswith(("blob:", "data:", "file:"))]
        browser.close()
    for name, each in found["sets"].items():
        print(f"{name}: {each}")
    total = sum(each["images"] for each in found["sets"].values())
    found["equal"] = sum(each["equal"] * each["images"] for each in found["sets"].values()) / total
    print(f"requests: {found['requests'] or 'none'}")
    reached = print_goal(f"same class, share of {total} images", found["equal"], "≥", GOAL_EQUAL)
    write_record(arguments.json, found)
    sys.exit(not reached)


def compared(page: Page, engine: OnnxEngine, files: list[Path]) -> Iterator[tuple[bool, float, int, float]]:
    """For each file: whether the class is the same, the mean and largest difference of pixels, milliseconds."""
    for file in files:
        pixels = decode_file(file, engine.about.preprocessing)
        told = page.evaluate(ASK, [base64.b64encode(file.read_bytes()).decode()])
        there = np.frombuffer(base64.b64decode(told["pixels"]), np.uint8).reshape(pixels.shape)
        off = np.abs(there.astype(int) - pixels)
        equal = told["label"] == int(engine.logits(pixels[None])[0].argmax())
        yield equal, float(off.mean()), int(off.max()), told["ms"]


if __name__ == "__main__":
    main()

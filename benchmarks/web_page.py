"""The exported page in Chromium against the file that it holds, under ONNX Runtime, fed by Pillow.

Of each image file: whether the class is the same, and how far the pixels are that each made of it. The page is
opened from file://, with no network to be had.

    python benchmarks/web_page.py EXPORTED IMAGES…
"""

import argparse
import base64
import json
import shutil
import statistics
import sys
from pathlib import Path
from typing import Any

import numpy as np

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
    """Ask both about each image, and print the shares."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("exported", type=Path, help="folder made by `foveate export --web`")
    parser.add_argument("images", type=Path, nargs="+", help="folders of image files, or files")
    parser.add_argument("--chromium", default=shutil.which("chromium"))
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()

    from playwright.sync_api import sync_playwright

    from foveate.data.decode import decode_file
    from foveate.inference.onnx import OnnxEngine

    held = "model-int8.onnx" if (arguments.exported / "model-int8.onnx").exists() else "model.onnx"
    engine = OnnxEngine(arguments.exported / held)
    found: dict[str, Any] = {"file": held, "sets": {}}
    with sync_playwright() as playwright:
        flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = playwright.chromium.launch(executable_path=arguments.chromium, args=flags)
        context = browser.new_context(offline=True)
        page = context.new_page()
        requests: list[str] = []
        page.on("request", lambda request: requests.append(request.url))
        page.goto((arguments.exported / "index.html").resolve().as_uri())
        page.get_by_text("Ready.").wait_for()
        found["browser"] = browser.version
        for place in arguments.images:
            files = sorted(each for each in place.rglob("*") if each.is_file()) if place.is_dir() else [place]
            equal, pixels_off, pixels_most, times = [], [], [], []
            for file in files:
                pixels = decode_file(file, engine.about.size, engine.about.white)
                told = page.evaluate(ASK, [base64.b64encode(file.read_bytes()).decode()])
                there = np.frombuffer(base64.b64decode(told["pixels"]), np.uint8).reshape(pixels.shape)
                off = np.abs(there.astype(int) - pixels)
                equal.append(told["label"] == int(engine.logits(pixels[None])[0].argmax()))
                pixels_off.append(float(off.mean()))
                pixels_most.append(int(off.max()))
                times.append(told["ms"])
            found["sets"][str(place.name)] = {
                "images": len(files),
                "equal": float(np.mean(equal)),
                "pixels_identical": float(np.mean(np.equal(pixels_most, 0))),
                "mean_difference": float(np.mean(pixels_off)),
                "largest_difference": max(pixels_most),
                "ms": statistics.median(times),
            }
        found["requests"] = [url for url in requests if not url.startswith(("blob:", "data:", "file:"))]
        browser.close()
    for name, each in found["sets"].items():
        print(f"{name}: {each}")
    total = sum(each["images"] for each in found["sets"].values())
    share = sum(each["equal"] * each["images"] for each in found["sets"].values()) / total
    found["equal"] = share
    print(
        f"same class: {share:.4f} of {total} images (goal {GOAL_EQUAL}); requests: {found['requests'] or 'none'}"
    )
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")
    sys.exit(share < GOAL_EQUAL)


if __name__ == "__main__":
    main()

"""The page: the resize in it is Pillow's, it gives the file's answers in a browser, and loads nothing."""

import base64
import io
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
import PIL
import pytest
from PIL import Image
from tests import exported

from foveate.data.decode import resize_array
from foveate.errors import ConfigError
from foveate.exporting import web
from foveate.exporting.web import Assets, read_assets, web_page
from foveate.inference.predictor import Predictor
from foveate.preprocessing import Fit, Preprocessing

NASTY = (
    "<script>alert(1)</script>",
    "</script><img src=x onerror=alert(1)>",
    "@TITLE@ 🦊 =1+1 \u2028" + "x" * 300,
)
RESIZE = Path(web.__file__).with_name("page") / "resize.js"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install '.[browser]'")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("needs Debian's chromium")
    with sync_api.sync_playwright() as playwright:
        flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        launched = playwright.chromium.launch(executable_path=chromium, args=flags)
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def assets() -> Assets:
    try:
        return read_assets(None)
    except ConfigError as error:
        pytest.skip(f"needs onnxruntime-web: {error}")


def page_of(folder: Path, assets: Assets, **changes: Any) -> Path:
    model = exported.write(folder / "model.onnx", **changes)
    path = folder / "index.html"
    title = str(changes.get("names", ["pets"])[0])
    path.write_bytes(web_page(title, model.read_bytes(), exported.card(**changes), assets))
    return path


@pytest.mark.browser
@pytest.mark.parametrize("fit", get_args(Fit))
def test_the_resize_in_the_page_is_pillows_bit_for_bit(fit: Fit, browser: Any) -> None:
    page, rng = browser.new_page(), np.random.default_rng(0)
    page.add_script_tag(content=RESIZE.read_text())
    # Of an image that is much higher than wide, versions before 13 begin with the rows: the last bit may differ.
    exact = int(PIL.__version__.split(".")[0]) >= 13
    for number in range(120):
        width, height = (int(each) for each in rng.integers(1, 300, 2))
        size = int(rng.choice([16, 19, 32, 64]))
        if number % 6 == 0:
            width = size
        if number % 4 == 0:
            height = size
        if number % 10 == 0:
            width, height = ((1, height), (width, 1))[number % 20 // 10]
        pixels = rng.integers(0, 256, (height, width, 4), np.uint8)
        made = page.evaluate(
            "([text, width, height, size, how]) => Array.from(fit("
            "Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)), width, height, size, how))",
            [base64.b64encode(pixels.tobytes()).decode(), width, height, size, fit],
        )
        wanted = resize_array(pixels[..., :3].copy(), Preprocessing(size, fit))
        off = np.abs(np.reshape(made, wanted.shape) - wanted.astype(int)).max()
        assert off <= (0 if exact or height <= width else 1), (width, height, size)


@pytest.mark.browser
@pytest.mark.parametrize("fit", get_args(Fit))
def test_a_browser_gives_the_answers_of_the_file_and_loads_nothing(
    fit: Fit, browser: Any, assets: Assets, tmp_path: Path
) -> None:
    page = browser.new_context(offline=True).new_page()
    asked: list[str] = []
    wrong: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    page.goto(page_of(tmp_path, assets, fit=fit).as_uri())
    page.get_by_text("Ready.").wait_for()
    predictor, rng, alike = Predictor.load(tmp_path / "model.onnx"), np.random.default_rng(1), 0
    for number in range(24):
        file = io.BytesIO()
        pixels = rng.integers(0, 256, (6, 7, 4 if number % 3 == 0 else 3), np.uint8)
        side = (int(rng.integers(10, 90)), int(rng.integers(10, 90)))
        image = Image.fromarray(pixels).resize(side, Image.Resampling.BICUBIC)
        image.save(file, "PNG" if number % 3 == 0 else ("JPEG", "WEBP")[number % 2], quality=90)
        told = page.evaluate(
            """async ([text]) => {
              const blob = new Blob([Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0))]);
              const { order, probabilities, set, unlike } = await window.foveate.ask(blob);
              return { order, probabilities, set, unlike };
            }""",
            [base64.b64encode(file.getvalue()).decode()],
        )
        (wanted,) = predictor.predict(file.getvalue(), coverage=0.95)
        assert wanted.probabilities is not None
        assert exported.NAMES[told["order"][0]] == wanted.label
        assert told["probabilities"] == pytest.approx(wanted.probabilities.tolist(), abs=0.02)
        if np.abs(np.array(told["probabilities"]) - wanted.probabilities).max() < 1e-5:  # of the same pixels
            alike += 1
            assert [exported.NAMES[each] for each in told["set"]] == list(wanted.set or ())
            assert told["unlike"] == wanted.unlike
    assert alike > 12
    assert wrong == []
    assert all(url.startswith(("file:", "blob:")) for url in asked)


@pytest.mark.browser
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_names_of_any_kind_are_shown_and_do_nothing(
    browser: Any, assets: Assets, tmp_path: Path, width: int, scheme: str
) -> None:
    Image.fromarray(exported.images(1, size=40)[0]).save(tmp_path / "image.png")
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    opened: list[str] = []
    page.on("dialog", lambda dialog: opened.append(dialog.message))
    page.goto(page_of(tmp_path, assets, names=tuple(name.replace("\u2028", "") for name in NASTY)).as_uri())
    page.get_by_text("Ready.").wait_for()
    page.set_input_files("#file", tmp_path / "image.png")
    page.locator("#result").wait_for()
    shown = page.locator("#bars b").all_inner_texts()
    assert sorted(shown) == sorted(name.replace("\u2028", "") for name in NASTY)
    page.get_by_role("button", name="Where it looked").click()
    page.locator("#map").wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") == width
    (tmp_path / "none.png").write_bytes(b"none")
    page.set_input_files("#file", tmp_path / "none.png")
    page.get_by_text("not an image that the browser can read").wait_for()
    page.get_by_text("Licences").click()
    page.get_by_role("button", name="Show the notices").click()
    page.get_by_text("THIRD PARTY", exact=False).first.wait_for()
    assert opened == []


def test_what_a_class_is_called_ends_no_script_and_fills_no_place(tmp_path: Path) -> None:
    card = exported.card(names=tuple(name.replace("\u2028", "") for name in NASTY))
    text = web_page("</title><b>@MODEL@", b"model", card, Assets(b"script", b"wasm")).decode()
    assert "<b>@MODEL@" not in text
    told = re.search(r'id="card">(.*?)</script>', text)
    assert told is not None
    assert json.loads(told[1])["names"] == list(card.names)
    assert text.count("<script") == text.count("</script>") == 6
    assert "default-src 'none'" in text
    assert "http:" not in text.split("<pre>")[0]


def test_a_page_holds_nothing_of_the_machine_that_made_it(tmp_path: Path) -> None:
    text = web_page("pets", b"model", exported.card(), Assets(b"script", b"wasm")).decode()
    assert str(Path.home()) not in text
    assert "site-packages" not in text


@pytest.mark.parametrize("kind", ["absent", "other"])
def test_without_the_right_assets_one_line_says_how_to_get_them(kind: str, tmp_path: Path) -> None:
    if kind == "other":
        for name in web._SHA256:
            (tmp_path / name).write_bytes(b"evil")
    with pytest.raises(ConfigError, match="make web") as caught:
        read_assets(tmp_path)
    assert "--web-assets" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_makefile_fetches_the_version_that_is_asked_for() -> None:
    made = Path(web.__file__).parents[3] / "Makefile"
    assert f"onnxruntime-web@{web.RUNTIME_VERSION}" in made.read_text()


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node")
def test_the_scripts_of_the_page_are_javascript() -> None:
    for name in ("page.js", "resize.js"):
        subprocess.run(["node", "--check", RESIZE.with_name(name)], check=True, capture_output=True)

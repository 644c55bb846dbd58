"""The page in a real browser: an image is answered, no class name is run, and nothing is asked of anyone else."""

import base64
import contextlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.serving.conftest import CLASSES, Server, served, write_model
from tests.serving.test_server import picture

from foveate.preprocessing import Fit, Preprocessing

CHROMIUM = shutil.which("chromium")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="needs chromium, as from Debian's package of that name"),
]
playwright = pytest.importorskip("playwright.sync_api")


FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
# A camera that shows a test picture, and that every page may use.
FLAGS += ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
GIVE = """([image, type]) => {
    const bytes = Uint8Array.from(atob(image), (each) => each.charCodeAt(0));
    const data = new DataTransfer();
    data.items.add(new File([bytes], "given.png", { type: "image/png" }));
    const event = type === "drop" ? new DragEvent(type, { dataTransfer: data, bubbles: true, cancelable: true })
        : new ClipboardEvent(type, { clipboardData: data, bubbles: true, cancelable: true });
    document.body.dispatchEvent(event);
}"""
"""Drops or pastes an image, as a browser does for a person."""


@contextlib.contextmanager
def opened(url: str, *, width: int = 1280, scheme: str = "light") -> Iterator[Any]:
    """The page; afterwards it has raised nothing, opened no dialog of the browser, and asked nobody else."""
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        asked: list[str] = []
        faults: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda fault: faults.append(str(fault)))
        page.on("dialog", lambda dialog: faults.append("a dialog"))
        page.goto(url)
        yield page
        browser.close()
    assert not faults
    assert all(each.startswith((url, "data:", "blob:")) for each in asked), asked


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_an_image_is_answered_and_shown_where_it_looked(
    server: Server, tmp_path: Path, width: int, scheme: str
) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)).save(path)
    with opened(server.url, width=width, scheme=scheme) as page:
        page.locator("input[type=file]").first.set_input_files([path, path])
        page.get_by_role("button", name="Show where it looked").click()
        page.get_by_text("by Grad-CAM").wait_for()
        text = page.locator("body").inner_text()
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert any(name in text for name in CLASSES)


@pytest.mark.parametrize("way", ["drop", "paste"])
def test_an_image_is_dropped_or_pasted(server: Server, way: str) -> None:
    with opened(server.url) as page:
        page.evaluate(GIVE, [base64.b64encode(picture()).decode(), way])
        page.locator("#answer").wait_for()
        assert page.locator("#file-name").inner_text() == "given.png"
        assert page.locator("#classes li").count() == 5


@pytest.mark.parametrize(
    ("fit", "left", "top"),
    [
        ("crop", (0, 255, 0), (0, 255, 0)),
        ("squash", (255, 0, 0), (0, 255, 0)),
        ("pad", (255, 0, 0), (127, 127, 127)),
    ],
)
def test_an_image_is_shown_as_it_is_fitted(
    tmp_path: Path, fit: Fit, left: tuple[int, ...], top: tuple[int, ...]
) -> None:
    path = tmp_path / "a.png"
    image = Image.new("RGB", (400, 200), "red")
    image.paste((0, 255, 0), (100, 0, 400, 200))
    image.save(path)
    model = write_model(tmp_path / "weights.safetensors", Preprocessing(16, fit))
    with served(model, "--decoders", "1") as server, opened(server.url) as page:
        page.locator("input[type=file]").first.set_input_files(path)
        page.locator("#answer").wait_for()
        for x, y, colour in ((64, 320, left), (320, 16, top), (560, 320, (0, 255, 0))):
            shown = page.locator("#picture").evaluate(
                "(canvas, [x, y]) => [...canvas.getContext('2d').getImageData(x, y, 1, 1).data]", [x, y]
            )
            assert tuple(shown) == (*colour, 255)


def test_images_that_are_too_many_are_not_left_out_without_a_word(server: Server, tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.png" for number in range(63)]
    for path in paths:
        Image.new("RGB", (8, 8)).save(path)
    with opened(server.url) as page:
        page.locator("input[type=file]").first.set_input_files(paths)
        page.get_by_text("Left out: 3 of 63 images").wait_for()
        assert page.locator("#history li").count() == 60


def test_an_address_that_is_dropped_is_not_fetched(server: Server) -> None:
    with opened(server.url) as page:
        page.evaluate(
            """() => {
                const data = new DataTransfer();
                data.setData("text/uri-list", "https://example.org/a.png");
                document.body.dispatchEvent(new DragEvent("drop", { dataTransfer: data, bubbles: true }));
            }"""
        )
        assert "The server fetches nothing" in page.get_by_role("alert").inner_text()


def test_a_picture_is_taken_by_the_camera(server: Server) -> None:
    with opened(server.url) as page:
        page.get_by_role("button", name="Use the camera").click()
        # Not `wait_for_function`, which the page's policy forbids, as it is `eval`.
        page.locator("#video").evaluate(
            "video => video.videoWidth || new Promise((done) => video.addEventListener('loadeddata', done))"
        )
        page.get_by_role("button", name="Take the picture").click()
        page.locator("#answer").wait_for()
        assert page.locator("#file-name").inner_text() == "camera.jpg"
        assert page.evaluate("document.getElementById('video').srcObject") is None  # the camera is off again


def test_the_token_is_asked_for_until_it_is_right(serve: Callable[..., Any]) -> None:
    token = "a-token-of-enough-letters"
    with serve("--token", token) as server, opened(server.url) as page:
        for given in ("wrong", token):
            page.get_by_label("Token, which").fill(given)
            page.get_by_role("button", name="Use it").click()
        page.get_by_text("knows 6 classes").wait_for()
        page.evaluate(GIVE, [base64.b64encode(picture()).decode(), "paste"])
        page.locator("#answer").wait_for()


def test_an_image_that_cannot_be_read_is_told_and_the_next_is_answered(server: Server) -> None:
    with opened(server.url) as page:
        for content in (b"no image", picture()):
            page.evaluate(GIVE, [base64.b64encode(content).decode(), "drop"])
            page.get_by_text("could not be read").wait_for()
        page.locator("#answer").wait_for()
        assert page.locator("#history li").count() == 2

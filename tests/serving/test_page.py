"""The page in a real browser: an image is answered, no class name is run, and nothing is asked of anyone else."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.serving.conftest import CLASSES, Server

CHROMIUM = shutil.which("chromium")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="needs chromium, as from Debian's package of that name"),
]
playwright = pytest.importorskip("playwright.sync_api")


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_an_image_is_answered_and_shown_where_it_looked(
    server: Server, tmp_path: Path, width: int, scheme: str
) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)).save(path)
    with playwright.sync_playwright() as started:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = started.chromium.launch(executable_path=CHROMIUM, args=arguments)
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        asked, faults = [], []
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda fault: faults.append(str(fault)))
        page.on("dialog", lambda dialog: faults.append("a dialog"))
        page.goto(server.url)
        page.locator("input[type=file]").first.set_input_files([path, path])
        page.get_by_role("button", name="Show where it looked").click()
        page.wait_for_load_state("networkidle")
        text = page.locator("body").inner_text()
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        browser.close()
    assert not faults
    assert any(name in text for name in CLASSES)
    own = (server.url, "data:", "blob:")
    assert all(url.startswith(own) for url in asked), asked

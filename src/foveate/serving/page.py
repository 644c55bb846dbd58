"""The page at `/`: one file, whose own script and style are all that its policy lets run."""

import base64
import hashlib
from importlib.resources import files


def _part(name: str) -> str:
    return files("foveate.serving").joinpath("page", name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"


def read_page() -> str:
    """The page, with its style and script in it."""
    return _part("page.html").replace("/* style */", _part("page.css")).replace("/* script */", _part("page.js"))


PAGE_POLICY = "; ".join(
    [
        "default-src 'none'",
        f"script-src {_digest(_part('page.js'))}",
        f"style-src {_digest(_part('page.css'))}",
        "img-src 'self' blob: data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
)
"""Content-Security-Policy: nothing from elsewhere, no other script than the page's own, in no frame."""

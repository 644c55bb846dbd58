"""The page: one HTML file in which a network classifies images offline, in any browser, by onnxruntime-web."""

import base64
import gzip
import hashlib
import html
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import distribution
from importlib.resources import files
from pathlib import Path

from foveate.errors import ConfigError
from foveate.files import read_regular
from foveate.inference.onnx_file import Card
from foveate.preprocessing import FITS

RUNTIME_VERSION = "1.30.0"
"""Of onnxruntime-web, from npm."""
_SHA256 = {
    "ort.wasm.bundle.min.mjs": "11e64bd8ffe11bd1a2a2f0d6275fdfbbba7262f0b76b99b53d228a8a22ef3d90",
    "ort-wasm-simd-threaded.wasm": "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
}
_MAX_BYTES = 64 << 20
_HERE = Path(__file__).resolve().parents[3] / "web"
"""Where `make web` puts them, in a checkout."""


@dataclass(frozen=True)
class Assets:
    """What the page takes of onnxruntime-web."""

    script: bytes
    wasm: bytes


def read_assets(folder: Path | None) -> Assets:
    """The files of onnxruntime-web in `folder`, or where `make web` puts them; their checksums are compared.

    Raises:
        ConfigError: when they are not there, or are other files.
    """
    place = folder or _HERE
    how = (
        f"run `make web` in a checkout of Foveate; or `npm pack onnxruntime-web@{RUNTIME_VERSION}`, unpack it, "
        "and name its folder package/dist by --web-assets"
    )
    found = {}
    for name, digest in _SHA256.items():
        try:
            found[name] = read_regular(place / name, _MAX_BYTES)
        except (OSError, ValueError) as error:
            raise ConfigError(f"--web needs onnxruntime-web, and {place} has no {name}: {how}") from error
        if hashlib.sha256(found[name]).hexdigest() != digest:
            raise ConfigError(f"{place / name} is not that of onnxruntime-web {RUNTIME_VERSION}: {how}")
    return Assets(*found.values())


def web_page(title: str, model: bytes, card: Card, assets: Assets, examples: Sequence[bytes] = ()) -> bytes:
    """The page, which loads nothing and sends nothing.

    Args:
        title: what the model is called.
        model: the file that it runs, and `card` its description.
        examples: PNG files that a visitor may try.
    """
    place = files("foveate").joinpath("exporting/page")
    resize, page = (place.joinpath(name).read_text(encoding="utf-8") for name in ("resize.js", "page.js"))
    script = f"\n{resize}\n{page}"
    urls = ["data:image/png;base64," + base64.b64encode(png).decode() for png in examples]
    told = json.dumps({**card.model_dump(mode="json"), "fit": FITS[card.preprocessing.resize], "examples": urls})
    parts = {
        "TITLE": html.escape(title),
        "STYLE": place.joinpath("page.css").read_text(encoding="utf-8"),
        "SCRIPT_HASH": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        "RUNTIME_VERSION": RUNTIME_VERSION,
        "LICENSE": html.escape(_of_runtime("LICENSE")),
        # Data in a script element ends at the next `</script`, and no `<` is left in it.
        "CARD": told.replace("<", "\\u003c"),
        "RUNTIME": _packed(assets.script),
        "WASM": _packed(assets.wasm),
        "MODEL": _packed(model),
        "NOTICES": _packed(_of_runtime("ThirdPartyNotices.txt").encode()),
        "SCRIPT": script,
    }
    # One pass over the template: what is put in is never looked at again, whatever a class is called.
    first, *others = place.joinpath("page.html").read_text(encoding="utf-8").split("@")
    made = [first]
    while others:
        name, after, *others = others
        made += [parts[name], after]
    return "".join(made).encode()


def _packed(content: bytes) -> str:
    return base64.b64encode(gzip.compress(content, mtime=0)).decode()


def _of_runtime(name: str) -> str:
    """A text that lies with ONNX Runtime: the licences are those of its parts, in a browser as here."""
    found = next(each for each in distribution("onnxruntime").files or () if each.name == name)
    return Path(str(found.locate())).read_text(encoding="utf-8", errors="replace")

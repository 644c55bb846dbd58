"""What the README and the docs tell a reader to type: every line is a command that there is, and most are run.

They are run as they stand, but small: a run takes one epoch, a search and a comparison as little as they can, and
CIFAR-10 is 170 random images. Where a page records what was measured, and where a command would serve, or needs a
cluster or a GPU, it is checked as far as its settings and no further.
"""

import csv
import io
import re
import shlex
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from PIL import Image
from tests.commands import undrawn
from tests.data.test_cifar10 import batches

import foveate as library
from foveate.comparison.arms import parse_arm
from foveate.config import resolve_config
from foveate.tuning.space import Space, read_space

Foveate = Callable[..., Any]

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
RECORDS = ("evidence.md", "log.md", "paper.md", "results.md", "benchmarks.md")
"""Pages that tell what was measured, by commands that take minutes to days."""
CLASSES = ("0", "1", "2")
"""Of all images: a run on digits knows them too."""
NARROW = {
    "stages": [{"filters": 4, "kernels": [3, 3], "pool": 2}, {"filters": 6, "kernels": [5, 5], "pool": 3}],
    "hidden": 8,
}
"""In place of the paper's 64 and 256 filters."""
FEW_FILTERS = {
    "stages": [{"filters": 8, "kernels": [3, 3]}, {"filters": 12, "kernels": [3, 3]}],
    "attention_stage": 2,
}
"""In place of `minute`'s three stages of up to 256 filters."""


def blocks(page: Path, language: str) -> list[str]:
    text = page.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def commands(page: Path) -> Iterator[list[str]]:
    """The words behind `foveate` of every line that calls it; `[--final]` is left out, and then given."""
    text = "".join(blocks(page, "sh")).replace("\\\n", " ")
    assigned = re.findall(r"^(\w+)=('[^'\n]*'|\S+)$", text, re.MULTILINE)
    variables = {name: value.strip("'") for name, value in assigned}
    for line in re.findall(r"^(?:\w+=\S+ |.* \| )?foveate (.*)$", text, re.MULTILINE):
        words = shlex.split(re.sub(r"\$(\w+)", lambda name: variables[name[1]], line), comments=True)
        yield [word for word in words if not word.startswith("[")]
        if any(word.startswith("[") for word in words):
            yield [word.strip("[]") for word in words]


LINES = [(page, words) for page in PAGES for words in commands(page)]


def is_run(page: Path, words: list[str]) -> bool:
    large = words[0] == "tune" and "paper" in words  # a space of networks that cannot be made small
    foreign = {"--ray", "--web", "--data-dir", "--devices", "cuda"} & {*words}
    return page.name not in RECORDS and words[0] != "serve" and not foreign and not large


def test_the_lines_are_found() -> None:
    assert len(LINES) > 80
    assert sum(is_run(*each) for each in LINES) > 50


class ReachedError(Exception):
    """The command line accepted all words, and the library is at work."""


@pytest.mark.parametrize(
    ("page", "words"), [pytest.param(*line, id=f"{line[0].name}: {' '.join(line[1])}") for line in LINES]
)
def test_a_line_is_a_command_with_settings_that_there_are(
    page: Path, words: list[str], foveate_reached: Foveate, tmp_path: Path
) -> None:
    write_settings(page, tmp_path)
    (tmp_path / "runs" / "train" / "digits-minute").mkdir(parents=True)
    (tmp_path / "runs" / "train" / "digits-minute" / "args.yaml").write_text("preset: minute\n")
    with pytest.raises(ReachedError):
        foveate_reached(*words)


@pytest.fixture
def foveate_reached(foveate: Foveate, monkeypatch: pytest.MonkeyPatch) -> Foveate:
    """The command line, where the library does no more than look at settings."""

    def reached(verb: str) -> Callable[..., None]:
        def called(*given: Any, **named: Any) -> None:
            if verb == "train":
                words = ("data_dir", "runs", "name", "final", "time", "display", "preset", "config")
                words += ("folds", "workers", "ray", "gpus")
                own = {key: value for key, value in named.items() if key not in words}
                resolve_config(named["preset"], file=named["config"], settings=own)
            elif verb == "tune":
                space = read_space(named["space"])
                if named["search"]:
                    space = space.restricted(named["search"])
                space.base(epochs=9, **named["settings"])
            elif verb in ("compare", "plan_comparison"):
                for arm in given[1]:
                    parse_arm(arm, named["settings"])
            raise ReachedError

        return called

    for verb in verbs():
        monkeypatch.setattr(library, verb, reached(verb))
    monkeypatch.setattr("foveate.data.listing.list_images", reached("predict"))
    for check in ("data.opening.check_data", "data.listing.check_images", "inference.engine.check_model"):
        monkeypatch.setattr(f"foveate.{check}", lambda *_, **__: None)  # the pages' data and runs are not there
    monkeypatch.setattr("foveate.cli.training._spread", lambda _: None)  # over other processes
    return foveate


def verbs() -> list[str]:
    """The functions of the library that the command line calls."""
    return [name for name in library.__all__ if name[0].islower() and name != "register_attention"]


def write_settings(page: Path, folder: Path) -> None:
    """The files of settings that a page shows with their names."""
    for block in blocks(page, "yaml"):
        if named := re.match(r"# (\S+\.yaml)\n", block):
            (folder / named[1]).write_text(block)


def test_the_space_that_is_shown_is_one() -> None:
    (block,) = blocks(ROOT / "docs" / "tune.md", "yaml")
    space = Space.model_validate(yaml.safe_load(block))
    space.check()


def narrower(data: Any, named: dict[str, Any]) -> dict[str, Any]:
    """Settings of a network that trains in a moment, where it is a preset's as it stands."""
    if named.get("preset") == "paper" or str(named.get("config")) == "wide.yaml":
        return NARROW
    own = {"stages", "backbone"} & named.keys() or named.get("config") or named.get("start")
    if own or named.get("preset") not in (None, "minute") or "photographs" in str(data):
        return {}
    return FEW_FILTERS


def narrow_space(space: str) -> Space:
    """A space as it is, with a quarter of the filters."""
    values = read_space(space).model_dump(mode="json")
    if "width" in values["hyperparameters"]:
        values["hyperparameters"]["width"] |= {"low": 4, "high": 16, "step": 4}
    return Space.model_validate(values)


def small(verb: str, real: Callable[..., Any], proved: bool) -> Callable[..., Any]:
    """A function of the library that does as little as it can of what it is asked for.

    Args:
        proved: whether digits are told apart, so that eight bits of the network can prove themselves.
    """
    digits = 8000 if proved else 500

    def few(data: Any) -> Any:
        """As few pictures as can be drawn, where they are drawn."""
        drawn = str(data) == "cue" or str(data).startswith("cue:")
        return f"{data}{',' if ':' in data else ':'}images=50" if drawn else data

    def train(data: Any, **named: Any) -> Any:
        named.pop("epochs", None)
        named.pop("time", None)
        length = {"epochs": 1}
        if str(data) == "digits":
            named["images_seen"], length = min(named.get("images_seen", digits), digits), {}
        named["workers"] = 0 if named.get("folds") else None
        named |= narrower(data, named)
        return real(few(data), **{**length, **named})

    def check(data: Any, **named: Any) -> Any:
        settings = {**named.pop("settings", {}), "images_seen": 100, "batch": 10}
        return real(data, settings=settings, **named)

    def tune(data: Any, **named: Any) -> Any:
        # Of few images an epoch would be thousands of passes.
        settings = {"size": 16, **named.pop("settings", {}), "passes_per_epoch": 1}
        few = {"max_epochs": 2, "factor": 2, "workers": 0, "subset": 200 if str(data) == "digits" else None}
        if "time_s" in named:  # else an hour of brackets
            few |= {"time_s": 0.1}
        return real(data, **{**named, **few, "settings": settings})

    def compare(data: Any, arms: Any, **named: Any) -> Any:
        narrow = narrower(data, {"preset": arms[0].split(",")[0]})
        settings = {**named.pop("settings", {}), "epochs": 1, **narrow}
        return real(
            few(data), arms, **{**named, "seeds": 2, "workers": 0, "controls": False, "settings": settings}
        )

    def explain_run(run: Any, **named: Any) -> Any:
        return real(run, **{**named, "images": 10})

    given = {each.__name__: each for each in (train, check, tune, compare, explain_run)}
    return {**given, "plan_comparison": compare}.get(verb, real)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What readers have who follow the docs: images in every layout, CIFAR-10, a run and its `model.onnx`."""
    root = tmp_path_factory.mktemp("reader")
    rng = np.random.default_rng(0)
    for folder in ("path/to/folder", "path/to/other/data", "DATA", "photographs", "folder", "more"):
        for label in CLASSES:
            (root / folder / label).mkdir(parents=True)
            each = {"DATA": 80, "path/to/folder": 14, "photographs": 14}.get(folder, 3)
            for number in range(each):
                pixels = rng.integers(0, 160, (32, 32, 3), np.uint8)
                pixels[..., int(label)] += 90
                kind = "png" if folder == "more" else "jpg"
                Image.fromarray(pixels).save(root / folder / label / f"{number}.{kind}")
    for number, image in enumerate(sorted((root / "more").rglob("*.png"))[:3]):
        shutil.copy(image, root / "more" / f"{number}.png")
    (root / "new").mkdir()
    for name in ("photo.jpg", "a.jpg", "new/1.jpg"):
        shutil.copy(root / "DATA" / "1" / "0.jpg", root / name)
    files = sorted((root / "DATA").rglob("*.jpg"))
    with (root / "table.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("image", "label"), *((each, each.parent.name) for each in files)])
    grouped = sorted((root / "photographs").rglob("*.jpg"))
    rows = [
        (each.relative_to(root / "photographs"), each.parent.name, place // 2)
        for place, each in enumerate(grouped)
    ]
    with (root / "photographs" / "groups.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("image", "label", "group"), *rows])
    table = {
        "image": [{"bytes": each.read_bytes()} for each in files],
        "label": [each.parent.name for each in files],
    }
    pq.write_table(pa.table(table), root / "images.parquet")
    (root / "cifar10" / "cifar-10-batches-bin").mkdir(parents=True)
    for name, content in batches().items():
        (root / "cifar10" / "cifar-10-batches-bin" / name).write_bytes(content)
    # With validation images enough for prediction sets.
    settings = {"epochs": 5, "val_fraction": 0.6, **FEW_FILTERS}
    with undrawn():
        run = library.train(root / "DATA", runs=tmp_path_factory.mktemp("runs"), **settings)
        shutil.copytree(run.path, root / "NAME")
        shutil.copy(library.export(run.path, tmp_path_factory.mktemp("exports") / "NAME").model, root)
    return root


class Mine(torch.nn.Module):
    """The attention of a reader."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mix = torch.nn.Conv2d(channels, channels, 1)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.mix(features).sigmoid() * features


def placeholders(folder: Path) -> dict[str, Any]:
    """The names that snippets take from their reader."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (40, 32, 32, 3), np.uint8)
    return {
        "DATA": "DATA",
        "Mine": Mine,
        "images": pixels,
        "labels": np.arange(40) % 2,
        "split": np.array(["train"] * 24 + ["val"] * 8 + ["test"] * 8),
        "logits": rng.normal(size=(40, 2)),
        "class_names": ("cat", "dog"),
        "image_bytes": (folder / "photo.jpg").read_bytes(),
        "pillow_image": Image.fromarray(pixels[1]),
        "pixels": pixels[0],
    }


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if page.name not in RECORDS], ids=lambda page: page.name)
def test_a_page_can_be_followed(
    page: Path, prepared: Path, foveate: Foveate, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)
    monkeypatch.setenv("FOVEATE_DATA", str(tmp_path / "cifar10"))
    for verb in verbs():
        monkeypatch.setattr(library, verb, small(verb, getattr(library, verb), proved=page.name == "export.md"))
    monkeypatch.setattr("foveate.workflows.study.read_space", narrow_space)
    lines = [words for words in commands(page) if is_run(page, words)]
    snippets = blocks(page, "python")
    make_what_is_named(" ".join([*(" ".join(words) for words in lines), *snippets]), foveate, prepared, tmp_path)
    write_settings(page, tmp_path)

    for words in lines:
        listed = "\n".join(map(str, sorted(tmp_path.glob("folder/*/*.jpg")))).encode()
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(listed)))
        done = foveate(*words)
        assert done.status == 0, (words, done.err, done.out)

    own: dict[str, Any] = {}
    for snippet in snippets:
        own.update(placeholders(tmp_path))
        exec(compile(snippet, page.name, "exec"), own)


def make_what_is_named(text: str, foveate: Foveate, prepared: Path, folder: Path) -> None:
    """The runs and studies that a page takes for granted, and `arrays.npz`."""
    given = placeholders(folder)
    np.savez(folder / "arrays.npz", images=given["images"], labels=given["labels"])
    if re.search(r"\bRUN\b|/NAME|model\.onnx|evaluate", text):
        shutil.copytree(prepared / "NAME", folder / "runs" / "train" / "NAME")
        shutil.copytree(prepared / "NAME", folder / "RUN")
        shutil.copy(prepared / "model.onnx", folder)
    if "runs/train/cifar10-paper" in text:
        foveate("train", "cifar10", "--preset", "paper")
    if "runs/tune/NAME" in text:
        foveate("tune", "DATA", "--name", "NAME")
    if "digits-minute" in text and "train digits" not in text:
        foveate("train", "digits")

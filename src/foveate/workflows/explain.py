"""Where a network looks, and whether its maps mean anything, as the command line and the Python API call it."""

import base64
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foveate.counts import plural
from foveate.data.container import BadImageError
from foveate.data.decode import decode_file
from foveate.data.listing import list_images
from foveate.data.splits import stratified_subset
from foveate.errors import ConfigError
from foveate.files import write_atomically, write_json
from foveate.inference.engine import Engine, check_class, load_engine
from foveate.inference.explanation import METHODS, unavailable
from foveate.inference.faithfulness import Verdict, steps, verdict
from foveate.inference.predictor import Predictor
from foveate.records import printable
from foveate.report.explanation_page import (
    Explained,
    ExplainedImage,
    ExplainedMistake,
    explanation_page,
    png,
    png_of_map,
    read_explained,
)
from foveate.report.html import render, write_page
from foveate.report.run_folder import page_of_run
from foveate.training.runs import RunFolder
from foveate.workflows.output import check_output_name, new_output, refuse_within
from foveate.workflows.request import Display, NullDisplay, command_line, tell
from foveate.workflows.run import IN_USE, dataset_of_run, unfinished_told

IMAGES, IMAGES_OF_BACKBONE = 100, 30
"""Validation images that a verdict is measured on, where nobody says how many: some 700 forward passes each."""
FEWEST = 10
_GRID = 6
"""Images in the report that are right, and as many that are wrong."""
_TOP = 3


@dataclass(frozen=True)
class Explanation:
    """Maps of images in a folder, `runs/explain/<name>/`."""

    path: Path
    images: list[str]
    unreadable: dict[str, str]
    """Why, by the image's path."""

    @property
    def page(self) -> Path:
        """All of them, on one page."""
        return self.path / "explain.html"


def explain(
    model: Path | str,
    images: Sequence[Path | str],
    *,
    listed: Iterable[str] = (),
    methods: Sequence[str] = (),
    of_class: str | None = None,
    device: str | None = None,
    runs: Path | str = "runs",
    name: str | None = None,
    display: Display | None = None,
) -> Explanation:
    """Draw where a network looks in images: a PNG of each method, and a page with all of them.

    Args:
        model: a run folder, a weights file (`.safetensors`), or an exported `.onnx` file, of which occlusion alone
            can be drawn.
        images: as `predict` takes them.
        methods: of `attention`, `gradcam` and `occlusion`; none: all that the model can give.
        of_class: whose evidence is shown; None: of the class that is predicted.

    Raises:
        CheckpointError, ConfigError, DataError, OutputError: for a request that cannot be met.
    """
    display = display or NullDisplay()
    paths, notes = list_images(images, listed)
    refuse_within(runs, *images)
    check_output_name(Path(runs), "explain", name)
    engine = load_engine(model, device=device)
    if of_class is not None:
        check_class(of_class, engine.about.class_names)
    chosen, passed = _methods(engine, methods)
    confidence = engine.about.confidence
    tell(display, unfinished_told(model), confidence.told, *notes, *passed)
    shown: list[ExplainedImage] = []
    unreadable: dict[str, str] = {}
    for path in display.track(paths, total=len(paths), label="explaining"):
        try:
            pixels = decode_file(Path(path), engine.about.preprocessing)
        except BadImageError as error:
            unreadable[path] = str(error)
            continue
        shown.append(_explained(engine, path, pixels, chosen, of_class))
    verdicts = _known(model, engine, chosen)
    hint = "What these maps are worth can be measured on a run by `foveate explain RUN`, without images."
    page = explanation_page(
        title=f"Where {Path(model).name or 'the model'} looks",
        subtitle=plural(len(shown), "image")
        + ("" if confidence.temperature else "; probabilities are not calibrated"),
        images=shown,
        verdicts=verdicts,
        hint=hint,
    )
    with new_output(Path(runs), "explain", name, fallback=Path(model).stem or "model") as output:
        _write(output.draft, shown, render(page))
    return Explanation(output.path, [image.id for image in shown], unreadable)


def explain_run(
    run: Path | str,
    *,
    methods: Sequence[str] = (),
    images: int | None = None,
    data_dir: Path | str | None = None,
    device: str | None = None,
    seed: int = 0,
    display: Display | None = None,
) -> list[Verdict]:
    """Measure what maps of a run's network are worth, on validation images, and put it into the run's report.

    Args:
        methods: as in `explain`.
        images: how many of the validation images, the same share of every class; None: 100, or 30 of a network
            with a backbone.
        seed: of the controls, of the order of shuffled weights and of the bootstrap.

    Raises:
        CheckpointError, ConfigError, DataError, OutputError: for a request that cannot be met.
    """
    display = display or NullDisplay()
    if images is not None and images < FEWEST:
        raise ConfigError(f"images={images}: give {FEWEST} at least, so that there is an interval")
    folder = RunFolder.open(Path(run))
    config, record = folder.read_config(), folder.read_record()
    if record.final:
        raise ConfigError(
            f"{run} was trained on its validation images as well, so there are none to measure maps on: measure a "
            "run without --final and --folds, or give images to explain"
        )
    engine = load_engine(run, device=device)
    chosen, passed = _methods(engine, methods)
    tell(display, unfinished_told(run), *passed)
    fix = "put it back, as maps are measured on its validation images, or give images to explain"
    dataset = dataset_of_run(folder, config, record, None, data_dir, display, fix=fix)
    if "validation" not in dataset.splits:
        raise ConfigError(f"{run} has no validation images to measure maps on")
    indices = dataset.splits["validation"]
    if images is None:
        images = IMAGES if config.model.backbone is None else IMAGES_OF_BACKBONE
    some = indices[stratified_subset(dataset.labels[indices], min(images, len(indices)), seed)]
    if config.model.backbone is not None:
        display.say(
            f"measuring maps of {plural(len(some), 'image')}: with a backbone this takes about half a minute of a "
            "processor core an image; --images sets how many"
        )
    verdicts = []
    for method in chosen:
        work = verdict(engine, method, dataset.images[some], seed=seed)
        followed = display.track(work, total=steps(engine, len(some)), label=f"measuring {method}")
        verdicts += [found for found in followed if found is not None]
    with folder.locked(IN_USE):
        kept = Explained(
            weights=engine.about.digest,
            command=command_line(
                "explain", folder.path, *(f"--method={each}" for each in methods), images=images, seed=seed
            ),
            verdicts=tuple(verdicts),
            grid=tuple(_grid(engine, dataset, some, chosen)),
        )
        write_json(folder.path / "explanation.json", kept.model_dump(mode="json"))
        if folder.read_metrics():  # else there is no report yet, and there will be one once it is measured
            checkpoint = engine.checkpoint  # type: ignore[attr-defined]
            write_page(page_of_run(folder, checkpoint, config, dataset), folder.report)
    return verdicts


def _methods(engine: Engine, asked: Sequence[str]) -> tuple[list[str], list[str]]:
    """The methods that the model can give, and a line about the others where nobody asked for them."""
    if unknown := [method for method in asked if method not in METHODS]:
        raise ConfigError(f"method={unknown[0]!r}: give {', '.join(METHODS)}")
    reasons = {method: unavailable(engine, method) for method in asked or METHODS}
    for method in asked:
        if reasons[method] is not None:
            raise ConfigError(str(reasons[method]))
    given = [method for method, reason in reasons.items() if reason is None]
    left = [method for method in reasons if method not in given]
    told = f"maps are made by {' and '.join(given)}; this model has none by {' or '.join(left)}"
    return given, [told] if left else []


def _known(model: Path | str, engine: Engine, methods: Sequence[str]) -> list[Verdict]:
    """Earlier measurements of this network."""
    kept = read_explained(Path(model), engine.about.digest) if Path(model).is_dir() else None
    return [each for each in kept.verdicts if each.method in methods] if kept else []


def _explained(
    engine: Engine, path: str, pixels: NDArray[np.uint8], methods: Sequence[str], of_class: str | None
) -> ExplainedImage:
    (found,) = Predictor(engine).of_pixels([path], pixels[None], {})
    probabilities = found.probabilities if found.probabilities is not None else np.zeros(1)
    names = engine.about.class_names
    shown = of_class or str(found.label)
    maps = {method: METHODS[method](engine, pixels, names.index(shown)) for method in methods}
    empty = [method for method, values in maps.items() if not values.max() > max(float(values.min()), 0.0)]
    order = np.argsort(-probabilities, kind="stable")[:_TOP]
    return ExplainedImage(
        id=printable(path),
        shown=png(pixels),
        maps={method: png_of_map(pixels, values) for method, values in maps.items()},
        classes=[(names[index], float(probabilities[index])) for index in order.tolist()],
        of_class=shown,
        note=f"Nothing in it speaks for this class, by {', '.join(empty)}." if empty else "",
    )


def _write(folder: Path, images: Sequence[ExplainedImage], html: str) -> None:
    """PNGs by the image's number and name, and the page."""
    for number, image in enumerate(images, start=1):
        stem = "".join(each if each.isalnum() or each in "-_" else "-" for each in Path(image.id).stem)[:60]
        for method, content in image.maps.items():
            write_atomically(folder / f"{number:04}-{stem}-{method}.png", content)
    write_atomically(folder / "explain.html", html)


def _grid(
    engine: Engine, dataset: Any, indices: NDArray[np.int64], methods: Sequence[str]
) -> Iterator[ExplainedMistake]:
    """Some images that are right and some that are wrong, with their maps."""
    names = engine.about.class_names
    ids = [dataset.ids[index] for index in indices]
    found = Predictor(engine).of_pixels(ids, dataset.images[indices], {})
    left = {True: _GRID, False: _GRID}
    for place, (index, prediction) in enumerate(zip(indices.tolist(), found, strict=True)):
        true = names[dataset.labels[index]]
        right = prediction.label == true
        if not left[right]:
            continue
        left[right] -= 1
        pixels, label = dataset.images[index], str(prediction.label)
        maps = {method: METHODS[method](engine, pixels, names.index(label)) for method in methods}
        yield ExplainedMistake(
            id=ids[place],
            true=true,
            predicted=label,
            shown=base64.b64encode(png(pixels)).decode(),
            maps={
                method: base64.b64encode(png_of_map(pixels, values)).decode() for method, values in maps.items()
            },
        )

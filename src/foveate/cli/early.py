"""What a command refuses before it imports torch, which takes seconds; what it calls refuses the same."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foveate.config import resolve_config
from foveate.records import read_record

if TYPE_CHECKING:
    from foveate.inference.engine import Kind


def check_request(
    verb: str,
    data: str | None,
    runs: Path,
    name: str | None,
    *,
    apart: bool = True,
    preset: str | None = None,
    config: Path | None = None,
    settings: Mapping[str, Any] = {},
) -> None:
    """Refuse data that are not there, a place or a name that no folder can have, and settings that none can have.

    Args:
        verb: in whose folder of `runs` the command writes.
        apart: whether it is known already that the command writes to `runs`, which the data must not hold then.
        settings: over a `preset` or the file `config`; without either of them the data choose what they are over.

    Raises:
        ConfigError, DataError, OutputError: for the first of them.
    """
    from foveate.data.opening import check_data
    from foveate.workflows.output import check_output_name, refuse_within

    if data is not None:
        check_data(data)
        if apart:
            refuse_within(runs, data)
    check_output_name(runs, verb, name)
    if preset is not None or config is not None:
        resolve_config(preset, config, settings)


def check_use(
    model: Path, images: Sequence[str] = (), *, kind: "Kind" = "any", of_class: str | None = None
) -> None:
    """Refuse a model that is not there, words that name no images, and a class that a run does not have.

    Args:
        kind: of models that will do.

    Raises:
        CheckpointError, ConfigError, DataError: for the first of them.
    """
    from foveate.data.listing import check_images
    from foveate.inference.engine import check_class, check_model

    check_model(model, kind)
    check_images(images)
    record = model / "run.json"
    if of_class is not None and record.is_file():
        known = read_record(record, dict[str, Any], fix="restore it from a copy").get("class_names", ())
        check_class(of_class, known)

"""The table of layers of a network that is not trained yet."""

from pathlib import Path
from typing import Unpack

from foveate.config import resolve_config
from foveate.errors import ConfigError
from foveate.keywords import Settings
from foveate.model.build import build_model
from foveate.model.layers import LayerTable, layer_table

_MOST_CLASSES = 1_000_000
"""Whose classifier has memory."""


def summarize(
    *,
    preset: str | None = None,
    config: Path | str | None = None,
    num_classes: int = 10,
    **settings: Unpack[Settings],
) -> LayerTable:
    """The table of layers of a preset's network, as figure 3.1 of the paper.

    Raises:
        ConfigError: for settings that no network can have.
    """
    if not 1 <= num_classes <= _MOST_CLASSES:
        raise ConfigError(f"classes={num_classes}: give 1 to {_MOST_CLASSES:,}")
    resolved = resolve_config(preset, Path(config) if config else None, settings)
    size = resolved.data.size or 32
    return layer_table(build_model(resolved.model, num_classes=num_classes, size=size), size)

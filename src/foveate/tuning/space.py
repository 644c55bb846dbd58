"""What a study searches: hyperparameters declared in YAML, draws from them, and draws as settings of a run."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field, model_validator

from foveate.arguments import at_home
from foveate.config import Config, packaged_yaml, read_yaml, resolve_config, setting_path
from foveate.errors import ConfigError
from foveate.records import Name
from foveate.settings import Section
from foveate.suggestions import nearest
from foveate.tuning.hyperparameters import Hyperparameter, Value
from foveate.validation import validated

_MAX_TRIES = 10_000
"""Draws in a row that are known or cannot be built, after which a space counts as exhausted."""

_COMMON = ("train.epochs", "train.images_seen", "train.device", "train.threads")
"""What all trials of a study have in common, beside their data."""
_MAX_HYPERPARAMETERS = 1_000


class Space(Section):
    """Hyperparameters over a preset. A trial's settings are the values of those that exist in it, by name.

    `knobs` is the older name of `hyperparameters`.
    """

    preset: str
    settings: dict[str, Any] = Field({})
    """Set in every trial."""
    hyperparameters: dict[Name, Hyperparameter] = Field(min_length=1, max_length=_MAX_HYPERPARAMETERS)

    @model_validator(mode="before")
    @classmethod
    def _take_the_older_name(cls, values: Any) -> Any:
        if isinstance(values, Mapping) and "knobs" in values and "hyperparameters" not in values:
            return {("hyperparameters" if name == "knobs" else name): value for name, value in values.items()}
        return values

    @model_validator(mode="after")
    def _check_conditions(self) -> "Space":
        earlier: set[str] = set()
        for name, hyperparameter in self.hyperparameters.items():
            if unknown := set(hyperparameter.when) - earlier:
                raise ValueError(
                    f"hyperparameter {name!r}: `when` names {min(unknown)!r}, which is not declared before it"
                )
            earlier.add(name)
        return self

    def restricted(self, names: Sequence[str]) -> "Space":
        """The space of some of the hyperparameters alone, in the same order.

        Raises:
            ConfigError: for a name that it does not have.
        """
        for name in names:
            if name not in self.hyperparameters:
                raise ConfigError(f"unknown hyperparameter {name!r}{nearest(name, self.hyperparameters)}")
        kept = {name: each.model_dump() for name, each in self.hyperparameters.items() if name in names}
        return validated(Space, {"preset": self.preset, "settings": self.settings, "hyperparameters": kept})

    def draw(self, generator: np.random.Generator) -> dict[str, Value]:
        """The settings of one trial, each drawn independently, in their order."""
        drawn: dict[str, Value] = {}
        for name, hyperparameter in self.hyperparameters.items():
            # Drawn even where it does not exist, so that a condition changes no other draw.
            value = hyperparameter.draw(generator)
            if self.exists(name, drawn):
                drawn[name] = value
        return drawn

    def exists(self, name: str, settings: Mapping[str, Value]) -> bool:
        """Whether a trial has this hyperparameter, given the values of those declared before it."""
        conditions = self.hyperparameters[name].when.items()
        return all(other in settings and settings[other] in values for other, values in conditions)

    def contains(self, settings: Mapping[str, Value]) -> bool:
        """Whether a trial can have these: a value of every hyperparameter that exists in it, and no other."""
        existing = [name for name in self.hyperparameters if self.exists(name, settings)]
        return set(existing) == settings.keys() and all(
            self.hyperparameters[name].contains(settings[name]) for name in existing
        )

    def check_settings(self, settings: Mapping[str, Value], base: Config) -> None:
        """Raise ConfigError for settings that no trial over `base` can have."""
        if not self.contains(settings):
            raise ConfigError(f"the space has no such settings: {dict(settings)}")
        self.apply(base, settings)

    def base(self, **settings: Any) -> Config:
        """What all trials have in common, with `settings` over it.

        Raises:
            ConfigError: for an unknown preset or setting.
        """
        return resolve_config(self.preset, settings=self.settings).replacing(**settings)

    def apply(self, config: Config, settings: Mapping[str, Value]) -> Config:
        """`config` with the settings of a trial.

        Raises:
            ConfigError: for one that sets a setting which is not there, or a value out of range.
        """
        values = config.model_dump(mode="json")
        for name, value in settings.items():
            for path, factor in self._targets(name).items():
                try:
                    places = list(_places(values, path.split(".")))
                except (KeyError, IndexError, TypeError, ValueError):
                    raise ConfigError(f"hyperparameter {name!r} sets {path!r}, which is not there") from None
                for parent, key in places:
                    parent[key] = _times(value, factor)
        del values["preset"]
        return config.replacing(**values)

    def check(self) -> None:
        """Raise ConfigError for hyperparameters that set a setting which is not there, or which all trials have in
        common.
        """
        for name in self.hyperparameters:
            self._targets(name)  # those, too, that the draw leaves out
        self.apply(self.base(), self.draw(np.random.default_rng(0)))

    def paths(self) -> set[str]:
        """The settings, dotted, that any of the hyperparameters sets."""
        return {path for name in self.hyperparameters for path in self._targets(name)}

    def choices(self, setting: str) -> set[Value]:
        """The values that hyperparameters choose from for a setting, dotted."""
        return {
            value
            for name, hyperparameter in self.hyperparameters.items()
            if hyperparameter.type == "choice" and setting in self._targets(name)
            for value in hyperparameter.values
        }

    def _targets(self, name: str) -> dict[str, float]:
        """The settings that a hyperparameter sets, dotted, and the factors."""
        sets = self.hyperparameters[name].sets
        targets = sets if isinstance(sets, dict) else {sets if sets is not None else name: 1.0}
        paths = {path if "." in path else setting_path(path): factor for path, factor in targets.items()}
        for path in paths:
            if path.startswith("data.") or path in _COMMON:
                raise ConfigError(
                    f"hyperparameter {name!r} sets {path!r}: all trials of a study have that in common"
                )
        return paths


def read_space(name: str) -> Space:
    """A space of the package by its name, or one in a YAML file.

    Raises:
        ConfigError: when there is no such space, or the file does not describe one.
    """
    own = name.endswith((".yaml", ".yml"))
    values = read_yaml(at_home(Path(name))) if own else packaged_yaml("spaces", name)
    space = validated(Space, values, within=f"space {name}")
    space.check()
    return space


def random_draws(
    space: Space, seed: int, usable: Callable[[Mapping[str, Value]], bool]
) -> Iterator[dict[str, Value]]:
    """Settings of trials, drawn at random, all different and `usable`, until the space is exhausted."""
    generator, known, tries = np.random.default_rng(seed), set(), 0
    while tries < _MAX_TRIES:
        settings = space.draw(generator)
        key = json.dumps(settings, sort_keys=True)
        tries += 1
        if key not in known:
            known.add(key)
            if usable(settings):
                tries = 0
                yield settings


def _places(values: Any, parts: Sequence[str]) -> Iterator[tuple[Any, Any]]:
    """What holds the value at the end of a path, and its key there; `*` is every place of a list."""
    first, *rest = parts
    keys: Sequence[Any] = [first]
    if isinstance(values, list):
        keys = range(len(values)) if first == "*" else [int(first)]
    for key in keys:
        inner = values[key]  # it must be there
        if rest:
            yield from _places(inner, rest)
        else:
            yield values, key


def _times(value: Value, factor: float) -> Any:
    if factor == 1 or isinstance(value, bool) or not isinstance(value, int | float):
        return list(value) if isinstance(value, tuple) else value
    product = value * factor
    return int(product) if isinstance(value, int) and product.is_integer() else product

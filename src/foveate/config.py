"""Settings: frozen, validated, read from presets, files and flags in that order; no torch here."""

import re
from collections.abc import Iterable, Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from foveate.combinations import check_balance, check_model, check_start
from foveate.errors import ConfigError, one_line
from foveate.files import check_utf8, read_regular
from foveate.parsing import MalformedError, parse_yaml
from foveate.settings import EARLIER_NAMES, AugmentConfig, DataConfig, ModelConfig, Section, TrainConfig
from foveate.suggestions import close_to, nearest
from foveate.validation import short, validated

DEFAULT_PRESET = "minute"


_FILE_BYTES = 16 << 20
"""Of a file of settings: those of a study or a comparison have some 10,000."""
_EITHER = (("epochs", "images_seen"), ("weights", "start"))
"""Settings that say the same thing in two ways: how long to train, and what to begin with."""
_RATES = {
    "adamw": {"lr": 1e-3, "weight_decay": 4e-3},
    "sgd": {"lr": 1e-3, "momentum": 0.9, "weight_decay": 5e-7},
    "muon": {"lr": 0.05, "momentum": 0.6, "weight_decay": 5e-7},
}
"""The rates of an optimizer that replaces another: a rate of one means nothing to the other."""


class Config(Section):
    """Every setting of a run. Leaf names are unique over the sections, so a leaf name alone names a setting."""

    preset: str
    data: DataConfig = DataConfig()
    model: ModelConfig
    augment: AugmentConfig = AugmentConfig()
    train: TrainConfig

    def replacing(self, **settings: Any) -> "Config":
        """A copy with some leaf settings replaced, validated again.

        Raises:
            ConfigError: for an unknown name or a value out of range.
        """
        return _validate(_onto(self.model_dump(mode="json"), _nest(settings)))


def preset_names() -> tuple[str, ...]:
    """Names of the presets in the package, sorted."""
    return packaged_names("presets")


def packaged_names(folder: str) -> tuple[str, ...]:
    """Names of the YAML files in a folder of the package, sorted."""
    files = (resources.files("foveate") / folder).iterdir()
    return tuple(sorted(file.name.removesuffix(".yaml") for file in files if file.name.endswith(".yaml")))


def packaged_yaml(folder: str, name: str) -> dict[str, Any]:
    """What the YAML file of that name holds.

    Raises:
        ConfigError: when there is none.
    """
    if name not in packaged_names(folder):
        kind = folder.removesuffix("s")
        raise ConfigError(f"unknown {kind} {name!r}{nearest(name, packaged_names(folder))}")
    text = (resources.files("foveate") / folder / f"{name}.yaml").read_text(encoding="utf-8")
    values: dict[str, Any] = parse_yaml(text)
    return values


def resolve_config(
    preset: str | None = None, file: Path | None = None, settings: Mapping[str, Any] | None = None
) -> Config:
    """Settings from a preset, over which come those of a YAML `file`, over which come `settings`.

    `settings` maps leaf names (`epochs`) or dotted names (`train.epochs`) to values. A `file` may name its
    own `preset`, which the argument overrides; a run's `args.yaml` is such a file.

    Raises:
        ConfigError: for an unknown preset or key (the nearest name is in the message), or a bad value.
    """
    from_file = _nest(read_yaml(file)) if file else {}
    named = (preset, from_file.pop("preset", None), DEFAULT_PRESET)
    values = _preset(next(each for each in named if each is not None))
    given = _nest(settings or {})
    config = _validate(_onto(_onto(values, from_file), given))
    if config.train.optimizer == "logistic_regression":
        _refuse_settings_of_steps(config, given.get("train", {}))
    return config


def _refuse_settings_of_steps(config: Config, given: Iterable[str]) -> None:
    """Refuse what is given of `train` for the steps of a training that takes none: it would change nothing."""
    for name in given:
        if name in _OF_STEPS:
            raise ConfigError(
                f"{name} is for training by steps, and preset {config.preset} fits a logistic regression: leave "
                "it out, or give --preset photos-head"
            )


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file, which may be anybody's.

    Raises:
        ConfigError: when it cannot be read, is not YAML of plain data, or is not a mapping.
    """
    check_utf8(path)
    try:
        value = parse_yaml(read_regular(path, _FILE_BYTES).decode("utf-8-sig"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:  # MalformedError, text that is not UTF-8, and a NUL character in the name
        raise ConfigError(f"{path} is not YAML: {one_line(error, 300)}") from error
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise ConfigError(f"{path} must hold settings as `key: value`")
    return value


def setting_value(name: str, text: str) -> Any:
    """The value of the setting `name` that a command line gives as `text`, which is YAML.

    Raises:
        ConfigError: for an unknown name, and for what is not YAML.
    """
    check_setting(name)
    try:
        return parse_yaml(text)
    except MalformedError as error:
        raise ConfigError(f"{name}={short(text)}: the value is not YAML ({error})") from error


def _preset(name: str) -> dict[str, Any]:
    """The settings of a preset; one that names another in `preset` is laid over that one."""
    values = packaged_yaml("presets", name)
    base = values.pop("preset", None)
    return {**_over(_preset(base) if base else {}, values), "preset": name}


def setting_path(name: str) -> str:
    """The dotted name of a setting, from its leaf name.

    Raises:
        ConfigError: when there is none.
    """
    owner, name = _owners(), EARLIER_NAMES.get(name, name)
    if name not in owner:
        raise ConfigError(f"unknown setting {name!r}{nearest(name, owner)}")
    return f"{owner[name]}.{name}"


_OF_STEPS = {
    *("lr", "head_lr", "backbone_lr", "bias_lr", "gate_lr", "momentum", "weight_decay", "epsilon", "schedule"),
    *("label_smoothing", "resize_scale", "resize_until", "gradient_clip", "micro_batch", "patience", "compile"),
}
"""Settings that only steps need. `batch` is not among them: it says how many images are looked at together."""
_FLAGS_ALONE = ("preset", "config", "name", "runs", "data_dir", "final", "folds", "workers", "ray", "gpus", "time")


def check_setting(name: str) -> None:
    """Refuse what is not a setting, by its leaf name or dotted.

    Raises:
        ConfigError: for that, and for a whole section.
    """
    section, dot, leaf = name.rpartition(".")
    if name in _FLAGS_ALONE:
        raise ConfigError(f"{name} is not a setting: give it as --{name.replace('_', '-')}")
    if name in _sections():
        raise ConfigError(f"{name} is a section of settings: give each by itself, as in --set {name}.NAME=VALUE")
    if found := re.fullmatch(r"(?:.*\.)?([^.]+)\.\d+(?:\..*)?", name):
        raise ConfigError(f"{name}: a list is replaced as a whole: give it as --set {found[1]}=[…]")
    path = setting_path(leaf)
    if dot and path != f"{section}.{EARLIER_NAMES.get(leaf, leaf)}":
        raise ConfigError(f"unknown setting {name!r}; did you mean {setting_path(leaf)!r}?")


def check_keywords(known: Iterable[str], given: Mapping[str, Any]) -> None:
    """Refuse further keywords of a function that are not `known`, and say of a setting how it is given.

    Raises:
        ConfigError: for the first of them.
    """
    names = set(known)
    for name, value in given.items():
        if name in names:
            continue
        if EARLIER_NAMES.get(name, name) in _owners():
            raise ConfigError(f"{name} is a setting: give settings={{{name!r}: {short(repr(value))}}}")
        raise ConfigError(f"there is no argument {name!r}{close_to(name, (*names, *_owners()))}")


def _owners() -> dict[str, str]:
    """The section of every leaf name."""
    return {leaf: section for section, leaves in _sections().items() for leaf in leaves}


@cache
def _sections() -> dict[str, tuple[str, ...]]:
    """The leaf names of every section."""
    return {
        name: tuple(field.annotation.model_fields)
        for name, field in Config.model_fields.items()
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
    }


def _nest(settings: Mapping[str, Any]) -> dict[str, Any]:
    """`{"epochs": 3, "train.lr": 1, "data": {…}}` as `{"train": {"epochs": 3, "lr": 1}, "data": {…}}`."""
    sections, owner = _sections(), _owners()
    nested: dict[str, Any] = {}
    for key, value in settings.items():
        section, _, leaf = key.rpartition(".")
        leaf = EARLIER_NAMES.get(leaf, leaf)
        section = section or owner.get(leaf, "")
        if key in sections:
            if not isinstance(value, Mapping):
                raise ConfigError(f"{key} is a section: it must hold settings as `key: value`")
            nested.setdefault(key, {})
            for name, each in value.items():
                _put(nested, key, EARLIER_NAMES.get(name) or name, each)
        elif key == "preset":
            nested["preset"] = value
        elif leaf in sections.get(section, ()):
            _put(nested, section, leaf, value)
        else:
            raise ConfigError(f"unknown setting {key!r}{nearest(leaf, owner)}")
    for section, values in nested.items():
        for leaf in values if section in sections else ():
            if leaf not in sections[section]:
                raise ConfigError(f"unknown setting '{section}.{leaf}'{nearest(leaf, owner)}")
    return nested


def _put(nested: dict[str, Any], section: str, leaf: str, value: Any) -> None:
    """Put a setting where it belongs; refuse one that is there in another spelling: `lr` and `train.lr`."""
    if leaf in nested.setdefault(section, {}):
        raise ConfigError(f"the setting {section}.{leaf} is given twice: remove one of them")
    nested[section][leaf] = value


def layered(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Settings over settings, by section, to be given to `resolve_config`, which looks at all of them together.

    Raises:
        ConfigError: for an unknown name.
    """
    return _over(_nest(below), _nest(above))


def _onto(whole: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` on top of all settings of a run; another optimizer comes with its own rates, but those given."""
    merged = _over(whole, over)
    before, after = (each["train"].get("optimizer", "adamw") for each in (whole, merged))
    if after != before:
        merged["train"] = {**merged["train"], **_RATES.get(str(after), {}), **over["train"]}
    return merged


def _over(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` on top of `base`; what is said in one of two ways takes the place of the other (`_EITHER`)."""
    merged = _merge(base, over)
    for pair in _EITHER:
        given = [name for name in pair if _merge({"train": {}}, over)["train"].get(name) is not None]
        if len(given) == 1:
            (other,) = set(pair) - set(given)
            merged["train"][other] = None
    return merged


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def _validate(values: Mapping[str, Any]) -> Config:
    config = validated(Config, values)
    check_model(config.model)
    check_start(config.model, config.augment, config.train)
    check_balance(config.train)
    if config.train.resize_until and config.model.head == "dense":
        raise ConfigError(
            f"train.resize_until={config.train.resize_until}: model.head='dense' takes one size only"
        )
    lengths = [name for name in _EITHER[0] if getattr(config.train, name) is not None]
    if len(lengths) != 1:
        told = "both are given" if lengths else "none is given"
        raise ConfigError(f"train.epochs or train.images_seen says how long to train: {told}")
    return config

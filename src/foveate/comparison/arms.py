"""Arms of a comparison: what a person writes to settings, and whether they can be compared."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field

from foveate.config import Config, check_setting, layered, resolve_config
from foveate.errors import ConfigError
from foveate.parsing import MalformedError, parse_yaml
from foveate.records import MAX_LINE, Line
from foveate.settings import Section

_MAX_CHARACTERS = MAX_LINE // 10
"""Characters of an arm: the name of a control holds those of several arms."""


class Arm(Section):
    """One side of a comparison."""

    name: Line
    config: Config
    first_seed: int | None = Field(None, ge=0, lt=2**62)
    """Of an arm with seeds of its own, so that it shares none with the others; None: the comparison's."""
    matched: Mapping[Line, Line] = Field(default_factory=dict)
    """Of a control: the arms that it is matched to, and in what: `parameters`, `FLOPs`, or both."""


def parse_arm(text: str, common: Mapping[str, Any]) -> Arm:
    """`PRESET[,KEY=VALUE…]` over the settings that all arms have in `common`.

    Commas within brackets belong to a value, which is YAML. `seeds=100+` gives an arm seeds of its own, from 100
    on.

    Raises:
        ConfigError: for an unknown preset or setting, a part that is not KEY=VALUE, a seed (all arms share
            theirs), and control characters.
    """
    if not text.isprintable() or len(text) > _MAX_CHARACTERS:
        raise ConfigError(
            f"arm {text[:80]!r}: write it in one line of at most {_MAX_CHARACTERS:,} characters, "
            "without control characters"
        )
    preset, *pairs = _split(text)
    if not preset:
        raise ConfigError(f"arm {text!r}: begin it with a preset, as in minute,attention=none")
    own: dict[str, Any] = {}
    first_seed = None
    for pair in pairs:
        key, equals, value = (part.strip() for part in pair.partition("="))
        if not equals:
            raise ConfigError(f"arm {text!r}: write it as PRESET,KEY=VALUE,…; {pair!r} is no KEY=VALUE")
        if key == "seeds":
            if first_seed is not None or re.fullmatch(r"[0-9]{1,18}\+", value, re.ASCII) is None:
                raise ConfigError(f"arm {text!r}: {pair!r}: write it once, as seeds=100+, for seeds from 100 on")
            first_seed = int(value[:-1])
            continue
        check_setting(key)
        if key.rpartition(".")[2] in (each.rpartition(".")[2] for each in own):
            raise ConfigError(f"arm {text!r}: {key} is given twice")
        if key.rpartition(".")[2] == "seed":
            raise ConfigError(
                f"arm {text!r}: all arms have the same seeds; say which by --seeds and --first-seed, "
                "or give this one others, as in seeds=100+"
            )
        try:
            own[key] = parse_yaml(value)
        except MalformedError as error:
            raise ConfigError(f"arm {text!r}: the value of {key} is not YAML ({error})") from error
    config = resolve_config(preset, settings=layered(common, own))
    return Arm(name=text, config=config, first_seed=first_seed)


def without_attention(arm: Arm, common: Mapping[str, Any]) -> Arm:
    """The same arm, over the same `common` settings, without attention."""
    others = [
        part for part in _split(arm.name) if part.partition("=")[0].rpartition(".")[2].strip() != "attention"
    ]
    return parse_arm(",".join([*others, "attention=none"]), common)


_LONGEST_PART = 30
"""Characters of a setting in a label."""


def short_labels(arms: Sequence[Arm]) -> list[str]:
    """For plots and tables, each another: the settings of an arm that not all arms share, the long ones shortened.

    With its preset an arm has all its settings: a preset alone would stand for other settings than the arm's. Of a
    control: which arms it is matched to, and in what.
    """
    parts = {arm.name: _split(arm.name) for arm in arms if not arm.matched}
    common = set.intersection(*map(set, parts.values()))
    labels: dict[str, str] = {}
    for name, (preset, *settings) in parts.items():
        own = [part for part in settings if part not in common] if preset in common else []
        labels[name] = ",".join(map(_short, own or (preset, *settings)))
    times = Counter(labels.values())
    for number, (name, label) in enumerate(labels.items(), start=1):
        labels[name] = label if times[label] == 1 else f"{label} (arm {number})"
    for arm in arms:
        if arm.matched:
            matched = " and ".join(labels.get(name, name) for name in arm.matched)
            labels[arm.name] = f"control of {matched}, {' and '.join(dict.fromkeys(arm.matched.values()))}"
    return [labels[arm.name] for arm in arms]


def _short(part: str) -> str:
    """A setting on little room; the end stays, where long ones tend to differ."""
    end = _LONGEST_PART // 2
    return part if len(part) <= _LONGEST_PART else f"{part[: end - 1]}…{part[-end:]}"


def _split(text: str) -> list[str]:
    """At the commas outside of brackets."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter in "[{") - (letter in "]}")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts]


def order_arms(arms: list[Arm], given: Mapping[str, Any]) -> list[Arm]:
    """The reference first, made where there is one arm alone.

    Raises:
        ConfigError: for no arm, and for a single one without attention.
    """
    if not arms:
        raise ConfigError(
            "nothing to compare: give --arm PRESET,KEY=VALUE,… twice or more, or one arm that has attention"
        )
    if len(arms) == 1:
        if arms[0].config.model.attention == "none":
            raise ConfigError(
                f"arm {arms[0].name!r} is alone and has no attention to leave out: give a second --arm"
            )
        arms = [without_attention(arms[0], given), *arms]
    without = [arm for arm in arms if arm.config.model.attention == "none"]
    reference = without[0] if len(without) == 1 else arms[0]
    return [reference, *(arm for arm in arms if arm is not reference)]


def check_same_data(arms: Sequence[Arm]) -> None:
    """Raises ConfigError for arms that do not see the same images in the same splits, on the same device."""

    def shared(config: Config) -> dict[str, Any]:
        return config.data.model_dump() | config.train.model_dump(include={"device", "threads"})

    first = shared(arms[0].config)
    for arm in arms[1:]:
        for name, value in shared(arm.config).items():
            if value != first[name]:
                raise ConfigError(
                    f"arms {arms[0].name!r} and {arm.name!r} differ in {name} ({first[name]}, {value}): "
                    f"give all the same, with --set {name}=…"
                )


def judged(config: Config) -> Config:
    """The settings of an arm: those of a separate run, but the last epoch is judged, without more views.

    What then makes no difference has one value, so that arms that differ in it alone are known to be the same.
    """
    without: dict[str, Any] = {
        "tta_views": 1, "monitor": "accuracy", "save_every_s": 60.0, "keep": "last", "patience": None,
    }  # fmt: skip
    if config.model.attention == "none":
        without |= {"attention_mode": "replace", "attention_stage": 1}
    return config.replacing(**without)


def check_different(arms: Sequence[Arm], first_seed: int, seeds: int) -> None:
    """Raises ConfigError for arms that are the same, once their settings are those that are `judged`.

    Args:
        first_seed, seeds: of arms that have none of their own; with other seeds an arm may be there again.
    """
    seen: dict[str, list[Arm]] = {}

    def begins(arm: Arm) -> int:
        return first_seed if arm.first_seed is None else arm.first_seed

    for arm in arms:
        alike = seen.setdefault(arm.config.model_dump_json(exclude={"preset"}), [])
        for same in alike:
            if abs(begins(arm) - begins(same)) < seeds:
                raise ConfigError(
                    f"arms {same.name!r} and {arm.name!r} are the same: their runs would be, bit by bit (each is "
                    "judged at its last epoch, without more views: keep, patience, monitor and tta_views make "
                    "no difference); to compare an arm with itself give it other seeds, as in "
                    f"{arm.config.preset},seeds={max(map(begins, arms)) + max(100, seeds)}+"
                )
        alike.append(arm)

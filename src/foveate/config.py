"""Settings: frozen, validated, read from presets, files and flags in that order; no torch here."""

import difflib
import re
from collections.abc import Iterable, Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from foveate.errors import ConfigError
from foveate.files import read_regular
from foveate.records import MalformedError, parse_yaml, printable, problem_in_words

__all__ = [
    "CUSTOM",
    "DEFAULT_PRESET",
    "Activation",
    "AttentionKind",
    "AttentionMode",
    "AugmentConfig",
    "AugmentFamily",
    "BlockKind",
    "Config",
    "DataConfig",
    "ExtraFamily",
    "HeadKind",
    "ModelConfig",
    "Monitor",
    "Precision",
    "Section",
    "Side",
    "StageConfig",
    "TrainConfig",
    "check_model",
    "check_setting",
    "layered",
    "nearest",
    "packaged_names",
    "packaged_yaml",
    "preset_names",
    "read_yaml",
    "resolve_config",
    "setting_path",
    "setting_value",
    "validated",
]

DEFAULT_PRESET = "minute"

Model = TypeVar("Model", bound=BaseModel)

AttentionKind = Literal[
    "none",
    "luong_row",
    "luong",
    "luong_scaled",
    "multi_head",
    "squeeze_excitation",
    "cbam",
    "eca",
    "augmented_conv",
    "residual_mask",
]
AttentionMode = Literal["replace", "residual"]
Activation = Literal["relu", "gelu", "silu"]
BlockKind = Literal["plain", "normed"]
HeadKind = Literal["dense", "pooled"]
AugmentFamily = Literal["affine", "crop"]
ExtraFamily = Literal["filter", "colour", "erase", "gridmask", "rand", "mixup", "cutmix"]
Monitor = Literal["accuracy", "loss", "macro_f1"]
Precision = Literal["auto", "fp32", "bf16"]
_MOST_TOLD = 1_000
"""Characters of a message about a setting: the value that it names can be of any length."""
_MOST_LISTED = 20
"""Names that a message lists: more cannot be read in one line."""
_FILE_BYTES = 16 << 20
"""Of a file of settings: those of a study or a comparison have some 10,000."""
_OTHER_NAMES = {
    "batch_size": "batch",
    "cutmix": "extra",
    "degrees": "rotation",
    "early_stopping": "patience",
    "image_size": "size",
    "img_size": "size",
    "imgsz": "size",
    "learning_rate": "lr",
    "lr0": "lr",
    "mixup": "extra",
    "num_epochs": "epochs",
    "translate": "shift",
    "val_split": "val_fraction",
    "validation_split": "val_fraction",
}
"""What other trainers call a setting."""
CUSTOM = "custom:"
"""Before the name of an attention that is a custom class."""
_LENGTHS = ("epochs", "images_seen")
"""The two ways of saying how long to train."""
_RATES = {
    "adamw": {"lr": 1e-3, "weight_decay": 4e-3},
    "sgd": {"lr": 1e-3, "momentum": 0.9, "weight_decay": 5e-7},
    "muon": {"lr": 0.05, "momentum": 0.6, "weight_decay": 5e-7},
}
"""What an optimizer begins with where it takes the place of another; a rate of one says nothing to the other."""
Probability = Annotated[float, Field(ge=0, le=1)]
Fraction = Annotated[float, Field(gt=0, lt=1)]
Rate = Annotated[float, Field(ge=0, lt=1)]
Side = Annotated[int, Field(ge=16, le=256)]
"""Of a square image, in pixels."""


def _attention(value: str) -> str:
    kinds = get_args(AttentionKind)
    if value.startswith(CUSTOM):
        if not all(part.isidentifier() for part in value.removeprefix(CUSTOM).split(".")):
            raise ValueError(f"after {CUSTOM!r} comes the name of a class, as register_attention returns it")
    elif value not in kinds:
        listed = " or ".join(", ".join(map(repr, kinds)).rsplit(", ", 1))
        raise ValueError(f"input should be {listed}{_close_to(value, kinds)}")
    return value


_NUMBERS = (int, float, int | None, float | None)


class Section(BaseModel):
    """A frozen group of settings that refuses unknown keys and values that are not finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _no_truth_for_a_number(cls, values: Any) -> Any:
        """Pydantic would take true for 1."""
        for name, value in values.items() if isinstance(values, dict) else ():
            wanted = cls.model_fields[name].annotation if name in cls.model_fields else bool
            if isinstance(value, bool) and wanted in _NUMBERS:
                raise ValueError(f"{name} is a number, and not {str(value).lower()}")
        return values


class DataConfig(Section):
    """How images become splits of equal-sized squares."""

    size: Side | None = None
    """Side of the network's input in pixels; None: the median shorter side of the images, within 16 to 64."""
    val_fraction: Fraction = 0.2
    """Share of the training images held out for validation, where the data has no validation split."""
    test_fraction: Fraction = 0.2
    """Share of all images held out for the test, where the data has neither a test nor a validation split."""
    split_seed: int = Field(0, ge=0, lt=2**63)
    """Seed of the splits alone, so that runs of different seeds are judged on the same images."""
    max_bad: Probability = 0.05
    """Share of unreadable images above which training refuses to start."""
    depth: Literal["format", "auto"] | Annotated[int, Field(ge=1, lt=2**32)] = "format"
    """Which value of images with more than 8 bits is white. `format`: the largest that their format can hold;
    `auto`: the largest that the images of the data set do hold, which a run then keeps; a number: that value."""
    decode_timeout_s: float = Field(20.0, gt=0, le=86_400)
    """Seconds in which an image must be decoded; one that takes longer is unreadable."""


class StageConfig(Section):
    """One stage: convolutions at one width, and a pooling."""

    filters: int = Field(ge=1, le=4096)
    kernels: tuple[Annotated[int, Field(ge=1, le=15)], ...] = Field((3, 3), min_length=1, max_length=16)
    pool: int = Field(2, ge=1, le=8)
    dropout: Rate = 0.0


class ModelConfig(Section):
    """The network: a stem, stages of convolutions with attention after one of them, and a head."""

    stages: tuple[StageConfig, ...] = Field(min_length=1, max_length=32)
    whiten: int = Field(0, ge=0, le=5)
    """Side of the patches that a fixed first convolution whitens, in pixels; 0: no such layer."""
    block: BlockKind = "plain"
    """`plain`: convolutions, then one normalisation, as in figure 3.1; `normed`: one after every convolution."""
    activation: Activation = "relu"
    attention: Annotated[str, Field(max_length=300), AfterValidator(_attention)] = "luong_row"
    """A kind, or `custom:NAME` of a class that was handed over."""
    attention_stage: int = Field(1, ge=1)
    """The stage, counted from 1, after which the attention comes."""
    attention_mode: AttentionMode = "replace"
    """`replace`: its output takes its input's place, as in the paper; `residual`: is added to it, times a gate."""
    head: HeadKind = "dense"
    """`dense`: flatten, a hidden layer, the classifier; `pooled`: the maximum over positions, the classifier."""
    hidden: int = Field(512, ge=1, le=65536)
    """Units of the dense head's hidden layer."""
    hidden_dropout: Rate = 0.5
    dropout: bool = True
    """False: none at all, whatever `stages` and `hidden_dropout` say."""
    batch_norm: bool = True
    """False: none in the stages, whose convolutions have biases then."""
    norm_momentum: float = Field(0.01, gt=0, le=1)
    """Share of each batch in batch normalisation's running statistics; Keras' .99 is 0.01 here."""
    normalize: Literal["unit", "standard"] = "unit"
    """`unit` scales pixels to 0…1; `standard` also takes the training images' mean and deviation out."""


class AugmentConfig(Section):
    """The paper's geometric family, and others; each image draws its own transformation in each epoch."""

    augmentation: bool = True
    """False: images as they are, whatever the others say."""
    family: AugmentFamily = "affine"
    """`affine`: all four, by one bilinear sampling; `crop`: mirror and shift by whole pixels, by reflection."""
    flip: Probability | None = None
    """Chance of a horizontal mirror image; None: 0.5, but 0 where mirroring changes the class (digits)."""
    alternate: bool = False
    """Mirror every image in each other pass, half of them in the first, in place of by chance."""
    shift: Rate = 0.1
    """Largest shift along each axis, as a share of the side."""
    rotation: float = Field(15.0, ge=0, le=180)
    """Largest rotation either way, in degrees."""
    zoom: Rate = 0.1
    """Largest change of scale either way, as a share."""
    extra: tuple[ExtraFamily, ...] = ()
    """Families that come after the geometric one, in this order; of those that mix images, each image gets one."""
    strength: Probability = 0.5
    """Of those that mix no images: 0 changes nothing."""


class TrainConfig(Section):
    """How the weights are found, on what, and which are kept."""

    epochs: int | None = Field(None, ge=1, le=10_000)
    """Length of the run in epochs; this or `images_seen`."""
    images_seen: int | None = Field(None, ge=1)
    """Length of the run in training images shown, so that few images are shown often enough."""
    passes: int | None = Field(None, ge=1)
    """Passes over the training images that make an epoch; None: one, but more where few images would make
    more than 20 epochs of `images_seen`."""
    batch: int = Field(32, ge=1, le=65536)
    micro_batch: int | None = Field(None, ge=1)
    """Images in one forward and backward pass, whose gradients are summed to those of a step; None: the batch.
    Batch normalisation then sees a part at a time (ghost batch normalisation, Hoffer et al. 2017, 1705.08741), and
    its running statistics move once a step, by the mean over the parts."""
    optimizer: Literal["adamw", "sgd", "muon"] = "adamw"
    """`muon` is for convolution kernels; the rest has Nesterov's momentum at the rates below, as `sgd` has."""
    lr: float = Field(1e-3, gt=0)
    """Of every weight under `adamw`, of convolution kernels under `muon` and, per image, under `sgd`."""
    head_lr: float = Field(1e-3, gt=0)
    """Per image, of dense layers, under `muon` and `sgd`."""
    bias_lr: float = Field(1e-3, gt=0)
    """Per image, of biases, under `muon` and `sgd`."""
    gate_lr: float = Field(0.005, gt=0)
    """Per image, of the gate of a residual attention, under `muon` and `sgd`."""
    momentum: Rate = 0.6
    """Of convolution kernels, under `muon` and `sgd`."""
    weight_decay: float = Field(4e-3, ge=0)
    epsilon: float = Field(1e-7, gt=0)
    """Of `adamw`."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """`linear` and `cosine` fall from `lr` to zero over all steps of the run."""
    label_smoothing: Rate = 0.0
    resize_scale: float = Field(1.0, gt=0, le=1)
    """Side of the images that training begins with, as a share of the size: small images are fast."""
    resize_until: Probability = 0.0
    """Share of the run that they are used for."""
    gradient_clip: float | None = Field(None, gt=0)
    """Largest global L2 norm of a step's gradients; None: not clipped. The length of steps of `adamw`, and of
    `muon` for kernels, follows from `lr`: there it limits how much one batch weighs in the moments."""
    monitor: Monitor = "accuracy"
    """The validation metric that names the best epoch and stops early."""
    patience: int | None = Field(None, ge=1)
    """Epochs without a better `monitor` after which training stops; None: never."""
    keep: Literal["best", "last"] = "best"
    """Which epoch's weights are the run's result."""
    views: Literal[1, 6] = 1
    """Views of an image that are averaged when measuring, told beside the image as it is."""
    precision: Precision = "auto"
    """`auto` is bf16 autocast on a GPU that has it, fp32 elsewhere."""
    compile: bool = False
    seed: int = Field(0, ge=0, lt=2**63)
    device: str = "auto"
    threads: int | None = Field(None, ge=1, le=1024)
    """CPU threads; None: torch's choice. Sums, and so the last bits of a result, change with it."""
    save_every_s: float = Field(60.0, ge=0)
    """Seconds between saves within an epoch: what a kill can cost at most."""


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
    named = from_file.pop("preset", None)
    values = _preset(preset or named or DEFAULT_PRESET)
    return _validate(_onto(_onto(values, from_file), _nest(settings or {})))


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file, which may be anybody's.

    Raises:
        ConfigError: when it cannot be read, is not YAML of plain data, or is not a mapping.
    """
    try:
        value = parse_yaml(read_regular(path, _FILE_BYTES).decode("utf-8-sig"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:  # MalformedError, text that is not UTF-8, and a NUL character in the name
        raise ConfigError(f"{path} is not YAML: {' '.join(str(error).split())[:300]}") from error
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
        raise ConfigError(f"{name}={_short(text)}: the value is not YAML ({error})") from error


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
    owner = _owners()
    if name not in owner:
        raise ConfigError(f"unknown setting {name!r}{nearest(name, owner)}")
    return f"{owner[name]}.{name}"


_FLAGS_ALONE = ("preset", "config", "name", "runs", "data_dir", "final")


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
    if setting_path(leaf) != f"{section}{dot}{leaf}" and dot:
        raise ConfigError(f"unknown setting {name!r}; did you mean {setting_path(leaf)!r}?")


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
        section = section or owner.get(leaf, "")
        _refuse_twice(nested, key if key in sections else section, value if key in sections else {leaf: value})
        if key in sections:
            if not isinstance(value, Mapping):
                raise ConfigError(f"{key} is a section: it must hold settings as `key: value`")
            nested = _merge(nested, {key: {name: value[name] for name in value}})
        elif key == "preset":
            nested["preset"] = value
        elif leaf in sections.get(section, ()):
            nested = _merge(nested, {section: {leaf: value}})
        else:
            raise ConfigError(f"unknown setting {key!r}{nearest(leaf, owner)}")
    for section, values in nested.items():
        for leaf in values if section in sections else ():
            if leaf not in sections[section]:
                raise ConfigError(f"unknown setting '{section}.{leaf}'{nearest(leaf, owner)}")
    return nested


def _refuse_twice(nested: Mapping[str, Any], section: str, values: Any) -> None:
    """Refuse a setting that is there in two spellings, `lr` and `train.lr`."""
    if twice := nested.get(section, {}).keys() & (values.keys() if isinstance(values, Mapping) else ()):
        raise ConfigError(f"the setting {section}.{min(twice)} is given twice: remove one of them")


def validated(model: type[Model], values: Mapping[str, Any], *, within: str = "") -> Model:
    """`values` as a `model`.

    Raises:
        ConfigError: for the first of them that it refuses, `within` what they come from.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        if where and first["type"] != "missing":
            where += f"={_short(repr(first['input']))}"
        said = problem_in_words(first)
        said = said if said != first["msg"] else said.lower()
        if first["type"] == "literal_error":
            said += _close_to(first["input"], re.findall(r"'([^']+)'", said))
        told = printable(": ".join(part for part in (within, where, said) if part))
        raise ConfigError(told if len(told) <= _MOST_TOLD else f"{told[:_MOST_TOLD]}…") from error


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of a message about a `name` that is not `known`: the closest that is, else all or some of them."""
    names = sorted(known)
    if close := _close_to(name, names):
        return close
    if len(names) <= _MOST_LISTED:
        return f"; known are {', '.join(names)}"
    similar = difflib.get_close_matches(str(name)[:100], names, n=5, cutoff=0)
    return f"; the most similar of {len(names)} are {', '.join(similar)}"


def _close_to(name: object, known: Iterable[str]) -> str:
    names = list(known)
    other = _OTHER_NAMES.get(str(name))
    # .65 of the letters in common: below, names are suggested that have nothing to do with what was meant.
    close = [other] if other in names else difflib.get_close_matches(str(name)[:100], names, n=1, cutoff=0.65)
    return f"; did you mean {close[0]!r}?" if close else ""


def _short(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:80]}…"


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
    """`over` on top of `base`; a length of the run in one unit takes the place of one in the other."""
    merged = _merge(base, over)
    given = [name for name in _LENGTHS if _merge({"train": {}}, over)["train"].get(name) is not None]
    if len(given) == 1:
        (other,) = set(_LENGTHS) - set(given)
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
    if config.train.resize_until and config.model.head == "dense":
        raise ConfigError(
            f"train.resize_until={config.train.resize_until}: model.head='dense' takes one size only"
        )
    lengths = [name for name in _LENGTHS if getattr(config.train, name) is not None]
    if len(lengths) != 1:
        told = "both are given" if lengths else "none is given"
        raise ConfigError(f"train.epochs or train.images_seen says how long to train: {told}")
    return config


def check_model(model: ModelConfig) -> None:
    """Refuse settings of a network that do not go together.

    Raises:
        ConfigError: for these.
    """
    stages = len(model.stages)
    if model.attention_stage > stages:
        raise ConfigError(f"model.attention_stage={model.attention_stage}: there are {stages} stages")
    if model.block == "normed" and any(len(stage.kernels) < 2 for stage in model.stages):
        raise ConfigError("model.block='normed': every stage needs two kernels at least, such as kernels: [3, 3]")
    if model.block == "normed" and any(side % 2 == 0 for stage in model.stages for side in stage.kernels):
        raise ConfigError("model.block='normed': kernels must have an odd side, as they begin as the identity")
    if model.attention == "residual_mask" and not model.batch_norm:
        raise ConfigError("model.attention='residual_mask' normalises batches itself: not with batch_norm=false")

"""The settings of a run, by section: frozen and validated; no torch here."""

import math
import os
from collections.abc import Sequence
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from foveate.preprocessing import Fit, Preprocessing
from foveate.suggestions import close_to

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
HeadKind = Literal["dense", "pooled", "mean", "mean_max", "attention_pool"]
BackboneName = Literal["efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2", "resnet18"]
AugmentFamily = Literal["affine", "crop", "resized_crop"]
ExtraFamily = Literal["filter", "colour", "erase", "gridmask", "rand", "mixup", "cutmix"]
Monitor = Literal["accuracy", "balanced_accuracy", "loss", "macro_f1"]
Precision = Literal["auto", "fp32", "tf32", "bf16"]
IMAGENET = "imagenet"
"""Weights that a backbone starts from: those of its packaged training on ImageNet."""
CUSTOM = "custom:"
"""Before the name of an attention that is a custom class."""
Probability = Annotated[float, Field(ge=0, le=1)]
Fraction = Annotated[float, Field(gt=0, lt=1)]
Rate = Annotated[float, Field(ge=0, lt=1)]
Side = Annotated[int, Field(ge=16, le=384)]
"""Of a square image, in pixels."""
PathText = Annotated[str, Field(min_length=1, max_length=4096), AfterValidator(os.path.expanduser)]


def _attention(value: str) -> str:
    kinds = get_args(AttentionKind)
    if value.startswith(CUSTOM):
        if not all(part.isidentifier() for part in value.removeprefix(CUSTOM).split(".")):
            raise ValueError(f"after {CUSTOM!r} comes the name of a class, as register_attention returns it")
    elif value not in kinds:
        listed = " or ".join(", ".join(map(repr, kinds)).rsplit(", ", 1))
        raise ValueError(f"input should be {listed}{close_to(value, kinds)}")
    return value


def _text_of_attention(value: Any) -> Any:
    """YAML's null and false are no names, and are meant as one."""
    if value is None or value is False:
        raise ValueError("for a network without attention write 'none'")
    return value


def _class_weights(value: Any) -> Any:
    if value is None or value == "balanced":
        return value
    numbers: Sequence[Any] = value if isinstance(value, list | tuple) and value else [None]
    if all(type(each) in (int, float) and 0 < each < math.inf for each in numbers):
        return value
    raise ValueError("input should be 'balanced', or a number above zero for each class")


NOT_A_NUMBER = "not_a_number"
"""Type of the error that a group of settings is refused with whose message names the setting."""
_NUMBERS = (int, float, int | None, float | None)


EARLIER_NAMES = {
    "alternate": "alternating_flip",
    "extra": "augmentations",
    "passes": "passes_per_epoch",
    "views": "tta_views",
}
"""Settings that had another name: files, studies and comparisons of earlier versions have that one."""


class Section(BaseModel):
    """A frozen group of settings that refuses unknown keys and values that are not finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _as_given(cls, values: Any) -> Any:
        """Refuse true for 1, which pydantic would take; and know the names of earlier versions."""
        if not isinstance(values, dict):
            return values
        for name, value in values.items():
            wanted = cls.model_fields[name].annotation if name in cls.model_fields else bool
            if isinstance(value, bool) and wanted in _NUMBERS:
                told = {"name": name, "value": str(value).lower()}
                raise PydanticCustomError(NOT_A_NUMBER, "{name} is a number, and not {value}", told)
        return {EARLIER_NAMES.get(name, name): value for name, value in values.items()}


class DataConfig(Section):
    """How images become splits of equal-sized squares."""

    size: Side | None = None
    """Side of the network's input in pixels; None: the median shorter side of the images, within 16 to 64."""
    fit: Fit = "crop"
    """How an image that is not square becomes square. `crop`: the largest square in its centre; `pad`: the whole
    image, with grey beside it; `squash`: the whole image, with its sides no longer in proportion."""
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

    @classmethod
    def of(cls, preprocessing: Preprocessing) -> "DataConfig":
        """Settings that decode a data set as an existing network needs it."""
        return cls(size=preprocessing.size, fit=preprocessing.fit, depth=preprocessing.white or "format")


class StageConfig(Section):
    """One stage: convolutions at one width, and a pooling."""

    filters: int = Field(ge=1, le=4096)
    kernels: tuple[Annotated[int, Field(ge=1, le=15)], ...] = Field((3, 3), min_length=1, max_length=16)
    dilation: int = Field(1, ge=1, le=64)
    """Positions from one entry of a kernel to the next: with more than 1 it sees further at the same cost."""
    pool: int = Field(2, ge=1, le=8)
    dropout: Rate = 0.0


class ModelConfig(Section):
    """The network: a stem, stages of convolutions with attention after one of them, and a head; or a backbone."""

    backbone: BackboneName | None = None
    """A larger network that takes the place of stem and stages, with attention after its last stage."""
    freeze: Literal["none", "first", "all"] = "none"
    """Which part of the backbone is not trained: `first` is all but about its last third."""
    stages: tuple[StageConfig, ...] = Field((), max_length=32)
    whiten: int = Field(0, ge=0, le=5)
    """Side of the patches that a fixed first convolution whitens, in pixels; 0: no such layer."""
    block: BlockKind = "plain"
    """`plain`: convolutions, then one normalisation, as in figure 3.1; `normed`: one after every convolution."""
    activation: Activation = "relu"
    attention: Annotated[
        str, Field(max_length=300), BeforeValidator(_text_of_attention), AfterValidator(_attention)
    ] = "luong_row"
    """A kind, or `custom:NAME` of a class that was handed over."""
    attention_stage: int = Field(1, ge=1)
    """The stage, counted from 1, after which the attention comes."""
    attention_mode: AttentionMode = "replace"
    """`replace`: its output takes its input's place, as in the paper; `residual`: is added to it, times a gate."""
    head: HeadKind = "dense"
    """`dense`: flatten, a hidden layer, the classifier. All others pool over positions first: `pooled`, the
    maximum; `mean`; `mean_max`, both; `attention_pool`, a mean weighted by a learned query."""
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

    @property
    def has_attention(self) -> bool:
        """Whether attention is embedded in it, or pools its positions."""
        return self.attention != "none" or self.head == "attention_pool"


class AugmentConfig(Section):
    """The paper's geometric family, and others; each image draws its own transformation in each epoch."""

    augmentation: bool = True
    """False: images as they are, whatever the others say."""
    family: AugmentFamily = "affine"
    """`affine`: all four, by one bilinear sampling; `crop`: mirror and shift by whole pixels, by reflection;
    `resized_crop`: mirror, and a part of the image enlarged to all of it."""
    flip: Probability | None = None
    """Chance of a horizontal mirror image; None: 0.5, but 0 where mirroring changes the class (digits)."""
    alternating_flip: bool = False
    """Mirror every image in each other pass, half of them in the first, in place of by chance."""
    shift: Rate = 0.1
    """Largest shift along each axis, as a share of the side."""
    rotation: float = Field(15.0, ge=0, le=180)
    """Largest rotation either way, in degrees."""
    zoom: Rate = 0.1
    """Largest change of scale either way, as a share."""
    crop_scale: float = Field(0.08, gt=0, le=1)
    """Smallest part of the image that `resized_crop` shows, as a share of its area."""
    augmentations: tuple[ExtraFamily, ...] = ()
    """Families that come after the geometric one, in this order; of those that mix images, each image gets one."""
    strength: Probability = 0.5
    """Strength of the families that mix no images: 0 changes nothing."""


class TrainConfig(Section):
    """How the weights are found, on what, and which are kept."""

    epochs: int | None = Field(None, ge=1, le=10_000)
    """Length of the run in epochs; this or `images_seen`."""
    images_seen: int | None = Field(None, ge=1)
    """Length of the run in training images shown, so that few images are shown often enough."""
    passes_per_epoch: int | None = Field(None, ge=1)
    """Passes over the training images that make an epoch; None: one, but more where few images would make
    more than 20 epochs of `images_seen`."""
    batch: int = Field(32, ge=1, le=65536)
    micro_batch: int | None = Field(None, ge=1)
    """Images in one forward and backward pass, whose gradients are summed to those of a step; None: the batch.
    Batch normalisation then sees a part at a time (ghost batch normalisation, Hoffer et al. 2017, 1705.08741), and
    its running statistics move once a step, by the mean over the parts."""
    weights: PathText | None = None
    """What a backbone starts from: `imagenet`, or a .safetensors file; None: weights drawn at random."""
    start: PathText | None = None
    """Another network of Foveate that training starts from: a run, or a .safetensors file. What agrees by name and
    shape is taken; the classifier only where the classes are the same."""
    optimizer: Literal["adamw", "sgd", "muon", "logistic_regression"] = "adamw"
    """`muon` is for convolution kernels; the rest has Nesterov's momentum at the rates below, as `sgd` has.
    `logistic_regression` takes no steps: the classifier is fitted to the features of a frozen backbone."""
    regression_first: bool = False
    """The first epoch fits the classifier as `logistic_regression` does, to the features that the backbone starts
    with; steps begin from there. `keep=best` returns to it where no later epoch is better on validation."""
    lr: float = Field(1e-3, gt=0)
    """Of every weight under `adamw`, of convolution kernels under `muon` and, per image, under `sgd`."""
    head_lr: float = Field(1e-3, gt=0)
    """Per image, of dense layers, under `muon` and `sgd`."""
    backbone_lr: float | None = Field(None, gt=0)
    """Of a backbone's weights, under `adamw`; None: `lr`. They are good already, and a head is not."""
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
    class_weights: Annotated[Literal["balanced"] | tuple[float, ...] | None, BeforeValidator(_class_weights)] = (
        None
    )
    """What an image of each class counts in the training loss: a number for each class, in their order.
    `balanced`: so that all classes count the same, which each training works out from its own images."""
    sampler: Literal["uniform", "balanced"] = "uniform"
    """`uniform`: a pass shows each training image once; `balanced`: as many images, as often of each class."""
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
    tta_views: Literal[1, 6] = 1
    """Views of an image that are averaged as test-time augmentation; told beside the image as it is."""
    precision: Precision = "auto"
    """`auto` is bf16 autocast on a GPU that has it, and fp32 elsewhere and for images that are even for the most
    part (see `resolve_settings`); `tf32` is fp32 but for convolutions on an NVIDIA GPU."""
    compile: bool = False
    seed: int = Field(0, ge=0, lt=2**63)
    device: str = "auto"
    threads: int | None = Field(None, ge=1, le=1024)
    """CPU threads; None: torch's choice. Sums, and so the last bits of a result, change with it."""
    save_every_s: float = Field(60.0, ge=0)
    """Seconds between saves within an epoch: what a kill can cost at most."""

"""Every setting of a run as a typed keyword of `train`: an editor completes it, mypy catches a mistake."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypedDict

from foveate.preprocessing import Fit
from foveate.settings import (
    Activation,
    AttentionMode,
    AugmentFamily,
    BackboneName,
    BlockKind,
    ExtraFamily,
    HeadKind,
    Monitor,
    Precision,
    StageConfig,
)


class Settings(TypedDict, total=False):
    """Names and types alone: `foveate.settings` has the ranges, the defaults and what each one means."""

    # DataConfig
    size: int | None
    fit: Fit
    val_fraction: float
    test_fraction: float
    split_seed: int
    max_bad: float
    depth: Literal["format", "auto"] | int
    decode_timeout_s: float
    # ModelConfig
    backbone: BackboneName | None
    freeze: Literal["none", "first", "all"]
    stages: Sequence[StageConfig | Mapping[str, Any]]
    whiten: int
    block: BlockKind
    activation: Activation
    attention: str
    attention_stage: int
    attention_mode: AttentionMode
    head: HeadKind
    hidden: int
    hidden_dropout: float
    dropout: bool
    batch_norm: bool
    norm_momentum: float
    normalize: Literal["unit", "standard"]
    # AugmentConfig
    augmentation: bool
    family: AugmentFamily
    flip: float | None
    alternating_flip: bool
    shift: float
    rotation: float
    zoom: float
    crop_scale: float
    augmentations: Sequence[ExtraFamily]
    strength: float
    # TrainConfig
    epochs: int | None
    images_seen: int | None
    passes_per_epoch: int | None
    batch: int
    micro_batch: int | None
    weights: str | None
    start: str | None
    optimizer: Literal["adamw", "sgd", "muon", "logistic_regression"]
    regression_first: bool
    lr: float
    head_lr: float
    backbone_lr: float | None
    bias_lr: float
    gate_lr: float
    momentum: float
    weight_decay: float
    epsilon: float
    schedule: Literal["constant", "linear", "cosine"]
    label_smoothing: float
    class_weights: Literal["balanced"] | Sequence[float] | None
    sampler: Literal["uniform", "balanced"]
    resize_scale: float
    resize_until: float
    gradient_clip: float | None
    monitor: Monitor
    patience: int | None
    keep: Literal["best", "last"]
    tta_views: Literal[1, 6]
    precision: Precision
    compile: bool
    seed: int
    device: str
    threads: int | None
    save_every_s: float

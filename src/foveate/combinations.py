"""Settings that do not go together."""

from foveate.errors import ConfigError
from foveate.settings import AugmentConfig, ModelConfig, TrainConfig


def check_start(model: ModelConfig, augment: AugmentConfig, train: TrainConfig) -> None:
    """Raise ConfigError for weights to start from, or a classifier to fit, that the network has no place for."""
    if train.weights is not None and train.start is not None:
        raise ConfigError(
            "train.weights and train.start both say what training starts from: give --weights or --start, not both"
        )
    if train.weights is not None and model.backbone is None:
        raise ConfigError(f"train.weights={train.weights!r} is for a backbone: give one, or --preset photos")
    by_steps = train.optimizer != "logistic_regression"
    if by_steps and not train.regression_first:
        return
    pools = model.attention == "none" and model.head in ("mean", "mean_max")
    if by_steps:
        if model.backbone is None or not pools:
            raise ConfigError(
                "train.regression_first=true fits a classifier to the features of a backbone: it takes one, "
                "attention=none, and the head mean or mean_max"
            )
        return
    if model.freeze != "all" or not pools:
        raise ConfigError(
            "train.optimizer='logistic_regression' fits a classifier to the features of a frozen backbone: it "
            "takes freeze=all, attention=none, and the head mean or mean_max"
        )
    if augment.augmentation or train.epochs != 1:
        raise ConfigError(
            "train.optimizer='logistic_regression' sees each image once: it takes augmentation=false and epochs=1"
        )


def check_balance(train: TrainConfig) -> None:
    """Raise ConfigError for small classes that would count twice, and a sampler where nothing is sampled."""
    if train.sampler == "uniform":
        return
    if train.class_weights is not None:
        raise ConfigError(
            "train.class_weights and train.sampler='balanced' both make small classes count more, and together "
            "they would do it twice: give one of them"
        )
    if train.optimizer == "logistic_regression":
        raise ConfigError(
            "train.sampler='balanced' is for training by steps, and train.optimizer='logistic_regression' takes "
            "none: give class_weights=balanced"
        )


def check_model(model: ModelConfig) -> None:
    """Raise ConfigError for settings of a network that do not go together."""
    if model.backbone is not None:
        if model.stages or model.whiten:
            raise ConfigError(
                f"model.backbone={model.backbone!r} has stages of its own, and there are model.stages or "
                "model.whiten beside it: give --preset photos, which has none, or leave them out"
            )
        if model.head == "dense":
            raise ConfigError("model.head='dense': a backbone takes a head that pools, such as mean")
    elif not model.stages:
        raise ConfigError("model.stages: give one stage at least, or a backbone")
    elif model.freeze != "none":
        raise ConfigError(f"model.freeze={model.freeze!r} is for a backbone, and there is none")
    stages = len(model.stages) or 1
    if model.attention_stage > stages:
        there = "there is 1 stage" if stages == 1 else f"there are {stages} stages"
        raise ConfigError(f"model.attention_stage={model.attention_stage}: {there}")
    if model.block == "normed" and any(len(stage.kernels) < 2 for stage in model.stages):
        raise ConfigError("model.block='normed': every stage needs two kernels at least, such as kernels: [3, 3]")
    if model.block == "normed" and any(side % 2 == 0 for stage in model.stages for side in stage.kernels):
        raise ConfigError("model.block='normed': kernels must have an odd side, as they begin as the identity")
    if model.attention == "residual_mask" and not model.batch_norm:
        raise ConfigError("model.attention='residual_mask' normalises batches itself: not with batch_norm=false")

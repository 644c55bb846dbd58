"""Multinomial logistic regression on the features of a frozen backbone, in the place of training by steps."""

import math
import time
import warnings
from collections.abc import Iterator
from typing import NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import log_softmax

from foveate.config import Config
from foveate.data.dataset import Dataset
from foveate.data.splits import group_numbers
from foveate.metrics import point_metrics
from foveate.model.heads import LinearHead
from foveate.model.network import AttentionCNN
from foveate.progress import Track, untracked
from foveate.training.device import DeviceData
from foveate.training.kept_features import kept_features
from foveate.training.settings import balanced_weights
from foveate.training.state import EpochResult, TrainingState, validation_fields

_STRENGTHS = np.logspace(-3, 1, 5)
"""Inverse strengths of the L2 penalty, scikit-learn's C, that folds choose from. Features of a backbone are
correlated, and often more than there are images; weaker penalties take L-BFGS many times as long for no gain."""
_FOLDS = 5
_ITERATIONS = 1_000
"""Of L-BFGS: 100, scikit-learn's default, do not suffice for a weak penalty."""

Vectors = NDArray[np.float32]


class _Split(NamedTuple):
    """A split as the classifier sees it: features [N, F] and labels [N]."""

    features: Vectors
    labels: NDArray[np.int64]


def regression_epochs(
    state: TrainingState, data: DeviceData, config: Config, *, track: Track = untracked
) -> Iterator[EpochResult]:
    """Fit the classifier of `state` to the training images, unless it is fitted already; yield it as one epoch.

    The strength of its penalty is chosen by the log-loss over stratified folds within the training images, those
    of one group in one fold; the other splits take no part. Where classes are weighted, both losses are. Where
    fewer than two classes have two images, or groups, nothing can be chosen, and it is the middle one.

    Raises:
        TrainingError: when memory runs out.
    """
    if state.epoch > 1:
        return
    began = time.monotonic()
    model = cast("AttentionCNN", state.model)
    head = cast("LinearHead", model.head)
    indices = data.dataset.splits
    train, kept = _features(model, data, "train", config, track)
    groups = data.dataset.groups
    of_images = None if groups is None else group_numbers(groups)[indices["train"]]
    chosen, weight, bias = _fit(train, of_images, _class_weights(data.dataset, config), config.train.seed)
    with torch.no_grad():
        head.classifier.weight.copy_(torch.from_numpy(weight))
        head.classifier.bias.copy_(torch.from_numpy(bias))
    seconds = time.monotonic() - began
    found = point_metrics(_logits(train, weight, bias), train.labels)
    validated: dict[str, float] = {}
    if "validation" in indices:
        validation, _ = _features(model, data, "validation", config, track)
        state.val_logits = _logits(validation, weight, bias)
        validated = point_metrics(state.val_logits, validation.labels)
    result = EpochResult(
        epoch=1,
        train_loss=found["loss"],
        train_accuracy=found["accuracy"],
        **validation_fields(validated),
        lr=_or_middle(chosen),
        seconds=seconds,
        images_per_s=len(train.labels) / seconds,
        features_kept=kept,
        strength_chosen=chosen is not None,
    )
    state.history.append(result)
    state.epoch = 2
    yield result


def classifier_logits(
    state: TrainingState, data: DeviceData, split: str, config: Config, *, track: Track = untracked
) -> Vectors:
    """The logits [n, K] of a split's images by the fitted classifier, from the features that it was fitted on.

    Raises:
        TrainingError: when memory runs out.
    """
    model = cast("AttentionCNN", state.model)
    classifier = cast("LinearHead", model.head).classifier
    asked, _ = _features(model, data, split, config, track)
    weight, bias = (each.detach().cpu().numpy() for each in (classifier.weight, classifier.bias))
    return _logits(asked, weight, bias)


def _features(
    model: AttentionCNN, data: DeviceData, split: str, config: Config, track: Track
) -> tuple[_Split, bool]:
    """A split as the classifier of `model` sees it, and whether its features had been kept before."""
    kept = kept_features(model, data, config, track, pool=cast("LinearHead", model.head).pool)
    indices = data.dataset.splits[split]
    return _Split(kept.features.numpy()[kept.places(indices)], data.dataset.labels[indices]), kept.kept


def _class_weights(dataset: Dataset, config: Config) -> NDArray[np.float64]:
    """[K], what an image of each class counts; where steps with balanced batches follow, as it does there."""
    given = balanced_weights(dataset) if config.train.sampler == "balanced" else config.train.class_weights
    return np.ones(len(dataset.class_names)) if given is None else np.array(given, np.float64)


def _fit(
    train: _Split, groups: NDArray[np.int64] | None, class_weights: NDArray[np.float64], seed: int
) -> tuple[float | None, Vectors, Vectors]:
    """The `_best_strength` of the penalty, and weight [K, F] and bias [K] fitted with it, or with the middle one.

    Of fewer images than features the weights are a sum of the images' features, whatever the labels. So features
    are turned until the images lie in the first N of them, which changes neither distances nor the penalty, and
    the others are left out: of 245 photographs four numbers in five.
    """
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1, "blas"):  # two threads wait for each other by spinning: three times the time
        images, features = train.features.shape
        turn = np.linalg.svd(train.features, full_matrices=False)[2] if images < features else None
        turned = train if turn is None else _Split(train.features @ turn.T, train.labels)
        chosen = _best_strength(turned, groups, class_weights, seed)
        weight, bias = _fitted(turned, _or_middle(chosen), class_weights)
        return chosen, weight if turn is None else weight @ turn, bias


def _or_middle(chosen: float | None) -> float:
    return float(_STRENGTHS[len(_STRENGTHS) // 2]) if chosen is None else chosen


def _best_strength(
    train: _Split, groups: NDArray[np.int64] | None, class_weights: NDArray[np.float64], seed: int
) -> float | None:
    """The C whose log-loss over folds is least; None where fewer than two classes have two units.

    A unit is a group, or an image where there are no groups. Of a class with one unit no image can be held out and
    fitted at once: it sets no limit to the number of folds. A held-out image is scored where its class is among
    those fitted: the loss of any other says nothing of the penalty.
    """
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold  # slow to import

    labels = train.labels
    units = np.arange(len(labels)) if groups is None else groups
    of_units = np.unique(np.stack([labels, units]), axis=1)[0]  # the class of each, once
    counts = np.unique(of_units, return_counts=True)[1]
    several = counts[counts > 1]
    if len(several) < 2:
        return None
    make = StratifiedKFold if groups is None else StratifiedGroupKFold
    parts = make(min(_FOLDS, int(several.min())), shuffle=True, random_state=seed % 2**32)
    losses = np.zeros(len(_STRENGTHS))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that a class has fewer images than there are folds
        drawn = list(parts.split(*train, groups))
    for rest, held_out in drawn:
        scored = held_out[np.isin(labels[held_out], labels[rest])]
        fitted, asked = (_Split(train.features[each], labels[each]) for each in (rest, scored))
        if len(np.unique(fitted.labels)) < 2 or not len(scored):
            continue
        for place, strength in enumerate(_STRENGTHS):
            logits = _logits(asked, *_fitted(fitted, float(strength), class_weights))
            each = -log_softmax(logits.astype(np.float64), axis=1)[np.arange(len(logits)), asked.labels]
            losses[place] += float((each * class_weights[asked.labels]).sum())
    return float(_STRENGTHS[losses.argmin()]) if losses.any() else None


def _fitted(train: _Split, strength: float, class_weights: NDArray[np.float64]) -> tuple[Vectors, Vectors]:
    """Weight [K, F] and bias [K] of the classifier.

    A class without a training image gets a bias far below the others'.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # what a weak penalty has not reached by then is small
        weights = class_weights[train.labels]
        found = LogisticRegression(C=strength, max_iter=_ITERATIONS).fit(*train, sample_weight=weights)
    coefficients, intercepts = found.coef_, found.intercept_
    if len(found.classes_) == 2:  # of two, scikit-learn keeps the difference of the logits
        coefficients = np.concatenate([-coefficients, coefficients]) / 2
        intercepts = np.concatenate([-intercepts, intercepts]) / 2
    classes = len(class_weights)
    weight = np.zeros((classes, train.features.shape[1]), np.float32)
    bias = np.full(classes, intercepts.min() - math.log(1e6), np.float32)
    weight[found.classes_], bias[found.classes_] = coefficients, intercepts
    return weight, bias


def _logits(split: _Split, weight: Vectors, bias: Vectors) -> Vectors:
    logits: Vectors = split.features @ weight.T + bias
    return logits

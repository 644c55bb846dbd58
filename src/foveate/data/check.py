"""What is wrong with a data set, found before anything is trained on it."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from foveate.counts import plural
from foveate.data.copies import exact_groups, near_groups, perceptual_hashes
from foveate.data.dataset import Dataset
from foveate.data.depth import faint_images, faint_text
from foveate.data.detail import sufficient_side
from foveate.data.findings import Finding
from foveate.data.headers import header_findings
from foveate.data.source import Source, listed, name_warnings
from foveate.data.training_splits import (
    UNREADABLE_CLASS,
    shared_groups,
    shared_groups_text,
    training_splits,
    unreadable_fix,
)
from foveate.errors import DataError
from foveate.progress import Track, untracked
from foveate.settings import DataConfig

FEWEST_IMAGES = 20
"""Of a class, below which it is told that they are few."""
_IMBALANCE = 10.0
"""Images of the largest class to those of the smallest in training above which it is told."""
_UNEVEN_FIX = "look at the recall of each class, not at accuracy, and train with --set class_weights=balanced"
_REASONS_TOLD = 5
"""Why images cannot be read: the most frequent reasons, each with its number."""

Splits = Mapping[str, NDArray[np.int64]]
"""Indices of the images of each split."""


def audit(source: Source, dataset: Dataset, config: DataConfig, *, track: Track = untracked) -> list[Finding]:
    """Everything that can be found without training.

    Args:
        source: as it lies on disk.
        dataset: the same, decoded, with the splits of `pooled`.
        config: as it would be trained with.
    """
    try:
        drawn, refused = training_splits(source, _readable(dataset), dataset.bad, config, []), None
    except DataError as error:
        drawn, refused = None, f"training would refuse it: {error}"
    named = name_warnings(dataset.class_names)
    return [
        *([Finding("untrainable", "error", refused)] if refused else []),
        *_unreadable(dataset),
        *_faint(source, dataset, config),
        *(Finding(name, "warning", text) for name, text in named if text not in (refused or "")),
        *_classes(dataset, drawn),
        *_groups(dataset),
        *_copies(dataset, drawn),
        *header_findings(source, dataset.preprocessing, track),
        *_detail(source),
    ]


def pooled(dataset: Dataset) -> Dataset:
    """A data set with its declared splits (`load_dataset` with `for_training=False`), those as one that training
    takes for one: `all` where it would hold out images of it to test on, else `train`.
    """
    splits = dict(dataset.splits)
    parts = [splits.pop(name) for name in ("train", "all") if name in splits]
    if parts:
        splits = {"train" if splits else "all": np.sort(np.concatenate(parts)), **splits}
    return replace(dataset, splits=splits)


def suspects_finding(
    dataset: Dataset, indices: NDArray[np.int64], probabilities: NDArray[np.float64]
) -> list[Finding]:
    """Labels to look at, by the out-of-sample probabilities [N, K] of the images at `indices` [N]."""
    names, labels = dataset.class_names, dataset.labels[indices]
    places = label_suspects(probabilities, labels)
    if not len(places):
        return []
    remarks = {
        dataset.ids[indices[place]]: f"{names[labels[place]]}, or {names[probabilities[place].argmax()]}?"
        for place in places
    }
    text = f"{plural(len(places), 'image')} whose label is doubted by a network that never saw them"
    return [Finding("label_suspect", "warning", text, tuple((each,) for each in remarks), remarks)]


def label_suspects(probabilities: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.intp]:
    """Places of labels that are likely wrong, the least likely first, by confident learning.

    An image counts as of class j where its probability of j is at least the mean one of images labelled j, and the
    highest of those that are; it is suspect where that is not its label, nor its label the likeliest (Northcutt et
    al. 2021, JAIR 70, section 3.1). Ranked by the probability of its label less that of the likeliest other.

    Args:
        probabilities: [N, K], of networks that were not trained on the image.
        labels: [N].
    """
    classes = probabilities.shape[1]
    own = probabilities[np.arange(len(labels)), labels]
    thresholds = np.array(
        [own[labels == label].mean() if (labels == label).any() else np.inf for label in range(classes)]
    )
    confident = np.where(probabilities >= thresholds, probabilities, -1)
    counted = confident.argmax(axis=1)
    suspect = (confident.max(axis=1) > 0) & (counted != labels) & (probabilities.argmax(axis=1) != labels)
    others = probabilities.copy()
    others[np.arange(len(labels)), labels] = -1
    margin = own - others.max(axis=1)
    places = np.flatnonzero(suspect)
    return places[np.argsort(margin[places], kind="stable")]


def _unreadable(dataset: Dataset) -> Iterator[Finding]:
    if dataset.bad:
        reasons = {image.id: image.reason for image in dataset.bad}
        counted = Counter(reasons.values()).most_common()
        told = [f"{reason} ({count:,})" for reason, count in counted[:_REASONS_TOLD]]
        if others := sum(count for _, count in counted[_REASONS_TOLD:]):
            told.append(f"other reasons ({others:,})")
        text = (
            f"{plural(len(reasons), 'image')} cannot be read: {'; '.join(told)}: "
            f"{unreadable_fix(reasons.values())}"
        )
        yield Finding("unreadable", "error", text, tuple((each,) for each in reasons), reasons)


def _faint(source: Source, dataset: Dataset, config: DataConfig) -> Iterator[Finding]:
    """Images that are black, as their values use the lower of many bits alone."""
    depth, good = config.depth, _readable(dataset)
    if depth == "format" and len(found := faint_images(source.blocks, dataset.images, good)):
        yield Finding("faint", "error", faint_text(len(found)), tuple((dataset.ids[index],) for index in found))


def _readable(dataset: Dataset) -> NDArray[np.bool_]:
    """Which images [N] can be read: a data set that is taken as declared has each of them in a split."""
    good = np.zeros(len(dataset.labels), bool)
    good[np.concatenate(list(dataset.splits.values()))] = True
    return good


def _classes(dataset: Dataset, drawn: Splits | None) -> Iterator[Finding]:
    """Classes that a split lacks, that are small, or that are much larger than others.

    Args:
        drawn: as training would have them; None: it would refuse.
    """
    counts = {split: _of_classes(dataset, indices) for split, indices in dataset.splits.items()}
    there = np.bincount(dataset.labels, minlength=len(dataset.class_names))
    unread = (there > 0) & (sum(counts.values()) == 0)
    if unread.any():
        names = [name for name, it_is in zip(dataset.class_names, unread, strict=True) if it_is]
        text = f"no image of {listed(names, 5)} can be read: {UNREADABLE_CLASS}"
        yield Finding("unreadable_class", "error", text, remarks=dict.fromkeys(names, "none that can be read"))
    for split, of_classes in counts.items():
        lacking = (of_classes == 0) & ~unread
        if missing := [name for name, it_is in zip(dataset.class_names, lacking, strict=True) if it_is]:
            where = "" if split == "all" else f" in {split}"
            text = f"no image of {listed(missing, 5)}{where}: add some, or remove the class"
            remarks = dict.fromkeys(missing, f"none{where}")
            yield Finding("missing_class", "error", text, remarks=remarks)
    train = counts.get("train", counts.get("all"))
    if train is None or not train.any():
        return
    not_held_out = np.zeros(len(train), bool)
    if drawn is not None and "validation" not in dataset.splits:
        not_held_out = (train > 0) & (_of_classes(dataset, drawn["validation"]) == 0)
    yield from _small(
        dataset,
        "too_few",
        np.where(not_held_out, train, 0),
        "too few to hold out, so none is in the validation split that training draws",
    )
    learned = train + counts.get("validation", np.zeros_like(train))
    yield from _small(
        dataset,
        "few_images",
        np.where((learned < FEWEST_IMAGES) & ~not_held_out, learned, 0),
        f"with fewer than {FEWEST_IMAGES} images of a class, little is learned and little can be measured",
    )
    present = np.flatnonzero(train)  # a class without any is told of as missing
    largest, smallest = int(train.argmax()), int(present[train[present].argmin()])
    if train[largest] > _IMBALANCE * train[smallest]:
        most, least = (f"{dataset.class_names[place]} ({train[place]:,})" for place in (largest, smallest))
        where = " in train" if "train" in counts else ""
        times = f"{train[largest] / train[smallest]:.0f} times the images of {least}{where}"
        yield Finding("imbalance", "warning", f"{most} has {times}: {_UNEVEN_FIX}")


def _of_classes(dataset: Dataset, indices: NDArray[np.int64]) -> NDArray[np.int64]:
    """Images [K] of each class."""
    return np.bincount(dataset.labels[indices], minlength=len(dataset.class_names))


def _small(dataset: Dataset, kind: str, counts: NDArray[np.int64], text: str) -> Iterator[Finding]:
    """A finding about the classes that have a count [K] above zero."""
    named = {name: plural(int(n), "image") for name, n in zip(dataset.class_names, counts, strict=True) if n}
    if named:
        told = listed([f"{name} ({count})" for name, count in named.items()], 5)
        yield Finding(kind, "warning", f"{told}: {text}: add some, or remove the class", remarks=named)


def _groups(dataset: Dataset) -> Iterator[Finding]:
    """Groups, such as a patient's images, that the declared splits share."""
    if shared := shared_groups(dataset.groups, dataset.splits):
        remarks = {name: ", ".join(splits) for name, splits in shared.items()}
        yield Finding("group_across", "warning", shared_groups_text(shared), remarks=remarks)


def _copies(dataset: Dataset, drawn: Splits | None) -> Iterator[Finding]:
    """The same image twice, and nearly: with two labels, in two splits, or neither.

    Splits that are not declared are those that training would draw.
    """
    every = np.sort(np.concatenate(list(dataset.splits.values())))
    labels, splits = dataset.labels, np.full(len(dataset.labels), "", dtype="<U10")
    is_drawn = drawn is not None and "all" in dataset.splits
    in_training = drawn is not None and "validation" not in dataset.splits
    for split, indices in (drawn if drawn is not None and in_training else dataset.splits).items():
        splits[indices] = split
    copy_of = np.arange(len(labels))
    same: dict[str, list[NDArray[np.int64]]] = defaultdict(list)
    for group in exact_groups(dataset.images, every):
        copy_of[group] = group[0]
        conflict = (labels[group] != labels[group[0]]).any()
        across = (splits[group] != splits[group[0]]).any()
        kinds = {"conflict": conflict, "across": across, "within": not (conflict or across)}
        for kind in (kind for kind, it_is in kinds.items() if it_is):
            same[kind].append(group)
    yield from _told(dataset, same, splits, near=False, drawn=is_drawn)

    def relate(ones: NDArray[np.intp], others: NDArray[np.intp]) -> dict[str, NDArray[np.bool_]]:
        one, other = every[ones], every[others]
        conflict = labels[one] != labels[other]
        across = splits[one] != splits[other]
        kinds = {"conflict": conflict, "across": across, "within": ~(conflict | across)}
        return {kind: it_is & (copy_of[one] != copy_of[other]) for kind, it_is in kinds.items()}

    found = near_groups(*perceptual_hashes(dataset.images, every), relate)
    near = {kind: [every[group] for group in groups] for kind, groups in found.items()}
    yield from _told(dataset, near, splits, near=True, drawn=is_drawn)


def _told(
    dataset: Dataset,
    kinds: Mapping[str, Sequence[NDArray[np.int64]]],
    splits: NDArray[np.str_],
    *,
    near: bool,
    drawn: bool,
) -> Iterator[Finding]:
    """A finding for each kind of copies: with two labels, in two splits, or neither.

    Args:
        splits: [N] that of each image.
        drawn: whether they are those that training draws; else they are declared, or all are `all`.
    """
    copies, other = "near copies" if near else "copies", ", which training draws into" if drawn else " in"
    was, once = "may have been" if near else "was", "such an image counts more than once"
    within = f" in the same split: {once}" if "all" not in dataset.splits else f" of the same label: {once}"
    if drawn:
        within = f"{other} the same split: {once}, and another split_seed may part them"
    texts = {
        "conflict": f"{copies} with another label: one of the labels {'may be' if near else 'is'} wrong",
        "across": f"{copies}{other} another split: what is measured {was} trained on",
        "within": f"{copies}{within}",
    }
    for kind, text in texts.items():
        if groups := kinds.get(kind):
            certain = not near and kind != "within"
            have = "1 image has" if len(groups) == 1 else f"{len(groups):,} images have"
            yield Finding(
                f"{'near_' if near else ''}duplicate_{kind}",
                "error" if certain else "warning",
                f"{have} {text}{': remove all but one of each' if certain else ''}",
                tuple(tuple(dataset.ids[index] for index in group) for group in groups),
                {
                    dataset.ids[index]: f"{dataset.class_names[dataset.labels[index]]}, {splits[index]}"
                    for group in groups
                    for index in group
                },
            )


def _detail(source: Source) -> Iterator[Finding]:
    """Pictures that were enlarged before they came here."""
    if (side := sufficient_side(source.blocks)) is not None:
        text = (
            f"the pictures hold no more detail than {side} px, as if they had been enlarged from that (a sample "
            f"was compared): --size {side} shows all of it, and a larger size takes longer and shows no more"
        )
        yield Finding("enlarged_before", "warning", text)

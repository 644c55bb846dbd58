"""What is wrong with a data set, found before anything is trained on it."""

import mimetypes
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from foveate.data.copies import exact_groups, near_groups, perceptual_hashes
from foveate.data.dataset import Dataset, refusal, shared_groups, shared_groups_text
from foveate.data.decode import Header, read_header
from foveate.data.depth import faint_images, faint_text
from foveate.data.detail import sufficient_side
from foveate.data.source import Image, Source, name_warnings
from foveate.preprocessing import Preprocessing
from foveate.progress import Track, untracked
from foveate.settings import DataConfig

Severity = Literal["error", "warning", "info"]
"""`error`: a figure made with it would be wrong; `warning`: it may be; `info`: it is dealt with."""

_SUFFIXES: Mapping[str, tuple[str, ...]] = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
    "PNG": (".png",),
    "WEBP": (".webp",),
    "BMP": (".bmp", ".dib"),
    "GIF": (".gif",),
    "TIFF": (".tif", ".tiff"),
    "AVIF": (".avif", ".avifs"),
    "others": (".heic", ".heif", ".svg", ".pdf"),
}
_ODD: Mapping[str, tuple[Severity, str]] = {
    "wrong_extension": ("warning", "with the name of another format: read by content, not by name"),
    "cropped": (
        "warning",
        "of which the centre crop cuts off more than a third: `--set fit=squash` shows them whole",
    ),
    "enlarged": ("warning", "enlarged to more than twice the side: choose a smaller --size, or leave out"),
    "rotated": ("info", "turned as the EXIF data say"),
    "odd_mode": ("info", "neither RGB nor grey, brought to RGB"),
}
"""What a header tells, by kind."""
_CROPPED_AWAY = 0.35
"""Share of an image's area that the centre crop may take before it is told. The longer sides of cameras, 4:3 and
3:2, lose a quarter and a third, and a third too where 3:2 was rounded, as 500 × 333."""
_IMBALANCE = 10.0
"""Images of the largest class to those of the smallest in training above which it is told."""
_UNEVEN_FIX = "look at the recall of each class, not at accuracy, and train with --set class_weights=balanced"
_ENLARGED = 2.0
"""Times its shorter side that an image may be enlarged by before it is told."""


@dataclass(frozen=True)
class Finding:
    """One kind of thing that was found."""

    kind: str
    severity: Severity
    text: str
    """One line, with the fix where there is one."""
    groups: tuple[tuple[str, ...], ...] = ()
    """Ids of images: those that belong together, such as copies; or one in each."""
    remarks: Mapping[str, str] = field(default_factory=dict)
    """By id what there is to say of an image, such as its label and its split; or by the name of a class."""

    @property
    def count(self) -> int:
        """Images."""
        return sum(map(len, self.groups))


def audit(source: Source, dataset: Dataset, config: DataConfig, *, track: Track = untracked) -> list[Finding]:
    """Everything that can be found without training.

    Args:
        source: as it lies on disk.
        dataset: the same, decoded, with the splits of `pooled`.
        config: as it would be trained with.
    """
    return [
        *_refused(source, dataset, config),
        *_unreadable(dataset),
        *_faint(source, dataset, config),
        *(Finding(name, "warning", text) for name, text in name_warnings(dataset.class_names)),
        *_classes(dataset),
        *_groups(dataset),
        *_copies(dataset),
        *_headers(source, dataset.preprocessing, track),
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


def sort_by_severity(findings: Iterable[Finding]) -> list[Finding]:
    """In the order in which a person should see to them."""
    order = get_args(Severity)
    return sorted(findings, key=lambda finding: order.index(finding.severity))


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
    text = f"{_images(len(places))} whose label is doubted by a network that never saw them"
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


def _refused(source: Source, dataset: Dataset, config: DataConfig) -> Iterator[Finding]:
    if (reason := refusal(source, dataset, config)) is not None:
        yield Finding("untrainable", "error", f"training would refuse it: {reason}")


def _unreadable(dataset: Dataset) -> Iterator[Finding]:
    if dataset.bad:
        reasons = {image.id: image.reason for image in dataset.bad}
        told = "; ".join(f"{reason} ({count})" for reason, count in Counter(reasons.values()).most_common(3))
        text = f"{_images(len(reasons))} cannot be read: {told}: repair or remove them"
        yield Finding("unreadable", "error", text, tuple((each,) for each in reasons), reasons)


def _faint(source: Source, dataset: Dataset, config: DataConfig) -> Iterator[Finding]:
    """Images that are black, as their values use the lower of many bits alone."""
    good = np.zeros(len(source.labels), bool)
    good[np.concatenate(list(dataset.splits.values()))] = True
    if config.depth == "format" and len(found := faint_images(source.blocks, dataset.images, good)):
        yield Finding("faint", "error", faint_text(len(found)), tuple((dataset.ids[index],) for index in found))


def _classes(dataset: Dataset) -> Iterator[Finding]:
    """Classes that a split lacks, or that are much larger than others."""
    counts = {
        split: np.bincount(dataset.labels[indices], minlength=len(dataset.class_names))
        for split, indices in dataset.splits.items()
    }
    for split, of_classes in counts.items():
        if missing := [name for name, count in zip(dataset.class_names, of_classes, strict=True) if not count]:
            named = f"{', '.join(missing[:5])}{', …' if len(missing) > 5 else ''}"
            where = "" if split == "all" else f" in {split}"
            text = f"no image of {named}{where}: add some, or remove the class"
            remarks = dict.fromkeys(missing, f"none{where}")
            yield Finding("missing_class", "error", text, remarks=remarks)
    train = counts.get("train", counts.get("all"))
    if train is None or not train.any():
        return
    yield from _too_few(dataset, train)
    present = np.flatnonzero(train)  # a class without any is told of as missing
    largest, smallest = int(train.argmax()), int(present[train[present].argmin()])
    if train[largest] > _IMBALANCE * train[smallest]:
        most, least = (f"{dataset.class_names[place]} ({train[place]:,})" for place in (largest, smallest))
        times = f"{train[largest] / train[smallest]:.0f} times the training images of {least}"
        yield Finding("imbalance", "warning", f"{most} has {times}: {_UNEVEN_FIX}")


def _too_few(dataset: Dataset, train: NDArray[np.int64]) -> Iterator[Finding]:
    """Classes with too few training images to hold one out for every split that training will draw."""
    if "validation" in dataset.splits:
        return
    draws = 1 if "test" in dataset.splits else 2
    few = {name: int(n) for name, n in zip(dataset.class_names, train, strict=True) if 0 < n <= draws}
    if few:
        told = ", ".join(f"{name} ({_images(count)})" for name, count in list(few.items())[:5])
        text = (
            f"{told}{', …' if len(few) > 5 else ''}: too few to hold out, so none will be in the validation split"
        )
        remarks = {name: _images(count) for name, count in few.items()}
        yield Finding("too_few", "warning", f"{text}: add some, or remove the class", remarks=remarks)


def _groups(dataset: Dataset) -> Iterator[Finding]:
    """Groups, such as a patient's images, that the declared splits share."""
    if shared := shared_groups(dataset.groups, dataset.splits):
        remarks = {name: ", ".join(splits) for name, splits in shared.items()}
        yield Finding("group_across", "warning", shared_groups_text(shared), remarks=remarks)


def _copies(dataset: Dataset) -> Iterator[Finding]:
    """The same image twice, and nearly: with two labels, in two splits, or neither."""
    every = np.sort(np.concatenate(list(dataset.splits.values())))
    labels, splits = dataset.labels, np.full(len(dataset.labels), "", dtype="<U10")
    for split, indices in dataset.splits.items():
        splits[indices] = split
    copy_of = np.arange(len(labels))
    same: dict[str, list[NDArray[np.int64]]] = defaultdict(list)
    for group in exact_groups(dataset.images, every):
        copy_of[group] = group[0]
        conflict = (labels[group] != labels[group[0]]).any()
        across = (splits[group] != splits[group[0]]).any() or splits[group[0]] == "all"
        kinds = {"conflict": conflict, "across": across, "within": not (conflict or across)}
        for kind in (kind for kind, it_is in kinds.items() if it_is):
            same[kind].append(group)
    yield from _told(dataset, same, splits, near=False)

    def relate(place: int, places: NDArray[np.intp]) -> dict[str, NDArray[np.bool_]]:
        one, others = every[place], every[places]
        conflict = labels[others] != labels[one]
        across = (splits[others] != splits[one]) | (splits[one] == "all")
        kinds = {"conflict": conflict, "across": across, "within": ~(conflict | across)}
        return {kind: it_is & (copy_of[others] != copy_of[one]) for kind, it_is in kinds.items()}

    found = near_groups(*perceptual_hashes(dataset.images, every), relate)
    near = {kind: [every[group] for group in groups] for kind, groups in found.items()}
    yield from _told(dataset, near, splits, near=True)


def _told(
    dataset: Dataset, kinds: Mapping[str, Sequence[NDArray[np.int64]]], splits: NDArray[np.str_], *, near: bool
) -> Iterator[Finding]:
    """A finding for each kind of copies: with two labels, in two splits, or neither."""
    copies = "near copies" if near else "copies"
    texts = {
        "conflict": f"{copies} with another label: one of the labels {'may be' if near else 'is'} wrong",
        "across": f"{copies} in another split, or in what will be split: what is tested was trained on",
        "within": f"{copies} in the same split: such an image counts more than once",
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


def _headers(source: Source, preprocessing: Preprocessing, track: Track) -> Iterator[Finding]:
    """What the files say of themselves: names, formats, modes, sizes, rotation."""
    odd: dict[str, dict[str, str]] = defaultdict(dict)
    images = (image for block in source.blocks for image in block.images())
    for number, image in enumerate(track(images, total=len(source.labels), label="reading headers")):
        header = read_header(image)
        if header is not None:
            told = f"{header.format}, {header.mode}, {header.width}×{header.height}"
            for kind in _oddities(image, header, preprocessing):
                odd[kind][source.ids[number]] = told
    for kind, (severity, text) in _ODD.items():
        if told_of := odd[kind]:
            groups = tuple((each,) for each in told_of)
            yield Finding(kind, severity, f"{_images(len(groups))} {text}", groups, told_of)


def _detail(source: Source) -> Iterator[Finding]:
    """Pictures that were enlarged before they came here."""
    if (side := sufficient_side(source.blocks)) is not None:
        text = (
            f"the pictures hold no more detail than {side} px, as if they had been enlarged from that (a sample "
            f"was compared): --size {side} shows all of it, and a larger size takes longer and shows no more"
        )
        yield Finding("enlarged_before", "warning", text)


def _oddities(image: Image, header: Header, preprocessing: Preprocessing) -> Iterator[str]:
    """Kinds of findings that a header is one of, where images are decoded so."""
    own, suffix = _SUFFIXES.get(header.format, ()), image.suffix.lower() if isinstance(image, Path) else ""
    anothers = any(suffix in others for others in _SUFFIXES.values()) or mimetypes.guess_type(f"x{suffix}")[0]
    if own and suffix not in own and anothers:
        yield "wrong_extension"
    shorter, longer = sorted((header.width, header.height))
    if preprocessing.fit == "crop" and 1 - shorter / longer > _CROPPED_AWAY:
        yield "cropped"
    if preprocessing.size > _ENLARGED * (longer if preprocessing.fit == "pad" else shorter):
        yield "enlarged"
    if header.rotated:
        yield "rotated"
    if header.mode not in ("RGB", "L"):
        yield "odd_mode"


def _images(count: int) -> str:
    return f"{count:,} image{'' if count == 1 else 's'}"

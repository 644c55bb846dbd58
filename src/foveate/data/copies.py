"""Images that are there more than once: the same pixels, and nearly the same."""

import hashlib
import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from foveate.data.dataset import Dataset
from foveate.data.near_pairs import near_pairs

Relate = Callable[[NDArray[np.intp], NDArray[np.intp]], Mapping[str, NDArray[np.bool_]]]
_HASH_SIDE = 32
_THUMBNAIL_SIDE = 16
_NEAR_CORRELATION = 0.94
"""Of the grey thumbnails of near duplicates, at least; hashes alone take flat images for each other."""
_SEEN_AT_SIDE, _SEEN_AMONG = 64, 2_000
"""Pixels from which, and images up to which, near copies are looked for on the way to a figure. Smaller images are
often alike without being copies (of the digits, half are), and each image takes a millisecond."""
_THUMBNAILS = 2**14
"""Pairs of thumbnails that are compared at once: 32 MB."""
_CHUNK_BYTES = 2**26
"""Of images as floating-point numbers, at once."""


def exact_groups(images: NDArray[np.uint8], indices: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Those of the images [N, H, W, 3] at `indices` that have the same pixels, where there are two or more."""
    by_pixels: dict[bytes, list[int]] = defaultdict(list)
    for index in indices.tolist():
        by_pixels[_digest(images[index])].append(index)
    return [np.array(group) for group in by_pixels.values() if len(group) > 1]


def copies_among(
    dataset: Dataset, split: str, other: Dataset, splits: Iterable[str]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices of a split's images whose pixels are those of an image in one of the `splits` of another data set;
    and of those among them that have a label there which they do not have here.

    Both are decoded to one size.
    """
    indices = [other.splits[name] for name in splits if name in other.splits]
    known: dict[bytes, set[str]] = defaultdict(set)
    for index in itertools.chain.from_iterable(indices):
        known[_digest(other.images[index])].add(other.class_names[other.labels[index]])
    copies, conflicts = [], []
    for index in dataset.splits[split]:
        if labels := known.get(_digest(dataset.images[index])):
            copies.append(index)
            if dataset.class_names[dataset.labels[index]] not in labels:
                conflicts.append(index)
    return np.array(copies, np.int64), np.array(conflicts, np.int64)


def near_copies_among(dataset: Dataset, split: str, other: Dataset, splits: Iterable[str]) -> NDArray[np.int64]:
    """As `copies_among`, of images that are nearly the same; none where images are small, or over 2,000."""
    asked = dataset.splits[split]
    known = np.concatenate([other.splits[name] for name in splits if name in other.splits] or [asked[:0]])
    if min(dataset.size, other.size) < _SEEN_AT_SIDE or len(asked) + len(known) > _SEEN_AMONG:
        return asked[:0]
    one, two = perceptual_hashes(dataset.images, asked), perceptual_hashes(other.images, known)
    hashes, thumbnails = np.concatenate([one[0], two[0]]), np.concatenate([one[1], two[1]])
    near = _near_across(hashes, thumbnails, np.arange(len(hashes)) < len(asked))
    return np.sort(asked[near[near < len(asked)]])


def near_copies_across(
    images: NDArray[np.uint8], indices: NDArray[np.int64], parts: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Those of the images at `indices` [n] that have a near copy in another of their `parts` [n].

    None where images are small, or over 2,000, as in `near_copies_among`.
    """
    if images.shape[1] < _SEEN_AT_SIDE or len(indices) > _SEEN_AMONG:
        return indices[:0]
    return np.sort(indices[_near_across(*perceptual_hashes(images, indices), parts)])


def _near_across(
    hashes: NDArray[np.uint64], thumbnails: NDArray[np.float32], parts: NDArray[Any]
) -> NDArray[np.intp]:
    """Places of images that have a near copy in another of their `parts` [N]."""

    def relate(ones: NDArray[np.intp], others: NDArray[np.intp]) -> dict[str, NDArray[np.bool_]]:
        return {"across": parts[ones] != parts[others]}

    groups = near_groups(hashes, thumbnails, relate).get("across", [])
    return np.concatenate([np.zeros(0, np.intp), *groups])


def perceptual_hashes(
    images: NDArray[np.uint8], indices: NDArray[np.int64]
) -> tuple[NDArray[np.uint64], NDArray[np.float32]]:
    """64 bits of each image that hardly change with its size, light and compression, and a thumbnail to check by.

    The bits are the signs of the 8 × 8 lowest coefficients of the cosine transform of 32 × 32 grey pixels against
    their median, the mean of the image left out (Zauner 2010, "pHash", section 3.2.1).

    Returns:
        [N] uint64; and [N, 256] grey thumbnails without mean, of length 1 (or 0, of a flat image).
    """
    places = np.arange(_HASH_SIDE)
    cosines = torch.from_numpy(np.cos(np.pi / _HASH_SIDE * (places + 0.5) * np.arange(8)[:, None])).float()
    hashes = np.empty(len(indices), np.uint64)
    thumbnails = np.empty((len(indices), _THUMBNAIL_SIDE**2), np.float32)
    chunk = max(1, _CHUNK_BYTES // (4 * math.prod(images.shape[1:])))
    for start in range(0, len(indices), chunk):
        part = slice(start, start + chunk)
        pixels = torch.from_numpy(images[indices[part]])
        grey = (pixels.float() @ torch.tensor([0.299, 0.587, 0.114])).unsqueeze(1)
        low = (cosines @ F.interpolate(grey, size=(_HASH_SIDE,) * 2, mode="area") @ cosines.T).flatten(1)
        bits = low > low[:, 1:].median(dim=1, keepdim=True).values
        bits[:, 0] = False
        hashes[part] = np.packbits(bits.numpy(), axis=1).view(np.uint64)[:, 0]
        thumbnail = F.interpolate(grey, size=(_THUMBNAIL_SIDE,) * 2, mode="area").flatten(1)
        thumbnails[part] = F.normalize(thumbnail - thumbnail.mean(1, keepdim=True), eps=1e-3).numpy()
    return hashes, thumbnails


def near_groups(
    hashes: NDArray[np.uint64], thumbnails: NDArray[np.float32], relate: Relate
) -> dict[str, list[NDArray[np.intp]]]:
    """Places of images whose hashes differ in few bits and whose thumbnails agree, by one step or several.

    Of those that are in one group already no thumbnails are compared, so that it takes no more memory where all
    images are alike.

    Args:
        relate: kinds of relation, each with groups of its own: given the places of pairs, two arrays [n], by kind
            which of these pairs [n] are related so.
    """
    group_of: dict[str, NDArray[np.intp]] = defaultdict(lambda: np.arange(len(hashes)))
    # A thumbnail that is shorter agrees with none: without those, many flat images of one hash cost nothing.
    able = np.flatnonzero(np.einsum("ij,ij->i", thumbnails, thumbnails) > _NEAR_CORRELATION**2 - 0.01)
    for pairs in near_pairs(hashes[able]):
        ones, others = (able[places] for places in pairs)
        for at in range(0, len(ones), _THUMBNAILS):
            _join(group_of, thumbnails, relate, ones[at : at + _THUMBNAILS], others[at : at + _THUMBNAILS])
    return {kind: _parts(group) for kind, group in group_of.items()}


def _join(
    group_of: dict[str, NDArray[np.intp]],
    thumbnails: NDArray[np.float32],
    relate: Relate,
    ones: NDArray[np.intp],
    others: NDArray[np.intp],
) -> None:
    """Make one group, by kind, of the groups of related places [n] whose thumbnails agree."""
    apart = {
        kind: related & (group_of[kind][ones] != group_of[kind][others])
        for kind, related in relate(ones, others).items()
    }
    asked = np.flatnonzero(np.logical_or.reduce(list(apart.values())))
    agreement = np.einsum("ij,ij->i", thumbnails[ones[asked]], thumbnails[others[asked]])
    near = asked[agreement >= _NEAR_CORRELATION]
    for kind, it_is in apart.items():
        if len(joined := near[it_is[near]]):
            group = group_of[kind]
            names, edges = np.unique(group[np.stack([ones[joined], others[joined]])], return_inverse=True)
            edges = edges.reshape(2, -1)
            graph = coo_array((np.ones(edges.shape[1], bool), tuple(edges)), shape=(len(names),) * 2)
            parts = connected_components(graph, directed=False)[1]
            renamed = np.arange(len(group))
            renamed[names] = names[np.unique(parts, return_index=True)[1]][parts]
            group_of[kind] = renamed[group]


def _parts(group: NDArray[np.intp]) -> list[NDArray[np.intp]]:
    """The places of each value that several places have, in the order of the first."""
    order = np.argsort(group, kind="stable")
    parts = np.split(order, np.flatnonzero(np.diff(group[order])) + 1)
    return sorted((part for part in parts if len(part) > 1), key=lambda part: int(part[0]))


def _digest(pixels: NDArray[np.uint8]) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(pixels).data, digest_size=16).digest()

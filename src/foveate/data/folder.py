"""Data sets of image files in folders that are named after their classes."""

import os
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from foveate.counts import plural
from foveate.data.decode import read_header
from foveate.data.hashing import hash_files
from foveate.data.source import Source, file_blocks, index_classes, listed, reading
from foveate.data.splits import SPLITS, UNDECLARED, hints_at_split, is_held_out, other_words, split_code
from foveate.data.texts import MadeTexts, Texts
from foveate.data.tree import Tree, is_clutter, read_trees, subfolders
from foveate.errors import DataError
from foveate.progress import Track
from foveate.records import printable

_TRAIN = SPLITS.index("train")

SUFFIXES: Mapping[str, tuple[str, ...]] = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
    "PNG": (".png",),
    "WEBP": (".webp",),
    "BMP": (".bmp", ".dib"),
    "GIF": (".gif",),
    "TIFF": (".tif", ".tiff"),
    "AVIF": (".avif", ".avifs"),
}
"""How the names of image files end, by their format."""
IMAGE_SUFFIXES = {suffix for suffixes in SUFFIXES.values() for suffix in suffixes} | {".heic", ".heif"}
_TABLES = {".csv", ".tsv", ".txt", ".lst", ".json", ".jsonl", ".xlsx", ".parquet", ".pq", ".arrow", ".feather"}
_TABLES |= {".npz", ".npy", ".h5", ".hdf5", ".mat", ".tfrecord"}
_READ_TABLES = {".csv", ".tsv", ".npz"}
"""Those that a data set can be given as."""
_ARCHIVES = {".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar"}


def open_folder(root: Path, track: Track) -> Source:
    """Read `root/<split>/<class>/…`, or a flat `root/<class>/…`; a class folder is read with everything below it.

    Every file in a class folder is taken for an image, so that any other file is listed as bad.

    Raises:
        DataError: without class folders; for images beside the splits, and for what looks like a split but cannot
            be taken for one; when a folder cannot be read.
    """
    with reading(root):
        classes, notes = _class_folders(root)
        trees, passed = read_trees(root, [folder for folder, _ in classes])
        for (folder, code), tree in zip(classes, trees, strict=True):
            _refuse_splits_within(root, folder, code, tree)
        if len(classes) == 1 and classes[0][1] == UNDECLARED:
            _refuse_one_level_too_high(root, classes[0][0], trees[0])
        beside = [path for path in root.iterdir() if path.is_file()]
        refuse_other_splits(root, beside, {code for _, code in classes})
        notes += _doubts(classes, trees)
        notes += _loose_files(sorted({root, *(folder.parent for folder, _ in classes)}))
    paths = Texts(path for tree in trees for path in tree.files)
    counts = [len(tree.files) for tree in trees]
    del trees  # a million paths, once more
    if not paths:
        raise DataError(f"{root} has no images: put the images of each class into {root}/<class>/")
    names = [printable(folder.name) for folder, _ in classes]
    class_names, labels = index_classes(names, sorted(set(names)), str)
    return Source(
        name=root.resolve().name or "data",
        location=str(root.resolve()),
        class_names=class_names,
        labels=np.repeat(labels, counts),
        declared=np.repeat(np.array([code for _, code in classes], np.int8), counts),
        ids=MadeTexts(len(paths), lambda place: printable(Path(paths[place]).relative_to(root).as_posix())),
        blocks=file_blocks(paths),
        content=hash_files("files", paths, track),
        notes=(*notes, *passed),
    )


def refuse_other_splits(root: Path, files: Iterable[Path], declared: set[int]) -> None:
    """Refuse a table, archive or image that is named after a split to hold out which the data does not declare.

    `test.zip` beside `train/`, or `test.txt` beside class folders, says which images are for the test: to draw
    others would train on them.

    Args:
        files: below `root`, none of which is read.
        declared: codes of the splits that are read.
    """
    for file in sorted(files):
        if is_clutter(file.name) or file.suffix.lower() not in _TABLES | _ARCHIVES | IMAGE_SUFFIXES:
            continue
        stem = file.name.partition(".")[0]
        is_image = file.suffix.lower() in IMAGE_SUFFIXES
        parts = [*file.relative_to(root).parts[:-1], *([] if is_image else [stem])]
        codes = {code for part in parts if (code := split_code(part)) not in (None, _TRAIN)}
        if codes - declared or any(map(is_held_out, parts)):
            raise DataError(
                f"{file} looks like a split and is not read: bring it into the layout of the rest, list all "
                "images in one CSV table with the columns image,label,split, or move it elsewhere"
            )


def _class_folders(root: Path) -> tuple[list[tuple[Path, int]], list[str]]:
    """The class folders, each with the code of its split, and notes."""
    folders = subfolders(root)
    _refuse_broken_links(root)
    classes_of = {
        folder: found
        for folder in folders
        if split_code(folder.name) is not None and (found := subfolders(folder))
    }
    if not classes_of:
        return [(folder, UNDECLARED) for folder in folders], _check_flat(root, folders)
    notes = []
    for folder in folders:
        if folder in classes_of:
            _refuse_broken_links(folder)
            _refuse_loose_images(folder)
            _refuse_splits_inside(root, folder, classes_of[folder])
        elif (image := _find_image(folder)) is not None:
            raise DataError(_beside_splits(folder, image, sorted(classes_of)))
        else:
            notes.append(f"{folder} holds no images and was left out")
    classes = [(each, split_code(folder.name)) for folder, below in classes_of.items() for each in below]
    for code, split in enumerate(SPLITS):
        if len(names := [folder.name for folder in classes_of if split_code(folder.name) == code]) > 1:
            notes.append(f"{listed(names)} are all taken for the {split} split")
    return [(folder, code) for folder, code in classes if code is not None], notes


def _refuse_splits_inside(root: Path, split: Path, classes: Sequence[Path]) -> None:
    """Refuse a split in a split, such as `train/test/cat/`: all its classes would be one class to train on."""
    for folder in classes:
        if (is_held_out(folder.name) or split_code(folder.name) is not None) and subfolders(folder):
            raise DataError(
                f"{folder} looks like a split inside the split {split.name}: move it to {root / folder.name}, or "
                "rename it if it is a class"
            )


def _beside_splits(folder: Path, image: Path, splits: Sequence[Path]) -> str:
    named = split_code(folder.name) is not None
    return (
        f"{folder} holds images ({image.relative_to(folder)}) beside the folders of splits "
        f"({listed([split.name for split in splits])}), "
        + (
            f"but no class folders: put the images of each class into {folder}/<class>/, or move it elsewhere"
            if named
            else "and its name is not that of a split: rename it to train, val or test, or move it elsewhere"
        )
        + f"; if {splits[0]} is a class and not a split, rename it"
    )


def _check_flat(root: Path, folders: Sequence[Path]) -> list[str]:
    """Notes on class folders whose names could mean splits; DataError for those that cannot be classes."""
    if not folders:
        hint = f"; or give {table}" if (table := _table_in(root)) else ""
        raise DataError(f"{root} has no class folders: put the images of each class into {root}/<class>/{hint}")
    codes = {folder: split_code(folder.name) for folder in folders}
    # Vehicles have a class "train"; the other names, and "train" alone, are unmistakable.
    mistaken = [folder for folder in folders if is_held_out(folder.name) or codes[folder] not in {None, _TRAIN}]
    if mistaken or set(codes.values()) == {_TRAIN}:
        raise DataError(
            f"{(mistaken or folders)[0]} looks like a split, but the other folders do not: for a split, make it "
            f"{root}/test/<class>/ (or val) beside {root}/train/<class>/; for a class, rename it, or list the "
            "images in a CSV table"
        )
    hints = [folder for folder in folders if hints_at_split(folder.name) and codes[folder] is None]
    below = {
        folder: {each.name.casefold() for each in subfolders(folder)} for folder in (folders if hints else ())
    }
    names = {folder.name.casefold() for folder in folders}
    for folder in hints:
        others = names.union(*(below[other] for other in folders if other != folder))
        if below[folder] & others:
            raise DataError(
                f"{folder} may be a split, as it has folders that others have too "
                f"({listed(sorted(below[folder] & others))}): for a split, rename it to train, val or test; for a "
                "class, move its images out of these folders, or list them in a CSV table"
            )
    if len({other_words(folder.name) for folder in hints}) < len(hints):
        raise DataError(
            f"{listed([str(folder) for folder in hints])} may be splits, as their names differ in that alone: for "
            f"splits, rename them to train, val and test, with folders of classes in each; for classes, rename one"
        )
    return [f"{listed([folder.name for folder in hints])}: taken for classes, not for splits"] if hints else []


def _refuse_splits_within(root: Path, folder: Path, code: int, tree: Tree) -> None:
    """Refuse a class folder that has splits below it: they would all be one class."""
    parents = {below.parent for below in tree.folders}
    for below in tree.folders:
        inner = split_code(below.name)
        if is_held_out(below.name) or (inner is not None and (inner != _TRAIN or below in parents)):
            if below in parents and code == UNDECLARED:
                raise DataError(
                    f"{root} is one level too high, as {below} looks like a split: give {below.parent}"
                )
            raise DataError(
                f"{below} looks like a split below the class {printable(folder.name)}: put splits above classes, "
                f"as {root}/test/{printable(folder.name)}/; if it is a class, rename it"
            )


def _refuse_one_level_too_high(root: Path, folder: Path, tree: Tree) -> None:
    """Refuse a single class folder that holds nothing but folders, or has a table beside it."""
    if table := _table_in(root):
        raise DataError(f"{root} has one class folder, and a table: give {table}, or move it elsewhere")
    holders = {os.path.dirname(path) for path in tree.files}  # noqa: PTH120 (5 × Path)
    while True:
        below = [each for each in tree.folders if each.parent == folder]
        if os.fspath(folder) in holders or not below:
            return
        if len(below) > 1:
            raise DataError(
                f"{root} has one class folder, which holds nothing but folders: give {folder}; if "
                f"{listed([each.name for each in below])} are one class, move their images into one folder"
            )
        folder = below[0]


def _doubts(classes: Sequence[tuple[Path, int]], trees: Sequence[Tree]) -> list[str]:
    """Notes on splits without images, and on classes that are made of folders; DataError where all classes hold
    the same folders, as splits do.
    """
    empty = {folder.parent for folder, _ in classes}
    empty -= {folder.parent for (folder, _), tree in zip(classes, trees, strict=True) if tree.files}
    notes = [
        f"{split} holds no images, so that nothing is taken from it"
        for split in sorted(empty)
        if classes[0][1] != UNDECLARED
    ]
    below = [
        {each.name for each in tree.folders if each.parent == folder}
        if tree.files and all(Path(path).parent != folder for path in tree.files)
        else set()
        for (folder, _), tree in zip(classes, trees, strict=True)
    ]
    if (
        classes[0][1] == UNDECLARED
        and len(below) > 1
        and len(below[0]) > 1
        and len(set(map(frozenset, below))) == 1
    ):
        names, inner = listed([folder.name for folder, _ in classes]), listed(sorted(below[0]))
        raise DataError(
            f"{names} all hold the folders {inner}: if {inner} are the classes, and {names} splits or folds, name "
            "those train, val and test, or give one of them alone; if not, list the images in a CSV table with "
            "the columns image,label"
        )
    return notes + _joined_folders([folder for folder, _ in classes], below)


def _joined_folders(classes: Sequence[Path], below: Sequence[set[str]]) -> list[str]:
    """A note where class folders hold nothing but folders, `below`: those may be the classes that are meant."""
    joined: dict[str, set[str]] = {}
    for folder, names in zip(classes, below, strict=True):
        joined.setdefault(printable(folder.name), set()).update(names)
    holders = Counter(name for inner in joined.values() for name in inner)
    joined = {name: inner for name, inner in joined.items() if len(inner) > 1}
    if not joined:
        return []
    told = listed([f"{name} ({listed(sorted(inner), 5)})" for name, inner in sorted(joined.items())], 5)
    repeated = [name for name, count in sorted(holders.items()) if count > 1]
    beware = f"; beware: more than one class has a folder {listed(repeated, 5)}" if repeated else ""
    return [
        f"the images of several folders are taken as one class: {told}{beware}; if these folders are the classes, "
        "move them to where the folders that hold them are, or list the images in a CSV table with the columns "
        "image,label"
    ]


def _loose_files(folders: Sequence[Path]) -> list[str]:
    """Notes on files beside class folders; a table among them may say what nothing else does, such as groups."""
    notes = []
    for folder in folders:
        beside = sorted(path for path in folder.iterdir() if not path.is_dir() and not is_clutter(path.name))
        if not beside:
            continue
        files, were = ("1 file", "was") if len(beside) == 1 else (f"{len(beside):,} files", "were")
        names = listed([path.name for path in beside], 5)
        notes.append(f"{files} beside the class folders of {folder} {were} left out: {names}")
        if tables := [path for path in beside if path.suffix.lower() in _READ_TABLES]:
            notes.append(
                f"nothing is taken from the table {listed([path.name for path in tables], 5)}: if it lists the "
                f"images, with groups or splits, give it in place of the folder: {shlex.quote(str(tables[0]))}"
            )
    return notes


def _refuse_broken_links(folder: Path) -> None:
    """Refuse a link that leads nowhere where class folders are: whether one of them is missing cannot be known."""
    for path in folder.iterdir():
        if is_clutter(path.name) or path.suffix.lower() in IMAGE_SUFFIXES:
            continue
        if path.is_symlink() and not path.exists():
            raise DataError(f"{path} is a link that leads nowhere: repair or remove it")


def _refuse_loose_images(split: Path) -> None:
    loose = sorted(path for path in split.iterdir() if not is_clutter(path.name) and _is_image(path))
    if loose:
        raise DataError(
            f"{split} holds {plural(len(loose), 'image')} beside its class folders, "
            f"{printable(loose[0].name)} first: put each into the folder of its class, or move it elsewhere"
        )


def _find_image(folder: Path) -> Path | None:
    (tree,), _ = read_trees(folder, [folder])
    return next((path for path in map(Path, tree.files) if _is_image(path)), None)


def _table_in(folder: Path) -> Path | None:
    tables = (path for path in sorted(folder.iterdir()) if not is_clutter(path.name))
    return next((path for path in tables if path.suffix.lower() in _READ_TABLES), None)


def _is_image(path: Path) -> bool:
    if path.suffix:
        return path.suffix.lower() in IMAGE_SUFFIXES
    return path.is_file() and read_header(path) is not None

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from foveate.data.folder import open_csv, open_folder
from foveate.data.splits import SPLITS, UNDECLARED
from foveate.errors import DataError
from foveate.progress import untracked

WriteFolder = Callable[..., Path]


def test_a_flat_folder(write_folder: WriteFolder) -> None:
    source = open_folder(write_folder({"dog": 2, "cat": 3}), untracked)
    assert source.name == "pets"
    assert Path(source.location).is_absolute()
    assert source.class_names == ("cat", "dog")
    assert source.labels.tolist() == [0, 0, 0, 1, 1]
    assert source.ids == ["cat/0000.png", "cat/0001.png", "cat/0002.png", "dog/0000.png", "dog/0001.png"]
    assert (source.declared == UNDECLARED).all()
    assert source.notes == ()


def test_declared_splits_and_their_spellings(write_folder: WriteFolder) -> None:
    root = write_folder({"train/dog": 1, "train/cat": 1, "valid/dog": 1, "Test/cat": 1})
    source = open_folder(root, untracked)
    splits = {name: SPLITS[code] for name, code in zip(source.ids, source.declared, strict=True)}
    assert splits == {
        "train/cat/0000.png": "train",
        "train/dog/0000.png": "train",
        "valid/dog/0000.png": "validation",
        "Test/cat/0000.png": "test",
    }
    assert source.class_names == ("cat", "dog")


def test_a_class_may_be_called_train(write_folder: WriteFolder) -> None:
    source = open_folder(write_folder({"train": 2, "bus": 2}), untracked)
    assert source.class_names == ("bus", "train")
    assert (source.declared == UNDECLARED).all()


def test_a_folder_of_a_test_split_alone(write_folder: WriteFolder) -> None:
    source = open_folder(write_folder({"test/cat": 1, "test/dog": 1}), untracked)
    assert source.class_names == ("cat", "dog")
    assert [SPLITS[code] for code in source.declared] == ["test", "test"]


def test_a_class_folder_is_read_recursively_without_clutter(write_folder: WriteFolder) -> None:
    root = write_folder({"cat": 1, "cat/more/deep": 1, "dog": 1, "cat/.hidden": 1, ".git": 1})
    for clutter in ("Thumbs.db", "desktop.ini", ".DS_Store"):
        (root / "cat" / clutter).write_text("clutter")
        (root / clutter).write_text("clutter")
    (root / "cat" / "notes.txt").write_text("a bad image")
    source = open_folder(root, untracked)
    assert source.ids == ["cat/0000.png", "cat/notes.txt", "cat/more/deep/0000.png", "dog/0000.png"]
    assert source.notes == ()


def test_what_is_passed_over_is_noted(write_folder: WriteFolder) -> None:
    root = write_folder({"train/cat": 1, "train/dog": 1, "extra/cat": 1})
    (root / "README.md").write_text("about")
    source = open_folder(root, untracked)
    assert len(source.ids) == 2
    assert [note.replace(str(root), "ROOT") for note in source.notes] == [
        "1 file(s) beside the class folders of ROOT were passed over",
        "ROOT/extra is no split and was passed over",
    ]


def test_an_empty_class_is_a_class(write_folder: WriteFolder) -> None:
    assert open_folder(write_folder({"cat": 1, "dog": 0}), untracked).class_names == ("cat", "dog")


def test_the_content_is_of_the_files_not_of_their_place(write_folder: WriteFolder, tmp_path: Path) -> None:
    first = open_folder(write_folder({"cat": 2, "dog": 1}), untracked)
    (tmp_path / "pets").rename(tmp_path / "moved")
    os.utime(tmp_path / "moved/cat/0000.png", (0, 0))
    moved = open_folder(tmp_path / "moved", untracked)
    assert moved.content == first.content
    (tmp_path / "moved/cat/0000.png").write_text("changed")
    assert open_folder(tmp_path / "moved", untracked).content != first.content


@pytest.mark.parametrize("counts", [{}, {"cat": 0, "dog": 0}, {"train/cat": 0}])
def test_no_images(counts: dict[str, int], write_folder: WriteFolder, tmp_path: Path) -> None:
    (tmp_path / "pets").mkdir()
    with pytest.raises(DataError, match=r"has no (images|class folders): put the images of each class into"):
        open_folder(write_folder(counts), untracked)


def test_a_class_folder_that_may_not_be_read(
    tmp_path: Path, write_folder: WriteFolder, unprivileged: None
) -> None:
    with pytest.raises(DataError, match=r"^no permission to read .*pets.*: give yourself the right"):
        open_folder(tmp_path / "pets", untracked)


def table(folder: Path, text: str | bytes) -> Path:
    path = folder / "table.csv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_csv_with_all_its_columns(tmp_path: Path) -> None:
    text = '\ufeffImage, label ,split,group\r\n a/1.png,dog,train,x\r\n\r\n"b,2.png",cat,,\r\n'
    source = open_csv(table(tmp_path, text), untracked)
    assert source.name == "table"
    assert source.class_names == ("cat", "dog")
    assert source.labels.tolist() == [1, 0]
    assert source.ids == ["a/1.png", "b,2.png"]
    assert source.declared.tolist() == [0, UNDECLARED]
    assert source.groups == ("x", "")
    assert [str(image) for image in source.blocks[0].images()] == [f"{tmp_path}/a/1.png", f"{tmp_path}/b,2.png"]


@pytest.mark.parametrize(
    ("name", "told"),
    [("a\u2028b.png", "a\\u2028b.png"), ("a\x0cb.png", "a\\x0cb.png"), ("a\x85b.png", "a\\x85b.png")],
)
def test_csv_rows_end_at_line_breaks_alone(name: str, told: str, tmp_path: Path) -> None:
    source = open_csv(table(tmp_path, f"image,label\n{name},cat\rc.png,dog\r\n"), untracked)
    assert source.ids == [told, "c.png"]


def test_csv_of_two_columns_in_any_order(tmp_path: Path) -> None:
    source = open_csv(table(tmp_path, "label,image\ncat,/abs/1.png\n"), untracked)
    assert source.groups is None
    assert source.declared.tolist() == [UNDECLARED]
    assert [str(image) for image in source.blocks[0].images()] == ["/abs/1.png"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: the header must name the columns image,label"),
        ("path,label\na.png,cat\n", "line 1: the header must name the columns image,label"),
        ("image,label\n", "lists no images: add lines"),
        ("image,label\na.png,cat\nb.png\n", "line 3: 1 fields where the header has 2"),
        ("image,label\na,b.png,cat\n", "line 2: 3 fields where the header has 2"),
        ("image,label\na.png,\n", "line 2: the label is empty"),
        ("image,label\n\n ,cat\n", "line 3: the image is empty"),
        (
            "image,label,split\na.png,cat,train\nb.png,cat,tset\n",
            "line 3: split 'tset' is none of train, val, test",
        ),
        ('image,label\n"a.png"x,cat\n', "line 2: .*: correct the line"),
        ('image,label\na.png,cat\n"b.png,cat\n', "line 3: .*: correct the line"),
        (b"image,label\na.png,cat\nb.png,\xff\n", "line 3: not UTF-8 text"),
    ],
)
def test_csv_faults_name_their_line(text: str | bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message) as caught:
        open_csv(table(tmp_path, text), untracked)
    assert "\n" not in str(caught.value)
    assert "table.csv" in str(caught.value)

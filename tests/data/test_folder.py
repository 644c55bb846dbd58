import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from foveate.data.folder import open_folder
from foveate.data.opening import open_source
from foveate.data.splits import SPLITS, UNDECLARED, split_code
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
    assert source.notes == (
        "hidden files, and what operating systems and programs add, were left out: "
        ".DS_Store (2), .git (1), .hidden (1), Thumbs.db (2), desktop.ini (2)",
    )


def test_what_is_passed_over_is_noted(write_folder: WriteFolder) -> None:
    root = write_folder({"train/cat": 1, "train/dog": 1})
    (root / "README.md").write_text("about")
    (root / "annotations").mkdir()
    (root / "annotations" / "0.xml").write_text("<box/>")
    source = open_folder(root, untracked)
    assert len(source.ids) == 2
    assert [note.replace(str(root), "ROOT") for note in source.notes] == [
        "ROOT/annotations holds no images and was left out",
        "1 file beside the class folders of ROOT was left out: README.md",
    ]


def test_a_table_beside_class_folders_is_named_with_what_reads_it(write_folder: WriteFolder) -> None:
    root = write_folder({"cat": 1, "dog": 1})
    (root / "groups.csv").write_text("image,label,group\ncat/0000.png,cat,a\ndog/0000.png,dog,b\n")
    (root / "README.md").write_text("about")
    notes = open_folder(root, untracked).notes
    assert [note.replace(str(root), "ROOT") for note in notes] == [
        "2 files beside the class folders of ROOT were left out: README.md, groups.csv",
        "nothing is taken from the table groups.csv: if it lists the images, with groups or splits, give it in "
        "place of the folder: ROOT/groups.csv",
    ]
    assert open_source(str(root / "groups.csv"), None).groups == ("a", "b")


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
    with pytest.raises(DataError, match=r"^no permission to read .*pets.*: change its permissions"):
        open_folder(tmp_path / "pets", untracked)


def splits_of(root: Path) -> dict[str, int]:
    declared = open_folder(root, untracked).declared
    return dict(Counter("none" if code == UNDECLARED else SPLITS[code] for code in declared))


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("Training", "Testing"), {"train": 2, "test": 2}),
        (("TRAIN", "TEST"), {"train": 2, "test": 2}),
        (("train", "dev", "evaluation"), {"train": 2, "validation": 2, "test": 2}),
        (("01_train", "02_valid", "03_eval"), {"train": 2, "validation": 2, "test": 2}),
        (("train2017", "val2017"), {"train": 2, "validation": 2}),
        (("Train images", "test-set"), {"train": 2, "test": 2}),
        (("trainset", "testset"), {"train": 2, "test": 2}),
        (("train", "test1"), {"train": 2, "test": 2}),
        (("train_v2", "test_v2"), {"train": 2, "test": 2}),
        (("train", "val", "validation"), {"train": 2, "validation": 4}),
    ],
)
def test_what_is_named_as_a_split_is_one(
    names: tuple[str, ...], expected: dict[str, int], write_folder: WriteFolder
) -> None:
    root = write_folder({f"{name}/{kind}": 1 for name in names for kind in ("cat", "dog")})
    assert splits_of(root) == expected
    assert open_folder(root, untracked).class_names == ("cat", "dog")


def test_two_spellings_of_a_split_are_joined_and_noted(write_folder: WriteFolder) -> None:
    root = write_folder({"train/cat": 1, "val/cat": 1, "validation/cat": 1})
    assert open_folder(root, untracked).notes == ("val, validation are all taken for the validation split",)


@pytest.mark.parametrize(
    ("folders", "culprit", "message"),
    [
        (
            ("train/cat", "holdout/cat"),
            "holdout",
            "its name is not that of a split: rename it to train, val or test",
        ),
        (
            ("train/cat", "train/test/cat", "train/test/dog"),
            "train/test",
            "a split inside the split train: move it to",
        ),
        (("train/cat", "unseen/cat"), "unseen", "its name is not that of a split"),
        (("train/cat", "trainval/cat"), "trainval", "its name is not that of a split"),
        (("train/cat", "test", "val/cat"), "test", "but no class folders: put the images of each class into"),
        (("Training/cat", "Testing"), "Testing", "but no class folders"),
        (("train/cat", "train/dog", "cow"), "cow", "if .*train is a class and not a split, rename it"),
        (("test/cat", "test/dog", "cat", "dog"), "cat", "if .*test is a class and not a split, rename it"),
        (
            ("bus/red", "bus/blue", "train/steam", "train/ice"),
            "bus",
            "train is a class and not a split, rename it",
        ),
        (
            ("cat", "dog", "test"),
            "test",
            "looks like a split, .* for a class, rename it, or list the images",
        ),
        (("cat", "dog", "val2017"), "val2017", "looks like a split"),
        (("cat", "dog", "holdout"), "holdout", "looks like a split"),
        (("cat", "dog", "holdout/cat", "holdout/dog"), "holdout", "looks like a split"),
        (("train", "test"), "test", "looks like a split"),
        (("train",), "train", "looks like a split"),
        (
            ("public_train/cat", "public_test/cat"),
            "public_test",
            "may be a split, as it has folders that others have",
        ),
        (("cat", "dog", "public_test/cat"), "public_test", "may be a split"),
        (
            ("asl_train/A", "asl_train/B", "asl_test"),
            "asl_train",
            "may be splits, as their names differ",
        ),
        (("cat/train", "cat/test", "dog/train", "dog/test"), "cat/test", "looks like a split below the class cat"),
        (("train/cat", "train/dog/eval"), "train/dog/eval", "looks like a split below the class dog"),
        (("set/train/cat", "set/test/cat"), "set", "is one level too high, as .* looks like a split: give .*set$"),
        (("a/train/cat", "a/train/dog", "b/train/cat"), "a/train", "is one level too high"),
        (("images/cat", "images/dog"), "images", "has one class folder, .*: give .*images;"),
        (("data/images/cat", "data/images/dog"), "data/images", "give .*data/images;"),
    ],
)
def test_what_looks_like_a_split_and_cannot_be_taken_is_an_error(
    folders: tuple[str, ...], culprit: str, message: str, write_folder: WriteFolder
) -> None:
    root = write_folder(dict.fromkeys(folders, 2))
    with pytest.raises(DataError, match=message) as caught:
        open_folder(root, untracked)
    assert str(root / culprit) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_split_without_images_is_noted(write_folder: WriteFolder) -> None:
    root = write_folder({"train/cat": 1, "train/dog": 1, "test/cat": 0, "test/dog": 0})
    assert open_folder(root, untracked).notes == (
        f"{root / 'test'} holds no images, so that nothing is taken from it",
    )


@pytest.mark.parametrize(
    "tops", [("fold0", "fold1", "fold2"), ("entrenamiento", "prueba"), ("训练", "测试"), ("gallery", "query")]
)
def test_splits_by_any_name_are_known_by_the_classes_that_they_all_hold(
    tops: tuple[str, ...], write_folder: WriteFolder
) -> None:
    root = write_folder({f"{top}/{name}": 1 for top in tops for name in ("cat", "dog")})
    with pytest.raises(DataError, match=r"all hold the folders cat, dog: .* name those train, val and test"):
        open_folder(root, untracked)


def test_a_class_of_several_folders_is_noted(write_folder: WriteFolder) -> None:
    root = write_folder(dict.fromkeys(("a/ants", "a/wasps", "b/bees", "b/flies"), 1))
    (note,) = open_folder(root, untracked).notes
    assert note.startswith(
        "the images of several folders are taken as one class: a (ants, wasps), b (bees, flies); if"
    )
    root = write_folder(
        dict.fromkeys(("train/a/ants", "train/a/wasps", "train/b/bees", "train/b/ants"), 1), "split"
    )
    (note,) = open_folder(root, untracked).notes
    assert "a (ants, wasps), b (ants, bees); beware: more than one class has a folder ants; if" in note


@pytest.mark.parametrize("folders", [("a/images", "b/images"), ("a", "a/more", "a/other", "b")])
def test_a_class_of_one_folder_or_with_images_beside_its_folders_is_not_noted(
    folders: tuple[str, ...], write_folder: WriteFolder
) -> None:
    assert open_folder(write_folder(dict.fromkeys(folders, 1)), untracked).notes == ()


def test_classes_that_hold_images_and_folders_are_classes(write_folder: WriteFolder) -> None:
    folders = {f"{name}/{place}": 1 for name in ("cat", "dog") for place in ("indoor", "outdoor")}
    source = open_folder(write_folder({**folders, "cat": 1, "dog": 1}), untracked)
    assert source.class_names == ("cat", "dog")


def test_unlabelled_images_are_no_class(write_folder: WriteFolder) -> None:
    with pytest.raises(DataError, match="unlabeled"):
        open_folder(write_folder({"labeled/cat": 1, "labeled/dog": 1, "unlabeled": 1}), untracked)
    assert split_code("trn") == split_code("train")
    assert split_code("tst_images") == split_code("test")


def test_one_class_folder_beside_a_table(write_folder: WriteFolder) -> None:
    root = write_folder({"images": 2})
    (root / "labels.csv").write_text("image,label\nimages/0000.png,cat\n")
    with pytest.raises(DataError, match=r"has one class folder, and a table: give .*labels\.csv, or move it"):
        open_folder(root, untracked)


def test_an_image_beside_the_class_folders_of_a_split_is_an_error(write_folder: WriteFolder) -> None:
    root = write_folder({"train/cat": 1, "test": 2, "test/cat": 1})
    with pytest.raises(DataError, match=r"test holds 2 images beside its class folders, 0000\.png first"):
        open_folder(root, untracked)


def test_an_image_without_a_suffix_is_an_image(write_folder: WriteFolder) -> None:
    root = write_folder({"train/cat": 1, "train/dog": 1, "test": 1})
    (root / "test/0000.png").rename(root / "test/0000")
    with pytest.raises(DataError, match=r"test holds images \(0000\) beside the folders of splits \(train\)"):
        open_folder(root, untracked)
    (root / "test/0000").write_text("no image")
    assert open_folder(root, untracked).notes == (f"{root / 'test'} holds no images and was left out",)


@pytest.mark.parametrize(
    "folders",
    [
        ("bus", "train"),
        ("test tube", "training shoes"),
        ("test tube/a", "beaker/b"),
        ("contest", "household", "detrain"),
        ("cat/train", "dog/train"),
    ],
)
def test_classes_with_a_word_of_a_split_in_their_names(
    folders: tuple[str, ...], write_folder: WriteFolder
) -> None:
    source = open_folder(write_folder(dict.fromkeys(folders, 2)), untracked)
    assert source.class_names == tuple(sorted({folder.partition("/")[0] for folder in folders}))
    assert (source.declared == UNDECLARED).all()


def test_a_class_that_could_be_a_split_is_noted(write_folder: WriteFolder) -> None:
    source = open_folder(write_folder({"test tube": 1, "beaker": 1}), untracked)
    assert source.notes == ("test tube: taken for classes, not for splits",)


@pytest.mark.parametrize("name", ["test.zip", "test.csv", "val_list.txt", "testing.parquet", "holdout.tar.gz"])
def test_a_file_that_looks_like_a_split_is_an_error(name: str, write_folder: WriteFolder) -> None:
    root = write_folder({"cat": 1, "dog": 1})
    (root / name).write_text("")
    with pytest.raises(DataError, match=f"{name} looks like a split and is not read: .* or move it elsewhere$"):
        open_folder(root, untracked)


@pytest.mark.parametrize("name", ["train.csv", "test.zip", "test.py", "latest.csv", "labels.csv"])
def test_a_file_of_a_split_that_is_read_is_passed_over(name: str, write_folder: WriteFolder) -> None:
    root = write_folder({"train/cat": 1, "test/cat": 1})
    (root / name).write_text("")
    assert splits_of(root) == {"train": 1, "test": 1}


def test_a_folder_without_class_folders_names_the_table_in_it(write_folder: WriteFolder) -> None:
    root = write_folder({"": 2})
    (root / "list.csv").write_text("image,label")
    with pytest.raises(DataError, match=r"has no class folders: .*; or give .*list\.csv$"):
        open_folder(root, untracked)


@pytest.mark.skipif(os.name == "nt", reason="Windows seldom allows links")
class TestLinks:
    def test_a_linked_folder_in_a_class_is_read(self, write_folder: WriteFolder, tmp_path: Path) -> None:
        root = write_folder({"cat": 1, "dog": 1})
        write_folder({"more": 2, "more/deep": 1}, root="elsewhere")
        (root / "cat/more").symlink_to(tmp_path / "elsewhere/more")
        source = open_folder(root, untracked)
        assert Counter(source.class_names[label] for label in source.labels) == {"cat": 4, "dog": 1}
        assert "cat/more/deep/0000.png" in source.ids
        assert source.notes == ()

    def test_a_linked_class_folder_is_a_class(self, write_folder: WriteFolder, tmp_path: Path) -> None:
        root = write_folder({"cat": 1})
        (root / "dog").symlink_to(write_folder({"": 2}, root="elsewhere"))
        assert open_folder(root, untracked).class_names == ("cat", "dog")

    @pytest.mark.parametrize("target", [".", "..", "../..", "../dog", "deep", "/"])
    def test_no_folder_is_read_twice(self, target: str, write_folder: WriteFolder) -> None:
        root = write_folder({"cat": 1, "cat/deep": 1, "dog": 1})
        (root / "cat/again").symlink_to(target)
        source = open_folder(root, untracked)
        assert source.ids == ["cat/0000.png", "cat/deep/0000.png", "dog/0000.png"]
        assert source.notes == (
            "links to folders that are read already, or that hold the data, were not followed: cat/again",
        )

    def test_two_links_to_one_folder_read_it_once(self, write_folder: WriteFolder, tmp_path: Path) -> None:
        root = write_folder({"cat": 1, "dog": 1})
        elsewhere = write_folder({"": 2, "deep": 1}, root="elsewhere")
        (root / "cat/a").symlink_to(elsewhere / "deep")
        (root / "cat/b").symlink_to(elsewhere)
        (elsewhere / "loop").symlink_to(elsewhere)
        source = open_folder(root, untracked)
        assert len(source.ids) == 5
        assert source.notes[0].endswith("were not followed: cat/b/deep, cat/b/loop")

    @pytest.mark.parametrize("target", [".", "..", "cat", "cat/deep"])
    def test_a_class_folder_that_is_another_is_an_error(self, target: str, write_folder: WriteFolder) -> None:
        root = write_folder({"cat": 1, "cat/deep": 1, "dog": 1})
        (root / "emu").symlink_to(target)
        with pytest.raises(DataError, match=r"are the same folder, by a link: remove the link$"):
            open_folder(root, untracked)

    def test_a_test_class_that_is_a_training_class_is_an_error(self, write_folder: WriteFolder) -> None:
        root = write_folder({"train/cat": 1, "train/dog": 1, "test/dog": 1})
        (root / "test/cat").symlink_to("../train/cat")
        with pytest.raises(DataError, match=r"test/cat and .*train/cat are the same folder|train/cat and"):
            open_folder(root, untracked)

    @pytest.mark.parametrize("target", ["gone", "emu.png"])
    def test_an_image_that_leads_nowhere_is_listed(self, target: str, write_folder: WriteFolder) -> None:
        root = write_folder({"cat": 1, "dog": 1})
        (root / "dog/emu.png").symlink_to(target)
        assert open_folder(root, untracked).ids == ["cat/0000.png", "dog/0000.png", "dog/emu.png"]

    @pytest.mark.parametrize("target", ["gone", "emu"])
    def test_a_class_folder_that_leads_nowhere_is_an_error(self, target: str, write_folder: WriteFolder) -> None:
        root = write_folder({"cat": 1, "dog": 1})
        (root / "emu").symlink_to(target)
        with pytest.raises(DataError, match=r"emu is a link that leads nowhere: repair or remove it$"):
            open_folder(root, untracked)


def test_what_computers_leave_is_passed_over_and_said_once(write_folder: WriteFolder) -> None:
    clutter = ("__MACOSX", "cat/@eaDir", "cat/.ipynb_checkpoints", "dog/.AppleDouble", "dog/__MACOSX/cat")
    root = write_folder({"cat": 1, "dog": 1, **dict.fromkeys(clutter, 2)})
    for name in ("cat/._0000.png", "dog/._0000.png", "Thumbs.db"):
        (root / name).write_text("clutter")
    source = open_folder(root, untracked)
    assert source.ids == ["cat/0000.png", "dog/0000.png"]
    assert source.notes == (
        "hidden files, and what operating systems and programs add, were left out: "
        ".AppleDouble (1), ._* (2), .ipynb_checkpoints (1), @eaDir (1), Thumbs.db (1), __MACOSX (2)",
    )


def test_folders_nested_deeper_than_python_calls(write_folder: WriteFolder) -> None:
    root = write_folder({"cat": 0, "dog": 1})
    places = [root / "cat"]
    for _ in range(1100):
        places.append(places[-1] / "d")
        places[-1].mkdir()
    (places[-1] / "deep.png").write_text("")
    try:
        assert len(open_folder(root, untracked).ids) == 2
    finally:  # pytest's own removal calls itself
        (places[-1] / "deep.png").unlink()
        for place in reversed(places[1:]):
            place.rmdir()

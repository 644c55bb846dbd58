import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from foveate.data.hashing import hash_files
from foveate.data.source import file_blocks, index_classes, reading, refuse_claim, typical_side, whole_numbers
from foveate.errors import DataError
from foveate.progress import untracked
from foveate.records import printable

Encode = Callable[..., bytes]


@given(st.lists(st.text(max_size=4), min_size=1))
def test_names_are_sorted_and_give_back_the_values(values: list[str]) -> None:
    assume(all(map(str.strip, values)))
    expected = [printable(value) for value in sorted(set(values))]
    assume(len(set(expected)) == len(expected))
    names, labels = index_classes(values, None, str)
    assert list(names) == expected
    assert [names[label] for label in labels] == [printable(value) for value in values]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("caf\u00e9 \u732b \u2764\ufe0f", "caf\u00e9 \u732b \u2764\ufe0f"),
        ("\x1b[31mred\nline", r"\x1b[31mred\nline"),
        (os.fsdecode(b"\xff"), r"\xff"),
        ("\ud800", r"\ud800"),
    ],
)
def test_what_no_screen_shows_is_spelled_out(name: str, told: str) -> None:
    assert printable(name) == told
    told.encode()


def test_integers_are_named_in_numeric_order() -> None:
    names, labels = index_classes(np.array([10, 9, 10]), None, str)
    assert names == ("9", "10")
    assert labels.tolist() == [1, 0, 1]


def test_given_names_keep_their_order() -> None:
    assert index_classes(np.array([1, 0]), ["dog", "cat"], str)[1].tolist() == [1, 0]
    assert index_classes(["cat", "dog"], ["dog", "cat"], str)[1].tolist() == [1, 0]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.array([0, 2]), r"^row 1: label 2 is not in 0…1: "),
        (np.array([-1, 0]), r"^row 0: label -1 is not in 0…1: "),
        (["cat", "cow"], r"^row 1: label cow is not in dog, cat: "),
    ],
)
def test_a_label_that_is_no_class(values: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        index_classes(values, ["dog", "cat"], lambda row: f"row {row}")


def test_a_class_named_twice() -> None:
    with pytest.raises(DataError, match="named twice"):
        index_classes(np.array([0]), ["cat", "cat"], str)


@given(st.integers(1, 300), st.integers(1, 70))
def test_file_blocks_cover_the_files_in_order(count: int, size: int) -> None:
    paths = [str(number) for number in range(count)]
    blocks = file_blocks(paths, size)
    assert [str(image) for block in blocks for image in block.images()] == paths
    assert [block.start for block in blocks] == list(range(0, count, size))
    assert sum(block.count for block in blocks) == count


def test_typical_side_is_the_median_of_readable_images(tmp_path: Path, encode: Encode) -> None:
    sides = [20, 30, 40, 50, 60]
    paths = [tmp_path / f"{side}.png" for side in sides]
    for path, side in zip(paths, sides, strict=True):
        path.write_bytes(encode(size=(side, 80)))
    (tmp_path / "bad.png").write_text("bad")
    names = [str(path) for path in [*paths, tmp_path / "bad.png"]]
    assert typical_side(file_blocks(names)) == 40
    assert typical_side(file_blocks(names, 1)) == 40
    assert typical_side(file_blocks([str(tmp_path / "bad.png")])) is None


def test_typical_side_opens_few_files(tmp_path: Path, encode: Encode) -> None:
    opened = []

    class Spy(list[str]):
        def __iter__(self):
            for path in super().__iter__():
                opened.append(path)
                yield path

    path = tmp_path / "one.png"
    path.write_bytes(encode(size=(33, 44)))
    blocks = file_blocks([str(path)] * 100_000)
    object.__setattr__(blocks[0], "paths", Spy(blocks[0].files))
    assert typical_side(blocks) == 33
    assert len(opened) <= 64


def test_reading_names_the_file_and_the_fix(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^cannot read x: .*: copy or download it again$"), reading("x"):
        (tmp_path / "missing").read_text()
    with pytest.raises(DataError, match="two lines"), reading("x", (ValueError,)):
        raise ValueError("two\nlines")
    with pytest.raises(DataError, match="no permission to read x: "), reading("x"):
        raise PermissionError
    with pytest.raises(KeyError), reading("x", (ValueError,)):
        raise KeyError


@pytest.mark.skipif(not Path("/proc/self/pagemap").exists(), reason="a file of Linux")
@pytest.mark.parametrize("name", ["pagemap", "status", "mem", "maps", "clear_refs"])
def test_a_file_of_the_kernel_is_not_read_beyond_its_size(name: str) -> None:
    """The page map says that it has no bytes, and gives terabytes to whoever reads on."""
    assert hash_files("files", [f"/proc/self/{name}"], untracked).digest


def test_a_file_that_claims_terabytes_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "sparse.png"
    with path.open("wb") as file:
        file.truncate(6 << 40)
    first = hash_files("files", [str(path)], untracked)
    os.utime(path, (0, 0))
    assert hash_files("files", [str(path)], untracked).digest != first.digest


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a", " "], "the name of a class is empty: give every image a label"),
        (["a", "x" * 2001], "the name of a class has 2,001 characters, more than 2000: xxx"),
        ([f"c{number}" for number in range(100_001)], "the labels name more than 100,000 classes"),
    ],
)
def test_names_that_no_checkpoint_could_hold(names: list[str], message: str) -> None:
    for class_names in (None, names):
        with pytest.raises(DataError, match=message):
            index_classes(["a"] if class_names else names, class_names, str)


def test_a_message_lists_few_names() -> None:
    with pytest.raises(DataError) as caught:
        index_classes(["x" * 10**6], [f"c{number}" for number in range(1000)], str)
    assert len(str(caught.value)) < 400
    assert "c9 and 990 more" in str(caught.value)


def test_labels_larger_than_any_place() -> None:
    with pytest.raises(DataError, match=r"^row 1: label 9223372036854775808 is larger than any label can be"):
        whole_numbers(np.array([1, 2**63], np.uint64), lambda row: f"row {row}")
    assert whole_numbers(np.array([1, 2**63 - 1], np.uint64), str).tolist() == [1, 2**63 - 1]


@pytest.mark.parametrize(("images", "once"), [(100_002, 0), (0, (32 << 20) + 201)])
def test_what_no_file_of_its_size_can_hold(images: int, once: int) -> None:
    refuse_claim(Path("x"), 100, images=images - 1, once=once - 1, what="labels")
    with pytest.raises(DataError, match=r"^x has 100 bytes and claims .*: write it again"):
        refuse_claim(Path("x"), 100, images=images, once=once, what="labels")

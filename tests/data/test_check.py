"""What is found in a data set: planted faults, each by its name, and nothing where nothing is."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from foveate.data.check import audit, label_suspects, pooled
from foveate.data.dataset import dataset_of, load_dataset
from foveate.data.decode import read_header
from foveate.data.findings import Finding, sort_by_severity
from foveate.data.opening import open_source
from foveate.data.source import name_warnings
from foveate.errors import DataError
from foveate.preprocessing import Fit
from foveate.settings import DataConfig

Scene = Callable[[int], Image.Image]


def scene(seed: int, side: int = 48) -> Image.Image:
    """A picture of its own, with detail of every size as photographs have it: the finer the fainter."""
    random, pixels = np.random.default_rng(seed), np.zeros((side, side, 3))
    for cells, weight in ((3, 90), (6, 45), (12, 22), (24, 11)):
        coarse = Image.fromarray(random.integers(0, 256, (cells, cells, 3), np.uint8))
        pixels += weight * (np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC)) / 127.5 - 1)
    return Image.fromarray((pixels + 128).clip(0, 255).astype(np.uint8))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two splits of two classes, of scenes that are all different."""
    for number in range(24):
        split, name = "train" if number < 16 else "test", ("cat", "dog")[number % 2]
        place = tmp_path / "data" / split / name
        place.mkdir(parents=True, exist_ok=True)
        scene(number).save(place / f"{number}.png")
    return tmp_path / "data"


def findings(folder: Path, fit: Fit = "crop", *, few: bool = False, seed: int = 0) -> dict[str, Finding]:
    """By kind; that there are few images of every class only where it is asked for."""
    source, config = open_source(str(folder), None), DataConfig(size=32, fit=fit, split_seed=seed)
    found = audit(source, pooled(dataset_of(source, config, for_training=False)), config)
    assert len({each.kind for each in found}) == len(found)
    assert all(each.title for each in found)
    return {each.kind: each for each in sort_by_severity(found) if few or each.kind != "few_images"}


def test_where_nothing_is_wrong_nothing_is_found(folder: Path) -> None:
    assert findings(folder) == {}


def test_unreadable_images_are_to_be_mended(folder: Path) -> None:
    (folder / "train" / "cat" / "empty.png").write_bytes(b"")
    whole = (folder / "train" / "cat" / "0.png").read_bytes()
    (folder / "train" / "cat" / "half.png").write_bytes(whole[: len(whole) // 2])
    found = findings(folder)["unreadable"]
    assert found.severity == "error"
    assert found.count == 2
    assert "zero bytes (1)" in found.text
    assert ("train/cat/empty.png",) in found.groups


def test_the_reasons_of_unreadable_images_add_up(folder: Path) -> None:
    contents = [b"%PDF", b"8BPS", b"qoif", b"DDS ", b"icns", b"gimp xcf", b"P6 1"]
    for number, content in enumerate([*contents, contents[0]]):
        (folder / "train" / "cat" / f"bad{number}.png").write_bytes(content)
    text = findings(folder)["unreadable"].text
    counted = [int(number) for number in re.findall(r"\((\d+)\)", text)]
    assert counted[0] == 2
    assert sum(counted) == 8
    assert "other reasons (2)" in text
    assert text.endswith("other reasons (2): convert those of other formats")


def test_files_that_are_missing_are_not_to_be_converted(tmp_path: Path) -> None:
    rows = [f"{number}.png,{('cat', 'dog')[number % 2]}" for number in range(12)]
    for number in range(1, 12):
        scene(number).save(tmp_path / f"{number}.png")
    (tmp_path / "all.csv").write_text("\n".join(["image,label", *rows]))
    told = "correct or remove the names of files that are missing"
    assert findings(tmp_path / "all.csv")["unreadable"].text.endswith(f"(1): {told}")
    assert told in findings(tmp_path / "all.csv")["untrainable"].text
    (tmp_path / "1.png").write_bytes(b"")
    text = findings(tmp_path / "all.csv")["unreadable"].text
    assert text.endswith(f"{told}, and repair or remove the others")


def test_a_class_of_photos_in_a_format_that_is_not_read_is_not_told_to_be_empty(folder: Path) -> None:
    (folder / "train" / "eel").mkdir()
    for number in range(3):
        (folder / "train" / "eel" / f"{number}.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(99))
    found = findings(folder)
    assert found["unreadable_class"].text == (
        "no image of eel can be read: convert or repair them, or remove the class"
    )
    assert "missing_class" not in found
    assert found["untrainable"].text.count("heif-convert") == 1  # said once for all three
    config = DataConfig(size=32, max_bad=1.0)
    with pytest.raises(DataError, match="no image of class eel can be read: convert or repair them"):
        load_dataset(str(folder), config)


def test_labels_that_are_measurements_are_told(tmp_path: Path) -> None:
    for number in range(24):
        scene(number).save(tmp_path / f"{number}.png")

    def write(*labels: object) -> Path:
        lines = (f"{number}.png,{labels[number % len(labels)]}" for number in range(24))
        (tmp_path / "all.csv").write_text("\n".join(["image,label", *lines]))
        return tmp_path / "all.csv"

    own = write(*(number + 0.5 for number in range(12)))
    told = "12 classes are numbers, such as 0.5 and 1.5: a network tells classes apart and predicts no quantity"
    found = findings(own)
    assert told in found["untrainable"].text
    assert "measured_names" not in found  # it is said once
    with pytest.raises(DataError, match=told):
        load_dataset(str(own), DataConfig(size=32))
    assert load_dataset(str(own), DataConfig(size=32), for_training=False).splits.keys() == {"all"}
    names = [f"{number},5" for number in range(12)]
    assert (
        "12 of its 13 classes are numbers, such as 0,5 and 1,5"
        in dict(name_warnings([*names, "other"]))["measured_names"]
    )
    assert dict(name_warnings(names)).keys() == {"measured_names"}
    for others in (map(str, range(12)), ["1.5", "2.5"], [*names, "red", "green"], ["nan"] * 12):
        assert "measured_names" not in dict(name_warnings([*others]))


class TestSmallClasses:
    def test_an_empty_one_is_said_to_be_empty(self, folder: Path) -> None:
        flat = folder / "train"
        (flat / "ant").mkdir()
        found = findings(flat)
        assert list(found) == ["untrainable", "missing_class"]
        assert found["missing_class"].text == "no image of ant: add some, or remove the class"

    def test_one_image_is_in_no_validation_split(self, folder: Path) -> None:
        for name, count in (("ant", 1), ("bee", 2), ("cow", 3)):
            (folder / "train" / name).mkdir()
            for number in range(count):
                scene(100 + 10 * count + number).save(folder / "train" / name / f"{number}.png")
        flat = findings(folder / "train")["too_few"]
        assert flat.severity == "warning"
        assert flat.text == (
            "ant (1 image), bee (2 images): too few to hold out, so none is in the validation split that training "
            "draws: add some, or remove the class"
        )
        assert findings(folder)["too_few"].text.startswith("ant (1 image): too few")
        (folder / "test").rename(folder / "val")
        assert "too_few" not in findings(folder)

    def test_nothing_is_said_of_a_split_where_training_would_refuse(self, tmp_path: Path) -> None:
        for number in range(4):
            place = tmp_path / "data" / ("cat", "dog")[number % 2]
            place.mkdir(parents=True, exist_ok=True)
            scene(number // 2).save(place / f"{number}.png")
        (tmp_path / "data" / "ant").mkdir()
        found = findings(tmp_path / "data")
        assert "untrainable" in found
        assert not {"too_few", "duplicate_across"} & found.keys()

    def test_fewer_than_twenty_are_told_as_few(self, folder: Path) -> None:
        for number in range(100, 112):
            scene(number).save(folder / "train" / "cat" / f"{number}.png")
        found = findings(folder, few=True)["few_images"]
        assert found.severity == "warning"
        assert found.text.startswith("dog (8 images): with fewer than 20 images of a class")
        for number in range(200, 212):
            scene(number).save(folder / "train" / "dog" / f"{number}.png")
        assert findings(folder, few=True) == {}


class TestNames:
    @pytest.mark.parametrize(("one", "other"), [("Newt", "newt"), ("caf\u00e9", "cafe\u0301")])
    def test_classes_whose_names_look_the_same_are_told(self, folder: Path, one: str, other: str) -> None:
        for number, name in enumerate((one, other)):
            (folder / "train" / name).mkdir()
            scene(200 + number).save(folder / "train" / name / "0.png")
        if len({path.name for path in (folder / "train").iterdir()}) < 4:
            pytest.skip("this file system takes the two names for one")
        found = findings(folder / "train")["alike_names"]
        assert found.severity == "warning"
        assert repr(one) in found.text
        assert repr(other) in found.text

    @pytest.mark.parametrize(
        ("one", "other", "kind"), [("0", "0.0", "alike_names"), ("nan", "ibis", "missing_names")]
    )
    def test_numbers_and_missing_labels_are_told(self, folder: Path, one: str, other: str, kind: str) -> None:
        for number, name in enumerate((one, other)):
            (folder / "train" / name).mkdir()
            scene(200 + number).save(folder / "train" / name / "0.png")
        assert one in findings(folder / "train")[kind].text

    def test_other_names_are_not(self, folder: Path) -> None:
        assert "alike_names" not in findings(folder)


class TestCopies:
    def test_in_two_splits_they_are_to_be_mended(self, folder: Path) -> None:
        scene(0).save(folder / "test" / "cat" / "again.bmp")
        found = findings(folder)
        assert list(found) == ["duplicate_across"]
        assert found["duplicate_across"].severity == "error"
        assert found["duplicate_across"].groups == (("test/cat/again.bmp", "train/cat/0.png"),)

    def test_with_two_labels_they_are_to_be_mended(self, folder: Path) -> None:
        scene(0).save(folder / "train" / "dog" / "again.png")
        found = findings(folder)
        assert list(found) == ["duplicate_conflict"]
        assert found["duplicate_conflict"].severity == "error"
        assert found["duplicate_conflict"].remarks == {
            "train/cat/0.png": "cat, train",
            "train/dog/again.png": "dog, train",
        }

    def test_within_a_split_they_are_to_be_looked_at(self, folder: Path) -> None:
        scene(0).save(folder / "train" / "cat" / "again.png")
        found = findings(folder)
        assert list(found) == ["duplicate_within"]
        assert found["duplicate_within"].severity == "warning"

    @pytest.mark.parametrize("within", ["data", "data/train"], ids=["no test", "no splits"])
    def test_without_declared_splits_they_are_where_training_draws_them(self, folder: Path, within: str) -> None:
        shutil.rmtree(folder / "test")
        scene(0).save(folder / "train" / "cat" / "again.png")
        kinds = set()
        for seed in range(6):
            drawn = load_dataset(str(folder.parent / within), DataConfig(size=32, split_seed=seed))
            split_of = {drawn.ids[index]: split for split in drawn.splits for index in drawn.splits[split]}
            (found,) = findings(folder.parent / within, seed=seed).values()
            splits = [split_of[each] for each in found.groups[0]]
            assert [found.remarks[each] for each in found.groups[0]] == [f"cat, {split}" for split in splits]
            if splits[0] == splits[1]:
                assert (found.kind, found.severity) == ("duplicate_within", "warning")
                assert "has copies, which training draws into the same split" in found.text
                assert "another split_seed may part them" in found.text
            else:
                assert (found.kind, found.severity) == ("duplicate_across", "error")
            kinds.add(found.kind)
        assert len(kinds) == 2

    def test_a_validation_split_that_is_drawn_beside_a_declared_test_split_may_have_them(
        self, folder: Path
    ) -> None:
        scene(0).save(folder / "train" / "cat" / "again.png")
        kinds = set()
        for seed in range(6):
            drawn = load_dataset(str(folder), DataConfig(size=32, split_seed=seed))
            split_of = {drawn.ids[index]: split for split in drawn.splits for index in drawn.splits[split]}
            (found,) = findings(folder, seed=seed).values()
            splits = {split_of[each] for each in found.groups[0]}
            assert found.kind == ("duplicate_across" if len(splits) == 2 else "duplicate_within")
            kinds.add(found.kind)
        assert len(kinds) == 2

    def test_images_that_declare_no_split_beside_others_are_training_images(self, folder: Path) -> None:
        scene(0).save(folder / "train" / "cat" / "again.png")
        rows = [
            f"{path.relative_to(folder.parent)},{path.parent.name},{'' if 'train' in path.parts else 'test'}"
            for path in sorted(folder.rglob("*.png"))
        ]
        (folder.parent / "images.csv").write_text("\n".join(["image,label,split", *rows]))
        assert list(findings(folder.parent / "images.csv")) == ["duplicate_within"]

    def test_with_two_labels_in_two_splits_they_are_both(self, folder: Path) -> None:
        scene(0).save(folder / "test" / "dog" / "again.png")
        found = findings(folder)
        assert found.keys() == {"duplicate_conflict", "duplicate_across"}
        assert found["duplicate_conflict"].groups == found["duplicate_across"].groups

    def test_a_file_that_a_table_names_twice_is_told_by_its_lines(self, folder: Path) -> None:
        files = sorted(path for path in folder.rglob("*.png"))
        rows = [f"{path.relative_to(folder)},{path.parent.name},train" for path in files]
        rows += [f"{files[0].relative_to(folder)},dog,test", "gone.png,cat,train", "gone.png,dog,train"]
        (folder / "images.csv").write_text("\n".join(["image,label,split", *rows]))
        found = findings(folder / "images.csv")
        once, again = f"test/cat/{files[0].name}#2", f"test/cat/{files[0].name}#{len(files) + 2}"
        assert found["duplicate_conflict"].remarks == {once: "cat, train", again: "dog, test"}
        assert found["unreadable"].count == 2

    def test_near_an_image_with_a_copy_in_another_split_is_across(self, folder: Path) -> None:
        scene(0).save(folder / "test" / "cat" / "copy.png")
        scene(0).save(folder / "test" / "cat" / "zz.jpg", quality=70)
        found = findings(folder)
        assert found["duplicate_across"].count == 2
        assert found["near_duplicate_across"].groups == (("test/cat/zz.jpg", "train/cat/0.png"),)
        assert found["near_duplicate_within"].groups == (("test/cat/copy.png", "test/cat/zz.jpg"),)

    def test_one_pair_of_two_labels_makes_no_conflict_of_those_beside_it(self, folder: Path) -> None:
        for quality in (50, 60, 80):
            scene(0).save(folder / "train" / "cat" / f"{quality}.jpg", quality=quality)
        scene(0).rotate(2.5, Image.Resampling.BICUBIC).save(folder / "train" / "dog" / "turned.png")
        found = findings(folder)
        of_one_label = {each for kind in ("within", "across") for each in found[f"near_duplicate_{kind}"].remarks}
        assert of_one_label >= {f"train/cat/{name}" for name in ("0.png", "50.jpg", "60.jpg", "80.jpg")}
        near = {each for group in found["near_duplicate_conflict"].groups for each in group}
        assert "train/dog/turned.png" in near

    @pytest.mark.parametrize(
        "change",
        [
            lambda image: image.resize((40, 40), Image.Resampling.BILINEAR),
            lambda image: image.crop((0, 0, 47, 47)),
            lambda image: image.rotate(2, Image.Resampling.BICUBIC, fillcolor=(128, 128, 128)),
            lambda image: image.point(lambda value: min(255, round(0.9 * value + 12))),
            lambda image: image.convert("L").convert("RGB"),
        ],
        ids=["smaller", "cropped", "turned", "lighter", "grey"],
    )
    def test_nearly_the_same_is_found(self, folder: Path, change: Callable[[Image.Image], Image.Image]) -> None:
        change(scene(0)).save(folder / "test" / "cat" / "again.jpg", quality=70)
        found = findings(folder)
        assert list(found) == ["near_duplicate_across"]
        assert found["near_duplicate_across"].severity == "warning"
        assert found["near_duplicate_across"].groups == (("test/cat/again.jpg", "train/cat/0.png"),)

    def test_three_of_a_kind_are_one_group(self, folder: Path) -> None:
        for quality in (60, 80):
            scene(0).save(folder / "train" / "cat" / f"{quality}.jpg", quality=quality)
        assert len(findings(folder)["near_duplicate_within"].groups[0]) == 3

    def test_flat_images_are_not_taken_for_each_other(self, folder: Path) -> None:
        random = np.random.default_rng(0)
        for number in range(10):
            pixels = random.integers(100 + number, 103 + number, (48, 48, 3), np.uint8)
            Image.fromarray(pixels).save(folder / "train" / "cat" / f"flat{number}.png")
        assert findings(folder) == {}


class TestClasses:
    def test_a_class_that_a_split_lacks(self, folder: Path) -> None:
        for file in (folder / "test" / "dog").iterdir():
            file.unlink()
        found = findings(folder)["missing_class"]
        assert found.severity == "error"
        assert "no image of dog in test" in found.text

    def test_a_class_that_is_much_larger(self, folder: Path) -> None:
        for number in range(100, 180):
            scene(number).save(folder / "train" / "cat" / f"{number}.png")
        found = findings(folder)["imbalance"]
        assert found.severity == "warning"
        assert "cat (88) has 11 times the images of dog (8) in train" in found.text
        assert " in train" not in findings(folder / "train")["imbalance"].text

    def test_an_empty_class_hides_no_imbalance(self, folder: Path) -> None:
        for number in range(100, 180):
            scene(number).save(folder / "train" / "cat" / f"{number}.png")
        (folder / "test" / "emu").mkdir()
        scene(300).save(folder / "test" / "emu" / "300.png")
        found = findings(folder)
        assert found.keys() >= {"imbalance", "missing_class"}
        assert "no image of emu in train" in found["missing_class"].text

    def test_every_class_that_a_split_lacks_is_named(self, folder: Path) -> None:
        for number in range(7):
            (folder / "train" / f"more{number}").mkdir()
            scene(200 + number).save(folder / "train" / f"more{number}" / "one.png")
        found = findings(folder)["missing_class"]
        assert found.text.startswith("no image of more0, more1, more2, more3, more4 and 2 more in test")
        assert found.remarks == {f"more{number}": "none in test" for number in range(7)}


class TestUntrainable:
    """What training would refuse is to be mended, in its words."""

    def test_images_that_are_all_for_testing(self, folder: Path) -> None:
        (folder / "train").rename(folder / "val")
        found = findings(folder)["untrainable"]
        assert found.severity == "error"
        assert "has no training images" in found.text

    def test_too_few_images(self, tmp_path: Path) -> None:
        for number in range(4):
            (tmp_path / "data" / str(number)).mkdir(parents=True)
            scene(number).save(tmp_path / "data" / str(number) / "one.png")
        assert "too few images to hold some out" in findings(tmp_path / "data")["untrainable"].text

    def test_one_class(self, tmp_path: Path) -> None:
        (tmp_path / "data" / "cat").mkdir(parents=True)
        for number in range(8):
            scene(number).save(tmp_path / "data" / "cat" / f"{number}.png")
        assert "training needs images of two or more" in findings(tmp_path / "data")["untrainable"].text

    def test_more_unreadable_images_than_are_allowed(self, folder: Path) -> None:
        for number in (0, 2):
            (folder / "train" / "cat" / f"{number}.png").write_bytes(b"no image")
        assert findings(folder).keys() == {"untrainable", "unreadable"}


class TestHeaders:
    def test_a_name_of_another_format(self, folder: Path) -> None:
        scene(99).save(folder / "train" / "cat" / "photo.png", "JPEG")
        found = findings(folder)
        assert list(found) == ["wrong_extension"]
        assert found["wrong_extension"].groups == (("train/cat/photo.png",),)

    def test_a_name_of_something_that_is_no_image(self, folder: Path) -> None:
        scene(99).save(folder / "train" / "cat" / "notes.txt", "PNG")
        assert findings(folder)["wrong_extension"].groups == (("train/cat/notes.txt",),)

    def test_a_name_of_no_format_is_no_other_formats(self, folder: Path) -> None:
        scene(99).save(folder / "train" / "cat" / "photo_1.5x", "PNG")
        assert "wrong_extension" not in findings(folder)

    def test_a_png_is_not_read_to_its_end_for_its_header(self, folder: Path) -> None:
        whole = (folder / "train" / "cat" / "0.png").read_bytes()
        header = read_header(whole[: len(whole) // 2])
        assert header is not None
        assert (header.format, header.width, header.rotated) == ("PNG", 48, False)

    def test_a_photograph_that_is_to_be_turned(self, folder: Path) -> None:
        exif = Image.Exif()
        exif[0x0112] = 6
        scene(99).save(folder / "train" / "cat" / "phone.jpg", exif=exif)
        found = findings(folder)
        assert list(found) == ["rotated"]
        assert found["rotated"].severity == "info"

    @pytest.mark.parametrize(("orientation", "size"), [(3, "40×20"), (6, "20×40"), (7, "20×40"), (8, "20×40")])
    @pytest.mark.parametrize("name", ["phone.jpg", "phone.png", "phone.webp", "phone.tif"])
    def test_its_size_is_the_one_that_is_shown(self, folder: Path, name: str, orientation: int, size: str) -> None:
        exif = Image.Exif()
        exif[0x0112] = orientation
        scene(99).resize((40, 20)).save(folder / "train" / "cat" / name, exif=exif)
        assert findings(folder)["rotated"].remarks[f"train/cat/{name}"].endswith(f"RGB, {size}")

    def test_a_panorama_loses_most_of_itself(self, folder: Path) -> None:
        sizes = {"wide": (120, 48), "cinema": (128, 72), "camera": (500, 333)}
        for seed, (name, (width, height)) in enumerate(sizes.items(), start=97):
            scene(seed).resize((width, height)).save(folder / "train" / "cat" / f"{name}.png")
        found = findings(folder)
        assert list(found) == ["cropped"]
        assert found["cropped"].groups == (("train/cat/cinema.png",), ("train/cat/wide.png",))
        assert "--set fit=squash" in found["cropped"].text
        assert findings(folder, "squash") == findings(folder, "pad") == {}

    def test_odd_modes_are_told_of_each_image(self, folder: Path) -> None:
        scene(98).convert("CMYK").save(folder / "train" / "cat" / "print.jpg")
        scene(99).convert("P").save(folder / "train" / "dog" / "palette.png")
        found = findings(folder)["odd_mode"]
        assert found.text == (
            "2 images neither plain RGB nor grey (CMYK, a palette, transparency …), brought to RGB"
        )
        assert found.remarks == {
            "train/cat/print.jpg": "JPEG, CMYK, 48×48",
            "train/dog/palette.png": "PNG, P, 48×48",
        }

    @pytest.mark.parametrize("name", ["deep.png", "deep.tif"])
    def test_grey_of_16_bits_is_grey(self, folder: Path, name: str) -> None:
        values = 257 * np.asarray(scene(98).convert("L")).astype(np.uint16)
        Image.fromarray(values).save(folder / "train" / "cat" / name)
        scene(99).convert("1").save(folder / "train" / "cat" / "bits.png")
        found = findings(folder)
        assert list(found) == ["deep"]
        assert found["deep"].groups == ((f"train/cat/{name}",),)

    def test_an_image_much_smaller_than_the_size(self, folder: Path) -> None:
        scene(98, 15).save(folder / "train" / "cat" / "icon.png")
        scene(99, 16).save(folder / "train" / "cat" / "small.png")
        found = findings(folder)
        assert list(found) == ["enlarged"]
        assert found["enlarged"].groups == (("train/cat/icon.png",),)
        assert "to 32 px: replace them" in found["enlarged"].text
        assert "--size" not in found["enlarged"].text

    @pytest.mark.parametrize(("side", "advice"), [(12, "`--size 24` may suit them"), (1, None)])
    def test_a_smaller_size_is_advised_where_most_are_small_and_there_is_one(
        self, folder: Path, side: int, advice: str | None
    ) -> None:
        for seed, path in enumerate(sorted(folder.rglob("*.png"))):
            scene(seed).resize((side, side + 1)).save(path)
        text = findings(folder)["enlarged"].text
        assert advice in text if advice else "--size" not in text


def test_the_gravest_come_first(folder: Path) -> None:
    (folder / "train" / "cat" / "empty.png").write_bytes(b"")
    scene(98).convert("P").save(folder / "train" / "dog" / "palette.png")
    scene(1).save(folder / "train" / "dog" / "again.png")
    assert [each.severity for each in findings(folder).values()] == ["error", "warning", "info"]


class TestLabelSuspects:
    def test_planted_errors_are_found_and_few_others(self) -> None:
        random = np.random.default_rng(0)
        true = random.integers(0, 4, 800)
        logits = random.normal(0, 1, (800, 4))
        logits[np.arange(800), true] += 4
        probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        labels, wrong = true.copy(), random.choice(800, 40, replace=False)
        labels[wrong] = (labels[wrong] + 1 + random.integers(0, 3, 40)) % 4
        found = label_suspects(probabilities, labels)
        assert len(set(found) & set(wrong)) >= 30
        assert len(set(found) - set(wrong)) <= 10

    def test_by_the_definition_the_least_likely_first(self) -> None:
        random = np.random.default_rng(1)
        probabilities, labels = random.dirichlet(np.ones(3), 200), random.integers(0, 3, 200)
        thresholds = [
            np.mean([p[k] for p, label in zip(probabilities, labels, strict=True) if label == k]) for k in range(3)
        ]
        margins = {}
        for place, (p, label) in enumerate(zip(probabilities, labels, strict=True)):
            counted = [k for k in range(3) if p[k] >= thresholds[k]]
            if counted and max(counted, key=lambda k: p[k]) != label != p.argmax():
                margins[place] = p[label] - max(p[k] for k in range(3) if k != label)
        assert label_suspects(probabilities, labels).tolist() == sorted(margins, key=margins.__getitem__)

    def test_of_labels_that_are_right_and_sure_none_is(self) -> None:
        labels = np.arange(30) % 3
        assert len(label_suspects(np.eye(3)[labels] * 0.94 + 0.02, labels)) == 0

    def test_a_class_without_images_is_nobodys(self) -> None:
        probabilities = np.tile([0.1, 0.2, 0.7], (6, 1))
        assert label_suspects(probabilities, np.array([0, 1] * 3)).tolist() in ([0, 2, 4], [0, 2, 4, 1, 3, 5], [])

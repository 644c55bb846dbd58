import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from foveate.data.parquet import open_parquet
from foveate.data.parquet_images import ParquetBlock
from foveate.data.source import Source
from foveate.data.splits import UNDECLARED
from foveate.errors import DataError
from foveate.progress import untracked

Encode = Callable[..., bytes]

NAMES = ["dog", "cat"]


def hub(names: list[str]) -> dict[str, str]:
    features = {"img": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
    return {"huggingface": json.dumps({"info": {"features": features}})}


def write(path: Path, columns: dict[str, Any], names: list[str] | None = None, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table(columns)
    pq.write_table(table.replace_schema_metadata(hub(names)) if names else table, path, **options)
    return path


def structs(*images: bytes | None) -> Any:
    values = [None if data is None else {"bytes": data, "path": "x.png"} for data in images]
    return pa.array(values, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))


def open_shards(root: Path) -> Source:
    return open_parquet(root, sorted(root.rglob("*.parquet")), untracked, workers=2)


def images(source: Source) -> list[Any]:
    found: list[Any] = [None] * len(source.labels)
    for block in source.blocks:
        part = list(block.images())
        assert len(part) == block.count
        found[block.start : block.start + block.count] = part
    return found


def test_hub_layout(tmp_path: Path, encode: Encode) -> None:
    data = [encode(seed) for seed in range(5)]
    write(tmp_path / "data/test-00000-of-00001.parquet", {"img": structs(*data[:2]), "label": [1, 0]}, NAMES)
    write(tmp_path / "data/train-00000-of-00002.parquet", {"img": structs(*data[2:4]), "label": [0, 0]}, NAMES)
    write(tmp_path / "data/train-00001-of-00002.parquet", {"img": structs(data[4]), "label": [1]}, NAMES)
    source = open_shards(tmp_path)
    assert source.class_names == ("dog", "cat")
    assert source.labels.tolist() == [1, 0, 0, 0, 1]
    assert source.declared.tolist() == [2, 2, 0, 0, 0]
    assert source.ids[:3] == [f"data/test-00000-of-00001.parquet#{row}" for row in (0, 1)] + [
        "data/train-00000-of-00002.parquet#0"
    ]
    assert images(source) == data
    assert source.groups is None


@pytest.mark.parametrize(
    "layout", ["plain_text/train-00000-of-00001.parquet", "default/train/0000.parquet", "train.parquet"]
)
def test_other_layouts_name_the_split(layout: str, tmp_path: Path, encode: Encode) -> None:
    write(tmp_path / layout, {"image": structs(encode()), "label": [0]}, NAMES)
    assert open_shards(tmp_path).declared.tolist() == [0]


def test_one_file_with_split_group_text_and_plain_binary(tmp_path: Path, encode: Encode) -> None:
    columns = {
        "image": pa.array([encode(1), encode(2), encode(3)], pa.large_binary()),
        "label": pa.array(["dog", "cat", "dog"]).dictionary_encode(),
        "split": ["val", None, "test"],
        "group": pa.array([7, None, 8]),
    }
    path = write(tmp_path / "animals.parquet", columns)
    source = open_parquet(path, [path], untracked)
    assert source.name == "animals"
    assert source.class_names == ("cat", "dog")
    assert source.labels.tolist() == [1, 0, 1]
    assert source.declared.tolist() == [1, UNDECLARED, 2]
    assert source.groups == ("7", "", "8")
    assert source.ids[0] == "animals.parquet#0"
    assert images(source) == [encode(1), encode(2), encode(3)]


def test_integers_without_names(tmp_path: Path, encode: Encode) -> None:
    write(tmp_path / "x.parquet", {"img": structs(encode(), encode()), "label": [10, 9]})
    source = open_shards(tmp_path)
    assert source.class_names == ("9", "10")
    assert source.labels.tolist() == [1, 0]


def test_shards_that_order_their_classes_differently_match_by_name(tmp_path: Path, encode: Encode) -> None:
    write(tmp_path / "test-0.parquet", {"img": structs(encode(), encode()), "label": [0, 1]}, ["cat", "dog"])
    write(tmp_path / "train-0.parquet", {"img": structs(encode(), encode()), "label": [0, 1]}, ["dog", "cow"])
    source = open_shards(tmp_path)
    assert [source.class_names[label] for label in source.labels] == ["cat", "dog", "dog", "cow"]


def test_images_that_are_not_there_have_no_bytes(tmp_path: Path, encode: Encode) -> None:
    img = pa.array([{"bytes": None}, None, {"bytes": encode()}], pa.struct([("bytes", pa.binary())]))
    write(tmp_path / "x.parquet", {"img": img, "label": [0, 1, 0]}, NAMES)
    assert images(open_shards(tmp_path)) == [b"", b"", encode()]


@pytest.mark.parametrize("rows", [1, 100, 5000])
def test_blocks_cover_row_groups_of_any_length(rows: int, tmp_path: Path) -> None:
    data = [str(number).encode() for number in range(5100)]
    columns = {"img": pa.array(data, pa.binary()), "label": np.arange(5100) % 2}
    pq.write_table(pa.table(columns).slice(0, 5100), tmp_path / "x.parquet", row_group_size=rows)
    if rows == 1:
        pq.write_table(pa.table(columns).slice(0, 50), tmp_path / "x.parquet", row_group_size=rows)
    source = open_shards(tmp_path)
    assert images(source) == data[: len(source.labels)]
    if rows == 5000:
        assert [block.count for block in source.blocks] == [2500, 2500, 100]


def test_a_block_goes_as_json(tmp_path: Path, encode: Encode) -> None:
    write(tmp_path / "x.parquet", {"img": structs(encode(), encode(1)), "label": [0, 1]}, NAMES)
    block = open_shards(tmp_path).blocks[0]
    assert isinstance(block, ParquetBlock)
    assert ParquetBlock(**json.loads(json.dumps(vars(block)))) == block
    assert block.files == (str(tmp_path / "x.parquet"),)


def one(encode: Encode, **columns: Any) -> dict[str, Any]:
    return {"img": structs(encode(), encode()), "label": [0, 1], **columns}


@pytest.mark.parametrize(
    ("change", "names", "message"),
    [
        ({"label": [0, 2]}, NAMES, r"train\.parquet#1: label 2 is not in 0…1"),
        ({"label": [-1, 0]}, NAMES, r"train\.parquet#0: label -1 is not in 0…1"),
        ({"label": pa.array([0, None])}, NAMES, r"train\.parquet#1: the label is missing"),
        ({"label": [0.5, 1.0]}, None, "label is double: it must hold integers or strings"),
        (
            {"img": ["a.png", "b.png"]},
            None,
            "has no img or image column with the bytes of images: its columns are img, label",
        ),
        ({"split": ["train", "tset"]}, None, r"train\.parquet#1: split 'tset'"),
    ],
)
def test_faults_name_shard_and_row(
    change: dict[str, Any], names: list[str] | None, message: str, tmp_path: Path, encode: Encode
) -> None:
    write(tmp_path / "train.parquet", one(encode, **change), names)
    with pytest.raises(DataError, match=message):
        open_shards(tmp_path)


def test_a_table_without_labels_or_images_or_rows(tmp_path: Path, encode: Encode) -> None:
    path = write(tmp_path / "x.parquet", {"img": structs(encode())})
    with pytest.raises(DataError, match=r"has no label: its columns are img; rename one$"):
        open_parquet(path, [path], untracked)
    write(path, {"label": [1]})
    with pytest.raises(DataError, match="has no img or image column"):
        open_parquet(path, [path], untracked)
    write(path, {"img": structs(), "label": pa.array([], pa.int64())})
    with pytest.raises(DataError, match="has no images: its Parquet files have no rows"):
        open_parquet(path, [path], untracked)


def test_shards_that_disagree(tmp_path: Path, encode: Encode) -> None:
    write(tmp_path / "train.parquet", one(encode), NAMES)
    write(tmp_path / "test.parquet", one(encode))
    with pytest.raises(DataError, match="do not name their classes alike"):
        open_shards(tmp_path)


def test_more_than_one_data_set(tmp_path: Path, encode: Encode) -> None:
    write(tmp_path / "coarse/train.parquet", one(encode))
    write(tmp_path / "fine/train.parquet", one(encode))
    with pytest.raises(DataError, match=r"more than one data set: name one of .*coarse, .*fine$"):
        open_shards(tmp_path)


@pytest.mark.parametrize("metadata", ["not json", "[]", json.dumps({"info": {"features": {}}})])
def test_foreign_metadata(metadata: str, tmp_path: Path, encode: Encode) -> None:
    table = pa.table(one(encode)).replace_schema_metadata({"huggingface": metadata})
    pq.write_table(table, tmp_path / "x.parquet")
    with pytest.raises(DataError, match="its huggingface metadata do not describe label"):
        open_shards(tmp_path)


def test_metadata_of_a_label_that_is_a_plain_value(tmp_path: Path, encode: Encode) -> None:
    features = {"info": {"features": {"label": {"dtype": "string", "_type": "Value"}}}}
    table = pa.table(one(encode, label=["a", "b"])).replace_schema_metadata({"huggingface": json.dumps(features)})
    pq.write_table(table, tmp_path / "x.parquet")
    assert open_shards(tmp_path).class_names == ("a", "b")


def test_damage_is_found_where_it_is(tmp_path: Path, encode: Encode) -> None:
    path = tmp_path / "x.parquet"
    file = io.BytesIO()
    data = [encode(seed, size=(64, 64)) for seed in range(40)]
    pq.write_table(pa.table({"img": structs(*data), "label": [0, 1] * 20}), file, row_group_size=10)
    whole = file.getvalue()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"^cannot read .*x\.parquet: .*: copy or download it again$"):
        open_shards(tmp_path)
    path.write_bytes(
        whole[:50] + bytes(3000) + whole[3050:]
    )  # the first page's header; labels and footer are whole
    source = open_shards(tmp_path)
    with pytest.raises(DataError, match=r"^cannot read .*x\.parquet: .*: copy or download it again$"):
        images(source)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("train-00000-of-00001", "testing-00000-of-00001"), [0, 2]),
        (("train-00000-of-00001", "eval-00000-of-00001"), [0, 2]),
        (("train-00000-of-00001", "evaluation_00000"), [0, 2]),
        (("Training-0", "dev-0", "TEST-0"), [0, 1, 2]),
        (("cifar_train", "cifar_test"), [0, 2]),
        (("data/train", "data/test"), [0, 2]),
        (("train/0000", "Testing/0000", "val2017/0000"), [0, 2, 1]),
        (("train-00000-of-00001-a0e4deva", "test-00000-of-00001-b1"), [0, 2]),
        (("default/partial-train/0", "default/partial-test/0"), [0, 2]),
        (("part-0", "part-1"), [UNDECLARED, UNDECLARED]),
    ],
)
def test_shards_declare_their_splits(
    names: tuple[str, ...], expected: list[int], tmp_path: Path, encode: Encode
) -> None:
    for name in names:
        write(tmp_path / f"{name}.parquet", {"img": structs(*[encode()] * 12), "label": [0, 1] * 6}, NAMES)
    source = open_parquet(tmp_path, [tmp_path / f"{name}.parquet" for name in names], untracked)
    assert source.declared.tolist() == [code for code in expected for _ in range(12)]
    assert source.notes == ()


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ("train-0", "extra-0"),
            r"extra-0\.parquet names no split, but others do: rename it to begin with train-",
        ),
        (
            ("train-0", "trainval-0"),
            "trainval-0 could belong to several splits or to none: rename it to train, val or test",
        ),
        (("train-0", "holdout-0"), "holdout-0 could belong to several splits or to none"),
        (("a", "unseen"), "unseen could belong to several splits or to none"),
        (("train_test",), "train_test could belong to several splits or to none: .* or add a column split$"),
    ],
)
def test_shards_whose_split_is_not_known(
    names: tuple[str, ...], message: str, tmp_path: Path, encode: Encode
) -> None:
    for name in names:
        write(tmp_path / f"{name}.parquet", one(encode), NAMES)
    with pytest.raises(DataError, match=message):
        open_shards(tmp_path)


def test_data_sets_of_several_names_with_folders_of_splits(tmp_path: Path, encode: Encode) -> None:
    for name in ("fine/train/0", "fine/test/0", "coarse/train/0"):
        write(tmp_path / f"{name}.parquet", one(encode), NAMES)
    with pytest.raises(DataError, match=r"more than one data set: name one of .*coarse, .*fine$"):
        open_shards(tmp_path)
    assert open_shards(tmp_path / "fine").declared.tolist() == [2, 2, 0, 0]


def test_a_column_split_decides_over_the_name(tmp_path: Path, encode: Encode) -> None:
    write(tmp_path / "trainval.parquet", one(encode, split=["Training", "valid"]), NAMES)
    assert open_shards(tmp_path).declared.tolist() == [0, 1]


def test_the_name_of_a_folder_above_the_data_set_declares_nothing(tmp_path: Path, encode: Encode) -> None:
    path = write(tmp_path / "test/x.parquet", one(encode), NAMES)
    assert open_parquet(path, [path], untracked).declared.tolist() == [UNDECLARED] * 2
    assert open_shards(tmp_path / "test").declared.tolist() == [UNDECLARED] * 2


def test_two_spellings_of_a_split_are_joined_and_noted(tmp_path: Path, encode: Encode) -> None:
    for name in ("train-0", "val-0", "validation-0"):
        write(tmp_path / f"{name}.parquet", one(encode), NAMES)
    assert open_shards(tmp_path).notes == ("val, validation are all taken for the validation split",)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("subset", ["train", "test"]),
        ("is_test", [True, False]),
        ("Usage", ["Training", "PublicTest"]),
        ("val", [0, 7]),
    ],
)
def test_a_column_that_looks_like_a_split(name: str, values: list[Any], tmp_path: Path, encode: Encode) -> None:
    write(tmp_path / "x.parquet", one(encode, **{name: values}), NAMES)
    with pytest.raises(DataError, match=f"the column {name} looks like a split"):
        open_shards(tmp_path)


def test_columns_are_known_in_any_case(tmp_path: Path, encode: Encode) -> None:
    columns = {"Image": structs(encode(), encode(1)), "LABEL": ["a", "b"], "Split": ["train", "test"]}
    source = open_parquet(tmp_path, [write(tmp_path / "x.parquet", columns)], untracked)
    assert source.declared.tolist() == [0, 2]
    assert images(source) == [encode(), encode(1)]


@pytest.mark.parametrize(
    "columns", [["img", "image", "label"], ["img", "label", "Label"], ["img", "img", "label"]]
)
def test_a_column_twice(columns: list[str], tmp_path: Path, encode: Encode) -> None:
    values = [structs(encode()) if name.startswith("im") else pa.array([0]) for name in columns]
    pq.write_table(pa.Table.from_arrays(values, names=columns), tmp_path / "x.parquet")
    with pytest.raises(DataError, match=r"has more than one column (image|label) .*: remove or rename one$"):
        open_shards(tmp_path)


@pytest.mark.parametrize("text", [pa.string(), pa.large_string(), pa.string_view()])
@pytest.mark.parametrize("binary", [pa.binary(), pa.large_binary(), pa.binary_view()])
@pytest.mark.parametrize("is_struct", [True, False])
def test_types_of_images_and_labels(
    text: pa.DataType, binary: pa.DataType, is_struct: bool, tmp_path: Path, encode: Encode
) -> None:
    data = pa.array([encode(), None, encode(1)], binary)
    struct = pa.StructArray.from_arrays([data, pa.array([None, None, "x"])], ["bytes", "path"])
    path = write(
        tmp_path / "x.parquet", {"img": struct if is_struct else data, "label": pa.array(["a", "b", "a"], text)}
    )
    source = open_parquet(path, [path], untracked)
    assert images(source) == [encode(), b"", encode(1)]
    assert source.labels.tolist() == [0, 1, 0]


@pytest.mark.parametrize("is_struct", [True, False])
def test_images_encoded_by_a_dictionary(is_struct: bool, tmp_path: Path, encode: Encode) -> None:
    data = pa.array([encode(), encode(1), None, encode(), encode(), encode()]).dictionary_encode()
    struct = pa.StructArray.from_arrays([data, pa.array(["x"] * 6)], ["bytes", "path"])
    path = write(tmp_path / "x.parquet", {"img": struct if is_struct else data, "label": [0, 1] * 3})
    found = images(open_parquet(path, [path], untracked))
    assert found[:2] + found[3:] == [encode(), encode(1), encode(), encode(), encode()]
    assert found[2] == (tmp_path / "x" if is_struct else b"")


def paths(*names: str | None, data: bytes | None = None) -> Any:
    rows = [{"bytes": data if name is None else None, "path": name} for name in names]
    return pa.array(rows, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))


def test_rows_that_name_a_file_in_place_of_bytes(tmp_path: Path, encode: Encode) -> None:
    img = paths("a.png", None, "deep/b.png", "deep\\b.png", data=encode(5))
    path = write(tmp_path / "x.parquet", {"img": img, "label": [0, 1, 0, 1]})
    (tmp_path / "deep").mkdir()
    (tmp_path / "a.png").write_bytes(encode())
    first = open_parquet(path, [path], untracked)
    named = [tmp_path / "a.png", encode(5), tmp_path / "deep/b.png", tmp_path / "deep/b.png"]
    assert images(first) == named
    (tmp_path / "a.png").write_bytes(encode(1))
    assert open_parquet(path, [path], untracked).content != first.content


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "/etc/hostname",
            r"x\.parquet#0: the path /etc/hostname is not below the shard's folder: write the image's",
        ),
        ("../a.png", "is not below the shard's folder"),
        ("deep/../../a.png", "is not below the shard's folder"),
        ("..\\a.png", "is not below the shard's folder"),
        ("C:\\a.png", "lies on a drive of Windows|is not below the shard's folder"),
        ("https://a.org/a.png", "is a URL, and nothing is downloaded"),
        ("zip://a.png::b.zip", "is a URL, and nothing is downloaded"),
    ],
)
def test_rows_that_name_files_elsewhere(name: str, message: str, tmp_path: Path) -> None:
    path = write(tmp_path / "x.parquet", {"img": paths(name, name), "label": [0, 1]})
    with pytest.raises(DataError, match=message):
        open_parquet(path, [path], untracked)


def test_bytes_that_are_all_null(tmp_path: Path) -> None:
    path = write(tmp_path / "x.parquet", {"img": pa.nulls(3, pa.binary()), "label": [0, 1, 0]})
    with pytest.raises(
        DataError, match=r"the column img holds no image in any row, its bytes are null: write the"
    ):
        open_parquet(path, [path], untracked)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            {"label": pa.array([0, 2**64 - 1], pa.uint64())},
            "x.parquet#1: label 18446744073709551615 is larger than",
        ),
        ({"label": [[0], [1]]}, "label is list<.*>: it must hold integers or strings"),
        ({"label": [True, False]}, "label is bool: it must hold integers or strings"),
        ({"label": ["a", ""]}, "the name of a class is empty: give every image a label"),
        ({"label": pa.array([b"\xff", b"a"]).view(pa.string())}, "holds text that is not UTF-8"),
        ({"split": [["train"], ["test"]]}, "split is list<.*>: it must hold strings"),
        ({"split": pa.array([b"\xff", b"a"]).view(pa.string())}, "holds text that is not UTF-8"),
        ({"split": [{"a": 1}, {"a": 2}]}, "split is struct<.*>: it must hold strings"),
        ({"group": [[1], [2]]}, "group is list<.*>: it must hold strings"),
        ({"img": [{"bytes": {"bytes": b"a"}}] * 2}, "has no img or image column .*; img is struct<bytes: struct<"),
        ({"img": [[1, 2], [3, 4]]}, r"its columns are img, label; img is list<.*>; rename one$"),
    ],
)
def test_columns_of_other_types(columns: dict[str, Any], message: str, tmp_path: Path, encode: Encode) -> None:
    path = write(tmp_path / "x.parquet", one(encode, **columns))
    with pytest.raises(DataError, match=message) as caught:
        open_parquet(path, [path], untracked)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "metadata",
    [
        "[" * 100_000,
        json.dumps({"info": {"features": {"label": {"_type": "ClassLabel", "names": "abc"}}}}),
        json.dumps({"info": {"features": {"label": {"_type": "ClassLabel", "names": [["a"], 1]}}}}),
        json.dumps({"info": {"features": {"label": {"_type": "ClassLabel", "names": {"a": 1}}}}}),
        '{"info": 1, "info": {"features": {"label": {"_type": "Value"}}}}',
    ],
)
def test_metadata_that_are_no_names(metadata: str, tmp_path: Path, encode: Encode) -> None:
    pq.write_table(
        pa.table(one(encode)).replace_schema_metadata({"huggingface": metadata}), tmp_path / "x.parquet"
    )
    with pytest.raises(DataError, match="its huggingface metadata do not"):
        open_shards(tmp_path)


def repeated(value: Any, count: int = 100_000) -> Any:
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(count, np.int32)), pa.array([value]))


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (lambda: {"img": pa.nulls(10**7, pa.binary()), "label": np.zeros(10**7, np.int8)}, "10,000,000 images"),
        (lambda: {"img": pa.array([bytes(3 * 10**8)]), "label": [0]}, "claims 300,000,0.. bytes"),
        (lambda: {"img": pa.array([b"a"]), "label": ["x" * 10**8]}, "claims 100,000,0.. bytes for label"),
        (
            lambda: {"img": pa.array([b"a"] * 100_000), "label": repeated("x" * 10**6)},
            "has 2,001 characters",
        ),
        (lambda: {"img": pa.array([b"a"] * 10**5), "label": [0] * 10**5, "group": repeated("x" * 10**6)}, None),
        (lambda: {"img": repeated(bytes(10**6)), "label": np.arange(100_000) % 2}, None),
    ],
    ids=["rows", "one image", "one label", "labels", "groups", "images"],
)
def test_no_more_memory_than_a_file_can_stand_for(
    columns: Callable[[], dict[str, Any]], message: str | None, tmp_path: Path, measure_open: Callable[..., Any]
) -> None:
    path = write(tmp_path / "x.parquet", columns(), compression="zstd", dictionary_pagesize_limit=1 << 30)
    told, peak, seconds = measure_open(path)
    assert peak < 2 * path.stat().st_size + (64 << 20)
    assert seconds < 2
    if message is None:
        assert told == "opened"
    else:
        assert re.search(message, told)

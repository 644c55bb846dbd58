import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from foveate.data.parquet import ParquetBlock, open_parquet
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

import os
from pathlib import Path

import pytest

from foveate.data.splits import UNDECLARED
from foveate.data.table import open_csv
from foveate.errors import DataError
from foveate.progress import untracked


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
            "line 3: split 'tset' is not one of train, val, test",
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


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_the_separator_is_the_one_that_the_header_has(separator: str, tmp_path: Path) -> None:
    text = "image,label,split\na.png,cat,train\n".replace(",", separator)
    text += f'"b{separator}2.png"{separator} "dog{separator}big"{separator}testing\n'
    source = open_csv(table(tmp_path, text), untracked)
    assert source.ids == ["a.png", f"b{separator}2.png".replace("\t", "\\t")]
    assert source.class_names == ("cat", f"dog{separator}big".replace("\t", "\\t"))
    assert source.declared.tolist() == [0, 2]


def test_the_separator_that_excel_declares(tmp_path: Path) -> None:
    assert open_csv(table(tmp_path, "sep=;\r\nimage;label\r\na.png;cat\r\n"), untracked).ids == ["a.png"]
    with pytest.raises(DataError, match="line 3: the label is empty"):
        open_csv(table(tmp_path, "sep=;\nimage;label\na.png;\n"), untracked)


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("Training", 0),
        ("TRAIN", 0),
        ("dev", 1),
        ("valid", 1),
        ("Testing", 2),
        ("eval", 2),
        ("evaluation", 2),
        ("test1", 2),
    ],
)
def test_splits_are_known_as_people_spell_them(name: str, code: int, tmp_path: Path) -> None:
    assert open_csv(table(tmp_path, f"image,label,split\na.png,cat,{name}\n"), untracked).declared.tolist() == [
        code
    ]


@pytest.mark.parametrize(
    ("header", "values"),
    [
        ("subset", ("train", "test")),
        ("Usage", ("Training", "PublicTest")),
        ("Usage", ("Public", "Private")),
        ("anything", ("train", "val")),
        ("is_test", ("0", "1")),
        ("Test", ("x", "y")),
        ("holdout", ("False", "True")),
        ("set", ("A", "holdout")),
    ],
)
def test_a_column_that_looks_like_a_split_is_an_error(
    header: str, values: tuple[str, str], tmp_path: Path
) -> None:
    text = f"image,label,{header}\na.png,cat,{values[0]}\nb.png,dog,{values[1]}\n"
    with pytest.raises(DataError, match=f"the column {header.lower()} looks like a split .*: name it split, with"):
        open_csv(table(tmp_path, text), untracked)
    text = f"image,label,{header},split\na.png,cat,{values[0]},train\nb.png,dog,{values[1]},test\n"
    assert open_csv(table(tmp_path, text), untracked).declared.tolist() == [0, 2]


def test_other_columns_are_not_read(tmp_path: Path) -> None:
    text = ",image,label,set,fold,test_id,note\n0,a.png,cat,A,0,17,fine\n1,b.png,dog,B,1,18,\n"
    assert open_csv(table(tmp_path, text), untracked).declared.tolist() == [UNDECLARED] * 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,class\na.png,cat\n", r"must name the columns image,label.*; it has path, class$"),
        (
            "a.png,cat\nb.png,dog\n",
            r"line 1: the header is missing, as a\.png is an image: write image",
        ),
        ("image,label,Image\na.png,cat,b.png\n", "line 1: the column image occurs twice"),
        ("image,label,x,x\na.png,cat,1,2\n", "line 1: the column x occurs twice"),
        (
            "image,label\nhttps://a.org/1.png,cat\n",
            "line 2: https://a.org/1.png is a URL, and nothing is",
        ),
        ("image,label\ns3://a/1.png,cat\n", "line 2: s3://a/1.png is a URL"),
        ("image,label\nfile:/a/1.png,cat\n", "line 2: file:/a/1.png is a URL"),
        ('image,label\n"data:image/png;base64,AAAA",cat\n', "line 2: data:image/png.* is a URL"),
        ("image,label\na.png,cat\0\n", "line 2: not text, it holds a NUL byte"),
        (
            "image,label\na.png,cat\n".encode("utf-16"),
            r"is UTF-16, not UTF-8 text: save the table as CSV",
        ),
        ("image,label\na.png,cat\n".encode("utf-16-le"), "line 1: not text, it holds a NUL byte"),
        (
            "image,label\ncaf\u00e9.png,cat\n".encode("cp1252"),
            r"line 2: not UTF-8 text \(the byte 0xe9 may be",
        ),
        (b"PK\x03\x04rest", "is a ZIP archive, such as an Excel workbook, not UTF-8 text"),
        (f"image,label\na.png,{'x' * 4000}\n", "the name of a class has 2,001 characters, more than 2000"),
        ("image,label\n" + "a" * 200_000 + ",cat\n", "line 2: field larger than field limit"),
    ],
)
def test_tables_as_people_have_them(text: str | bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message) as caught:
        open_csv(table(tmp_path, text), untracked)
    assert "\n" not in str(caught.value)
    assert "table.csv" in str(caught.value) or "name of" in str(caught.value)


@pytest.mark.skipif(os.name == "nt", reason="Windows reads its own paths")
def test_paths_as_windows_writes_them(tmp_path: Path) -> None:
    (tmp_path / "odd\\name.png").write_text("")
    source = open_csv(table(tmp_path, "image,label\nphotos\\1.jpg,cat\nodd\\name.png,dog\n"), untracked)
    assert [str(image) for image in source.blocks[0].images()] == [
        f"{tmp_path}/photos/1.jpg",
        f"{tmp_path}/odd\\name.png",
    ]
    with pytest.raises(DataError, match=r"line 2: C:\\photos\\1\.jpg lies on a drive of Windows"):
        open_csv(table(tmp_path, "image,label\nC:\\photos\\1.jpg,cat\n"), untracked)


@pytest.mark.parametrize("other", ["a/1.png", "./a/1.png", "a/../a/1.png"])
def test_one_image_in_two_splits_must_not_be_trained_on(tmp_path: Path, other: str) -> None:
    text = f"image,label,split\na/1.png,cat,train\nb.png,dog,train\n{other},cat,test\n"
    file = table(tmp_path, text)
    assert open_csv(file, untracked).fault == (
        f"{file}, line 4: {other} is in the split test, and in line 2 in train: remove one of them"
    )
    same = text.replace(",test", ",training")
    assert open_csv(table(tmp_path, same), untracked).fault is None


@pytest.mark.skipif(not hasattr(os, "symlink"), reason="no links here")
def test_a_table_that_is_a_link_is_found_again_where_its_images_are(tmp_path: Path) -> None:
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "v3.csv").write_text("image,label\na.png,cat\nb.png,dog\n")
    (tmp_path / "labels.csv").symlink_to(tmp_path / "tables" / "v3.csv")
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(name.encode())
    source = open_csv(tmp_path / "labels.csv", untracked)
    again = open_csv(Path(source.location), untracked)
    assert again.content.digest == source.content.digest
    assert list(again.blocks[0].images()) == list(source.blocks[0].images())

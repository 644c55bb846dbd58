from pathlib import Path

import pytest

from foveate.data.parquet_beside import passed_over

DATA = Path("data")


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (["train-00000-of-00003.parquet", "train-00002-of-00003.parquet"], ["train-00001-of-00003.parquet"]),
        (["train-0-of-2.parquet", "test-0-of-1.parquet"], ["train-1-of-2.parquet"]),
        (["train-00000-of-00001.parquet", "other.parquet"], []),
        (["train-00000-of-00002-abc.parquet", "train-00001-of-00002-abc.parquet"], []),
    ],
)
def test_files_of_a_series_that_are_missing_are_named(names: list[str], told: list[str]) -> None:
    found = list(passed_over([DATA / name for name in names], [], ()))
    assert found == [f"the Parquet files are not complete: {name} missing" for name in told]


def test_images_and_unfinished_downloads_are_told_but_those_that_rows_name() -> None:
    beside = [DATA / name for name in ("a.png", "b.JPG", "README.md", "x.parquet.incomplete")]
    (line,) = passed_over([DATA / "x.parquet"], beside, {str(DATA / "b.JPG")})
    assert line == "2 files beside the Parquet files were left out: a.png, x.parquet.incomplete"
    assert list(passed_over([DATA / "x.parquet"], beside[1:3], {str(DATA / "b.JPG")})) == []

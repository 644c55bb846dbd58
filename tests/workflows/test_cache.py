"""`foveate cache`: what lies there is listed, and cleared without touching what is not Foveate's."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import foveate
from foveate.cli import app, results
from foveate.data.cifar10 import CIFAR10
from foveate.data.dataset import load_dataset
from foveate.errors import ConfigError, OutputError
from foveate.settings import DataConfig


@pytest.fixture
def filled(own_cache: Path, photographs: Callable[..., Path]) -> Path:
    """A cache with the digits, a folder of photographs used 40 days ago, and half an archive of CIFAR-10."""
    load_dataset("digits", DataConfig(size=16))
    old = {each.path for each in foveate.list_cache()}
    load_dataset(str(photographs()), DataConfig(size=16))
    for each in foveate.list_cache():
        if each.path not in old:
            for path in each.path.iterdir():
                os.utime(path, (time.time() - 40 * 86_400,) * 2)
    (own_cache / "cifar10").mkdir()
    (own_cache / "cifar10" / f"{CIFAR10.name}.part").write_bytes(bytes(1000))
    (own_cache / "cifar10" / "notes.txt").write_text("mine")
    return own_cache


def run(*arguments: str) -> int:
    return app(list(arguments), standalone_mode=False) or 0


def test_it_lists_what_lies_there(filled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("cache")
    told = capsys.readouterr().out
    rows = {line.split()[0]: line for line in told.splitlines()}
    assert "1,797" in rows["digits"]
    assert "just now" in rows["digits"]
    assert "40 days ago" in rows["photographs"]
    assert "download" in rows["cifar10"]
    assert "1 kB" in rows["cifar10"]
    assert str(filled) in told


def test_it_clears_what_was_not_used_for_long(filled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("cache", "--clear", "--older-than", "30")
    assert capsys.readouterr().out.startswith("1 removed, ")
    assert {each.name for each in foveate.list_cache()} == {"digits", "cifar10"}


def test_it_clears_all_that_is_foveates(filled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (filled / "decoded" / "thesis").mkdir()
    (filled / "decoded" / "thesis" / "chapter.txt").write_text("mine")
    run("cache", "--clear")
    told = capsys.readouterr().out
    assert told.startswith("3 removed, ")
    assert f"left: {filled / 'decoded' / 'thesis'} (it is not Foveate's)" in told
    assert (filled / "decoded" / "thesis" / "chapter.txt").exists()
    assert (filled / "cifar10" / "notes.txt").exists()
    assert [each.kind for each in foveate.list_cache()] == ["foreign"]


def test_an_empty_cache(capsys: pytest.CaptureFixture[str], own_cache: Path) -> None:
    run("cache")
    assert capsys.readouterr().out == f"the cache is empty: {own_cache}\n"
    run("cache", "--clear")
    assert capsys.readouterr().out.startswith("0 removed, 0 B freed")


def test_no_link_is_followed(own_cache: Path, tmp_path: Path) -> None:
    load_dataset("digits", DataConfig(size=16))
    (own_cache / "decoded").rename(tmp_path / "elsewhere")
    (own_cache / "decoded").symlink_to(tmp_path / "elsewhere")
    assert [each.name for each in foveate.list_cache()] == ["digits"]
    with pytest.raises(ConfigError, match="is a link, which clearing does not follow"):
        foveate.clear_cache()
    assert len(list((tmp_path / "elsewhere").rglob("images.bin"))) == 1


@pytest.mark.parametrize("how", ["file", "loop"])
def test_a_cache_that_is_no_folder_is_one_line(how: str, own_cache: Path) -> None:
    place = own_cache / "decoded"
    place.symlink_to(place) if how == "loop" else place.write_text("")
    with pytest.raises(OutputError, match=r"^cannot read the cache "):
        foveate.list_cache()


@pytest.mark.parametrize("days", [-1.0, float("nan")])
def test_an_age_that_is_none_is_refused(days: float) -> None:
    with pytest.raises(ConfigError, match="give days, 0 or more"):
        foveate.clear_cache(older_than_days=days)


def test_an_age_without_clearing_is_refused() -> None:
    with pytest.raises(ConfigError, match="give both"):
        run("cache", "--older-than", "3")


def test_a_clock_that_was_set_back(filled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for each in foveate.list_cache():
        for path in each.path.iterdir() if each.path.is_dir() else [each.path]:
            os.utime(path, (time.time() + 1e6,) * 2)
    results.print_cache(foveate.list_cache())
    assert capsys.readouterr().out.count("just now") == 3
    foveate.clear_cache(older_than_days=1)
    assert len(foveate.list_cache()) == 3


def test_names_cannot_move_the_cursor(own_cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (own_cache / "decoded").mkdir()
    (own_cache / "decoded" / "a\x1b[2Jb").mkdir()
    results.print_cache(foveate.list_cache())
    cleared = "\n".join(foveate.clear_cache().lines)
    assert "\x1b" not in capsys.readouterr().out + cleared

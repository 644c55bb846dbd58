"""What only the command line does; whole commands are in integration/."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from PIL import Image
from tests.commands import call, finish

import foveate
from foveate.cli import main
from foveate.cli.options import given_settings
from foveate.errors import ConfigError


def test_settings_are_flags_that_were_given_and_yaml_values_beside_them() -> None:
    given = ["lr=1e-2", "patience=null", "stages=[{filters: 2}]", "attention=none"]
    assert given_settings(given, epochs=3, seed=None, batch=8) == {
        "epochs": 3,
        "batch": 8,
        "lr": 0.01,
        "patience": None,
        "stages": [{"filters": 2}],
        "attention": "none",
    }
    with pytest.raises(ConfigError, match="write it as --set KEY=VALUE"):
        given_settings(["epochs"])
    for twice in (["train.epochs=4"], ["epochs=4"]):
        with pytest.raises(ConfigError, match="epochs is set twice: give it once"):
            given_settings(twice, epochs=3)


def test_the_earlier_name_of_a_setting_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert given_settings(["train.views=6"]) == {"train.views": 6}
    assert "views is named tta_views now; the earlier name still works" in capsys.readouterr().err
    given_settings(["tta_views=6"])
    assert capsys.readouterr().err == ""


def test_alone_it_shows_its_help(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["foveate"])
    with pytest.raises(SystemExit, match="2"):
        main()
    lines = capsys.readouterr().err.splitlines()
    assert "Usage: foveate" in lines[0]
    assert [line.split()[0] for line in lines if line.startswith("  train ")] == ["train"]


def test_a_name_that_the_terminal_cannot_show_is_escaped(tmp_path: Path) -> None:
    for name in ("🐜", "b"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(4):
            Image.new("RGB", (32, 32), (number, 0, len(name))).save(tmp_path / f"photos/{name}/{number}.png")
    code = "from foveate.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "check", "photos", "--size", "32"],
        cwd=tmp_path, env={**os.environ, "PYTHONIOENCODING": "cp1252"}, capture_output=True, check=False,
    )  # fmt: skip
    assert done.stderr == b""
    assert b"\\U0001f41c (4 images)" in done.stdout


def test_sigterm_ends_a_command_as_ctrl_c_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(**_: object) -> None:
        with tempfile.TemporaryDirectory(dir=tmp_path):
            os.kill(os.getpid(), signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    monkeypatch.setattr(foveate, "summarize", killed)
    try:
        assert call(tmp_path, "summary").status == 130
    finally:
        signal.signal(signal.SIGTERM, before)
    assert list(tmp_path.iterdir()) == []


def test_the_table_of_layers_does_not_wait_for_what_draws_plots() -> None:
    code = "import sys; sys.argv = ['foveate', 'summary', '--preset', 'small']; from foveate.cli import main\n"
    code += "try:\n    main()\nfinally:\n    print({'matplotlib', 'jinja2', 'pandas', 'sklearn'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "set()"), done.stderr


def test_what_is_wrong_is_told_before_torch_is_imported(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "train" / "mine"
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a.png").touch()
    run.mkdir(parents=True)
    (run / "run.json").write_text('{"class_names": ["cat", "dog"]}')
    lines = {
        "train digits --name a/b": "--name a/b: give a plain name",
        "train digits --preset papr": "unknown preset 'papr'; did you mean 'paper'?",
        "train digits --preset minute --lr nan": "--lr nan: ",
        "train DIGITS": "there is no data set DIGITS: did you mean digits?",
        "tune missing": "there is no data set missing",
        "compare digits --arm minute --name a/b": "--name a/b: ",
        "check digits --name a/b": "--name a/b: ",
        "predict mine full": "no model at mine: ",
        "predict runs/train/mine missing.jpg": "there is no file or folder 'missing.jpg'",
        "predict runs/train/mine full --sort-into full": "full lies within the data",
        "explain runs/train/mine missing/*.jpg": "no file matches 'missing/*.jpg'",
        "explain runs/train/mine full --class nosuch": "--class nosuch: the model has no such class; known",
        "explain runs/train/mine full --name mine/x": "--name mine/x: ",
        "evaluate runs/train/mine missing": "there is no data set missing",
        "export runs/train/mine --to full": "full exists already: name a new folder by --to",
        "serve mine": "no model at mine: ",
    }  # fmt: skip
    code = "import sys\nfrom foveate.cli import main\nfor line in sys.argv[1:]:\n"
    code += "    sys.argv = ['foveate', *line.split()]\n    try:\n        main()\n"
    code += "    except SystemExit as ended:\n        print(ended.code, 'torch' in sys.modules)"
    command = [sys.executable, "-c", code, *lines]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == ["2 False"] * len(lines)
    for told, expected in zip(done.stderr.splitlines(), lines.values(), strict=True):
        assert told.startswith(f"foveate: {expected}")


def test_a_file_whose_name_begins_with_a_dash_is_told_how_to_be_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("-dash.jpg").touch()
    monkeypatch.setattr(sys, "argv", ["foveate", "predict", "run", "-dash.jpg"])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert "give the file as ./-dash.jpg" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("train digits --size abc", "--size abc: give a whole number (Side of the network's input in pixels"),
        ("train digits --lr=x", "--lr x: give a number (Learning rate)"),
        ("cache --older-than x", "--older-than x: give a number (With --clear: only what was not used"),
        ("train digits --sise 3", "there is no option --sise; did you mean --size? `foveate train --help` "),
        ("train digits --batch-size 3", "there is no option --batch-size; did you mean --batch? "),
        ("train digits --patience 3", "--patience is a setting: give it as --set patience=VALUE; "),
        ("summary --size", "--size needs a value after it; `foveate summary --help` lists the options"),
        ("train digits --final=3", "--final takes no value: leave out what follows the =; "),
        ("train my photos", "'photos' is more than `foveate train` takes: a name with spaces needs quotation "),
        ("check", "DATA is missing (digits, cue, cifar10, or a folder, CSV, Parquet or .npz file); "),
        ("export model", "--to is missing (Folder to make, which holds the files); "),
        ("trian", "there is no command 'trian'; did you mean 'train'? `foveate --help` lists the commands"),
        ("--zzz", "there is no option --zzz; `foveate --help` lists the commands"),
        ("train digits --set lr=1 --set train.lr=2", "--set train.lr=2: lr is set twice: give it once"),
        ("train digits --set lr=true", "train: lr is a number, and not true"),
        ('train digits --set stages=[{"filters":8,"kernels":[3,3]}]', "model.attention_stage=2: there is 1 stage"),
        ("compare digits --arm minute --subset 0", "--subset 0: input should be greater than or equal to 1"),
        ("compare digits --arm minute --subset 9 --subset 0", "--subset 0: input should be greater than or equal"),
        ("compare digits --arm minute --rule pair", "--rule pair: give blocks, dunnett or pairs; did you mean "),
        ("tune digits --hang-limit 0", "--hang-limit 0.0: input should be greater than 0"),
        ("train digits --preset small --lr=-1", "--lr -1.0: input should be greater than 0"),
        ("train digits --preset small --set lr=-1", "train.lr=-1: input should be greater than 0"),
        ("train digits --set attention=null", "model.attention=None: for a network without attention wri"),
        ("summary --classes 1000000000", "--classes 1000000000: give 1 to 1,000,000"),
    ],
)  # fmt: skip
def test_a_command_that_cannot_be_read_is_told_in_a_sentence_with_the_fix(
    arguments: str, told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["foveate", *arguments.split()])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert capsys.readouterr().err.startswith(f"foveate: {told}")


def test_the_home_folder_is_meant_wherever_a_path_begins_with_a_tilde(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    small = ("--preset", "small", "--epochs", 1, "--size", 16, "--set", "images_seen=null")
    finish(tmp_path / "here", "train", "digits", *small, "--runs=~/r", "--name", "a")
    assert sorted(each.name for each in (tmp_path / "home").iterdir()) == ["r"]
    failed = call(tmp_path / "here", "train", "--resume=~/r/train/b")
    assert str(tmp_path / "home/r/train/b") in failed.err
    failed = call(tmp_path / "here", "train", "digits", "--start=~/c")
    assert f"--start {tmp_path / 'home/c'}: there is no such file" in failed.err
    failed = call(tmp_path / "here", "tune", "digits", "--space=~/d.yaml", "--runs=~/r")
    assert f"cannot read {tmp_path / 'home/d.yaml'}" in failed.err
    assert list((tmp_path / "here").iterdir()) == []

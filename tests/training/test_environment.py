import json

import pytest
import torch

from foveate.training.environment import environment, environment_changes


def test_the_environment_says_what_a_figure_depends_on() -> None:
    told = environment(torch.device("cpu"))
    assert told["versions"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert told["threads"] == torch.get_num_threads()
    assert told["processor"]
    assert json.dumps(told)


def test_the_same_place_is_no_change() -> None:
    here = environment(torch.device("cpu"))
    assert environment_changes(here, {**here, "time": "later"}, continued=True) == []
    assert environment_changes({}, here, continued=True) == []  # of a file that says nothing


def test_other_threads_or_versions_may_change_the_last_bits() -> None:
    here = environment(torch.device("cpu"))
    before = {**here, "threads": 64, "versions": {**here["versions"], "torch": "1.0"}}
    (line,) = environment_changes(before, here, continued=True)
    assert f"threads (was 64, is {here['threads']}), torch (was 1.0, is " in line
    assert "last bits may differ" in line
    assert environment_changes({**before, "resumed": [here]}, here, continued=True) == []


def test_other_random_generators_are_said_in_one_line() -> None:
    here = environment(torch.device("cpu"))
    (line,) = environment_changes({**here, "device": "NVIDIA H100", "threads": 64}, here, continued=False)
    assert line.startswith("the run was on NVIDIA H100 and goes on on cpu")
    assert "not bit for bit" in line


def test_other_devices_are_said_in_one_line() -> None:
    here = environment(torch.device("cpu"), 3)
    assert here["devices"] == 3
    (line,) = environment_changes({"threads": 64}, here, continued=True)
    assert line.startswith("the run was on 1 device and goes on on 3, which share batches")
    assert environment_changes({**here, "threads": 64}, here, continued=True)[0].startswith("the run goes on with")


def test_a_file_that_holds_anything_is_no_fault() -> None:
    here = environment(torch.device("cpu"))
    for odd in ({"resumed": 5}, {"resumed": [5, None]}, {"versions": [1]}, {"resumed": [{"versions": "x"}]}):
        assert environment_changes(odd, here, continued=True) == []


def test_what_overrides_the_precision_on_nvidias_gpus_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NVIDIA_TF32_OVERRIDE", raising=False)
    before = environment(torch.device("cpu"))
    assert before["tf32_override"] is None
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")
    now = environment(torch.device("cpu"))
    (line,) = environment_changes(before, now, continued=True)
    assert "other tf32 override (was None, is 0)" in line

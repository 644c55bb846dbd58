import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from foveate.checkpoint import (
    TRAINING_PREFIX,
    load_model,
    load_tensors,
    model_card,
    save_temperature,
    save_tensors,
)
from foveate.config import resolve_config
from foveate.errors import CheckpointError, OutputError
from foveate.model.build import build_model
from foveate.model.network import AttentionCNN

CONFIG = resolve_config("small", settings={"hidden": 8}).model
CLASSES = ("cat", "Hündin", "<b>")


def network() -> AttentionCNN:
    return build_model(CONFIG, (0.4, 0.5, 0.6), (0.1, 0.2, 0.3), num_classes=3, size=16).eval()


def saved(path: Path) -> Path:
    save_tensors(path, network().state_dict(), model_card(CONFIG, CLASSES, 16))
    return path


def test_a_network_comes_back_with_its_classes_and_preprocessing(tmp_path: Path) -> None:
    loaded = load_model(saved(tmp_path / "a.safetensors"))
    images = torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8)
    assert (loaded.class_names, loaded.size, loaded.config) == (CLASSES, 16, CONFIG)
    assert not loaded.model.training
    with torch.inference_mode():
        assert torch.equal(loaded.model(images), network()(images))


def test_a_temperature_is_kept_and_changes_nothing_else(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.safetensors")
    before, card = load_tensors(path)
    assert load_model(path).temperature is None
    save_temperature(path, 0.625)
    assert load_model(path).temperature == 0.625
    after, told = load_tensors(path)
    assert told == {**card, "temperature": 0.625}
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_any_program_that_reads_safetensors_can_load_the_weights(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    network().load_state_dict(load_file(saved(tmp_path / "a.safetensors")))


def test_tensors_of_every_layout_come_back_bit_for_bit(tmp_path: Path) -> None:
    tensors = {
        "channels_last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "scalar": torch.tensor(7),
        "bytes": torch.arange(5, dtype=torch.uint8),
        "empty": torch.zeros(0, 3),
        "odd": torch.tensor([float("nan"), float("inf"), -0.0]),
    }
    save_tensors(tmp_path / "a", tensors, {"x": [1, 0.1]})
    back, meta = load_tensors(tmp_path / "a")
    assert meta["x"] == [1, 0.1]
    assert back.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert back[name].numpy().tobytes() == tensor.contiguous().numpy().tobytes()


def test_training_state_beside_the_weights_is_not_the_networks(tmp_path: Path) -> None:
    extra = {TRAINING_PREFIX + "x": torch.zeros(2)}
    save_tensors(tmp_path / "a", {**network().state_dict(), **extra}, model_card(CONFIG, CLASSES, 16))
    assert load_model(tmp_path / "a").class_names == CLASSES


@pytest.mark.parametrize("position", [0.0, 0.01, 0.5, 0.999])
def test_a_flipped_bit_is_found(tmp_path: Path, position: float) -> None:
    path = saved(tmp_path / "a.safetensors")
    content = bytearray(path.read_bytes())
    content[int(position * len(content))] ^= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="is damaged") as error:
        load_model(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("keep", [0, 7, 100, -1])
def test_a_truncated_file_is_said(tmp_path: Path, keep: int) -> None:
    path = saved(tmp_path / "a.safetensors")
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match="is damaged"):
        load_model(path)


def test_foreign_and_missing_files_are_said(tmp_path: Path) -> None:
    save_file({"w": torch.zeros(2)}, tmp_path / "foreign.safetensors")
    with pytest.raises(CheckpointError, match="not a Foveate checkpoint"):
        load_model(tmp_path / "foreign.safetensors")
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        load_model(tmp_path / "none.safetensors")
    torch.save({"w": torch.zeros(2)}, tmp_path / "pickled.pt")
    with pytest.raises(CheckpointError, match="is damaged"):
        load_model(tmp_path / "pickled.pt")


def test_weights_of_another_network_are_said(tmp_path: Path) -> None:
    card = model_card(CONFIG, (*CLASSES, "fourth"), 16)
    save_tensors(tmp_path / "a", network().state_dict(), card)
    with pytest.raises(CheckpointError, match="does not fit its own description") as error:
        load_model(tmp_path / "a")
    assert "\n" not in str(error.value)
    save_tensors(tmp_path / "b", network().state_dict(), {**card, "model": {"stages": []}})
    with pytest.raises(CheckpointError, match="does not fit its own description"):
        load_model(tmp_path / "b")


def test_a_newer_format_is_said(tmp_path: Path) -> None:
    save_tensors(tmp_path / "a", network().state_dict(), {**model_card(CONFIG, CLASSES, 16), "format": 99})
    with pytest.raises(CheckpointError, match=r"format 99.*update foveate"):
        load_model(tmp_path / "a")


def test_what_was_saved_before_stays_when_saving_fails(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.safetensors")
    before = path.read_bytes()
    with pytest.raises(ValueError, match="JSON"):
        save_tensors(path, {}, {"x": float("nan")})
    with pytest.raises(OutputError):
        save_tensors(tmp_path / "none" / "a", {}, {})
    assert path.read_bytes() == before
    assert json.dumps(model_card(CONFIG, CLASSES, 16))

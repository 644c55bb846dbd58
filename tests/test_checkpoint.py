import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, ClassVar, get_args

import pytest
import torch
from safetensors.torch import save_file
from tests.hostile_models import CARD, HOSTILE, weights, write_meta, write_text
from tests.hostile_models import CLASSES as TINY_CLASSES
from tests.hostile_models import CONFIG as TINY

from foveate.checkpoint import checkpoint_metadata, load_model, save_confidence
from foveate.confidence import Confidence, Unlike
from foveate.config import resolve_config
from foveate.errors import CheckpointError, OutputError
from foveate.model.attention_kinds import register_attention
from foveate.model.build import build_model
from foveate.model.network import AttentionCNN
from foveate.preprocessing import Preprocessing
from foveate.settings import AttentionKind, ModelConfig
from foveate.tensors import TRAINING_PREFIX, digest_of, load_tensors, save_tensors, section

CONFIG = resolve_config("small", settings={"hidden": 8}).model
CLASSES = ("cat", "Hündin", "<b>")


def network() -> AttentionCNN:
    return build_model(CONFIG, (0.4, 0.5, 0.6), (0.1, 0.2, 0.3), num_classes=3, size=16).eval()


def saved(path: Path) -> Path:
    save_tensors(path, network().state_dict(), checkpoint_metadata(CONFIG, CLASSES, Preprocessing(16)))
    return path


def test_a_network_comes_back_with_its_classes_and_preprocessing(tmp_path: Path) -> None:
    loaded = load_model(saved(tmp_path / "a.safetensors"))
    images = torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8)
    assert (loaded.class_names, loaded.size, loaded.config) == (CLASSES, 16, CONFIG)
    assert not loaded.model.training
    with torch.inference_mode():
        assert torch.equal(loaded.model(images), network()(images))


def test_what_was_fitted_is_kept_and_changes_nothing_else(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.safetensors")
    before, card = load_tensors(path)
    assert load_model(path).confidence == Confidence()
    fitted = Confidence(temperature=0.625, scores=(0.5, 0.75), unlike=Unlike(threshold=-1.5, images=120))
    save_confidence(path, fitted)
    assert load_model(path).confidence == fitted
    after, told = load_tensors(path)
    assert told == {**card, "confidence": fitted.model_dump(mode="json")}
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_temperature_of_an_earlier_version_is_read_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_tensors(
        path,
        network().state_dict(),
        {**checkpoint_metadata(CONFIG, CLASSES, Preprocessing(16, "squash", 4095)), "temperature": 0.5},
    )
    loaded = load_model(path)
    assert (loaded.confidence, loaded.preprocessing) == (
        Confidence(temperature=0.5),
        Preprocessing(16, "squash", 4095),
    )
    save_confidence(path, Confidence(temperature=2.0))
    assert load_model(path).confidence == Confidence(temperature=2.0)


def test_equal_contents_are_equal_bytes(tmp_path: Path) -> None:
    tensors = {"a": torch.arange(5), "b": torch.ones(3, 2)}
    found = set()
    for _ in range(20):  # the library's own order is another each time
        save_tensors(tmp_path / "some.safetensors", tensors, {"name": 'é\x7f"', "share": 0.1})
        found.add((tmp_path / "some.safetensors").read_bytes())
    assert len(found) == 1


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
    save_tensors(
        tmp_path / "a",
        {**network().state_dict(), **extra},
        checkpoint_metadata(CONFIG, CLASSES, Preprocessing(16)),
    )
    assert load_model(tmp_path / "a").class_names == CLASSES


def test_a_network_before_its_first_step_is_none(tmp_path: Path) -> None:
    card = checkpoint_metadata(CONFIG, CLASSES, Preprocessing(16))
    for place, (epoch, step) in enumerate([(1, 0), (1, 1), (2, 0)]):
        path = tmp_path / str(place)
        save_tensors(path, network().state_dict(), {**card, "training": {"epoch": epoch, "step": step}})
        if (epoch, step) == (1, 0):
            with pytest.raises(CheckpointError, match="before the first step of training: continue its run"):
                load_model(path)
        else:
            assert load_model(path).class_names == CLASSES


class Elsewhere(torch.Tensor):
    """A tensor as on a GPU: NumPy cannot see it."""

    def numpy(self, *, force: bool = False) -> Any:
        raise TypeError("can't convert cuda:0 device type tensor to numpy")

    def cpu(self) -> torch.Tensor:
        return self.as_subclass(torch.Tensor)


def test_tensors_have_one_digest_on_any_device() -> None:
    here = network().state_dict()
    there = {name: each.as_subclass(Elsewhere) for name, each in here.items()}
    assert digest_of(there, "a") == digest_of(here, "a") != digest_of(here, "b")


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
    card = checkpoint_metadata(CONFIG, (*CLASSES, "fourth"), Preprocessing(16))
    save_tensors(tmp_path / "a", network().state_dict(), card)
    with pytest.raises(CheckpointError, match="does not fit its own description") as error:
        load_model(tmp_path / "a")
    assert "\n" not in str(error.value)
    save_tensors(tmp_path / "b", network().state_dict(), {**card, "model": {"stages": [{}]}})
    with pytest.raises(CheckpointError, match=r"is damaged \(model.stages.0.filters: "):
        load_model(tmp_path / "b")
    save_tensors(tmp_path / "c", network().state_dict(), {**card, "model": {"stages": []}})
    with pytest.raises(CheckpointError, match=r"c: model.stages: give one stage at least"):
        load_model(tmp_path / "c")


def test_a_newer_format_is_said(tmp_path: Path) -> None:
    save_tensors(
        tmp_path / "a",
        network().state_dict(),
        {**checkpoint_metadata(CONFIG, CLASSES, Preprocessing(16)), "format": 99},
    )
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
    assert json.dumps(checkpoint_metadata(CONFIG, CLASSES, Preprocessing(16)))


@pytest.mark.parametrize("name", HOSTILE)
def test_a_strangers_file_is_refused_in_one_line_that_names_it(tmp_path: Path, name: str) -> None:
    path = tmp_path / "stranger.safetensors"
    HOSTILE[name](path)
    with pytest.raises(CheckpointError) as error:
        load_model(path)
    message = str(error.value)
    assert message.startswith(str(path))
    assert message.isprintable()
    assert len(message) < len(str(path)) + 500


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("size is a word", "preprocessing.size: it must be a whole number"),
        ("temperature 0", "temperature: Input should be greater"),
        ("temperature of 400 digits", "temperature: it must be a number"),
        ("a class with NUL", "class_names.1: must be printable"),
        ("classes twice", "class_names: must be distinct: 'a'"),
        ("100,000 kernels", "model.stages.0.kernels: it must have at most 16"),
        ("size 256", r"head.dense.weight has the shape \[6, 20\] in place of \[6, 5120\]"),
        ("big stages", "stages.0.convs.2.bias is missing"),
        ("a tensor more", "x is no part of it"),
        ("weights float16", "head.classifier.weight is torch.float16 in place of torch.float32"),
        ("weights complex64", "head.classifier.weight: dtype 'C64' is not a type that networks have"),
        ("one weight NaN", "head.classifier.weight holds values that are not finite"),
        ("variance negative", "stages.0.norm.running_var is negative"),
        ("a header beyond the end", "it ends within its header"),
        ("offsets that overlap", "its tensors overlap, or do not fill the file"),
        ("metadata deep", "nested more than 32 levels"),
        ("metadata of empty lists", r"could stand for [0-9,]+ bytes of values"),
        ("a newer format", "has format 2, this version reads 1: update foveate"),
        ("a custom attention", "is a class of your own: hand it over first"),
        ("a forward pass of terabytes", r"a batch of 1 at size=256 takes 256\.0 GiB"),
    ],
)
def test_the_message_says_which_field_is_wrong(tmp_path: Path, name: str, field: str) -> None:
    HOSTILE[name](tmp_path / "a")
    with pytest.raises(CheckpointError, match=field):
        load_model(tmp_path / "a")


MEASURE = """
import json, os, resource, sys
from pathlib import Path
from foveate.checkpoint import load_model
from foveate.errors import CheckpointError

def kilobytes(key):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(key))

load_model(Path(sys.argv[1]))  # what torch imports and allocates once
text, began = json.dumps(list(range(1_000_000))), os.times().user
for _ in range(5):
    json.loads(text)
unit = os.times().user - began  # five million numbers: the processor's speed at this moment
del text
for path in map(Path, sys.argv[1:]):
    if os.fork() == 0:
        before, used = kilobytes("VmRSS:"), os.times().user
        try:
            load_model(path)
        except CheckpointError:
            pass
        print(path.name, kilobytes("VmHWM:") - before, (os.times().user - used) / unit, flush=True)
        os._exit(0)
    assert os.wait()[1] == 0
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peaks are read from /proc")
def test_a_file_takes_at_most_twice_its_size_and_64_megabytes_and_little_time(tmp_path: Path) -> None:
    """No more time than four times what five million numbers in JSON take: under two seconds."""
    stages = [{"filters": 1, "kernels": [1]}]
    dense = ModelConfig.model_validate({"stages": stages, "attention": "none", "hidden": 65536})
    save_tensors(tmp_path / "good", weights(), CARD)
    card = checkpoint_metadata(dense, TINY_CLASSES, Preprocessing(32))
    save_tensors(tmp_path / "large", build_model(dense, num_classes=3, size=32).state_dict(), card)
    assert (tmp_path / "large").stat().st_size > 64 << 20
    for number, write in enumerate(HOSTILE.values()):
        write(tmp_path / str(number))
    names = ["good", "large", *map(str, range(len(HOSTILE)))]
    measured = subprocess.run(
        [sys.executable, "-c", MEASURE, *(str(tmp_path / name) for name in names)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    rows = [line.split() for line in measured.splitlines()]
    assert [name for name, _, _ in rows] == names
    titles = dict(zip(map(str, range(len(HOSTILE))), HOSTILE, strict=True))
    over = [
        (titles.get(name, name), peak, units)
        for name, peak, units in rows
        if int(peak) * 1024 > 2 * (tmp_path / name).stat().st_size + (64 << 20) or float(units) > 4
    ]
    assert over == []


def test_mutated_files_load_with_equal_meaning_or_are_refused(tmp_path: Path) -> None:
    write_meta(tmp_path / "a", {"format": 1, **CARD, "temperature": 0.5})
    whole, loaded = (tmp_path / "a").read_bytes(), load_model(tmp_path / "a")
    draw, path, refused = random.Random(0), tmp_path / "b", 0
    for _ in range(500):
        content = bytearray(whole)
        place = draw.randrange(len(content)) if draw.random() < 0.3 else draw.randrange(3000)
        match draw.randrange(5):
            case 0:
                content[place] ^= 1 << draw.randrange(8)
            case 1:
                content[place : place + draw.randrange(1, 9)] = draw.randbytes(draw.randrange(9))
            case 2:
                del content[place:]
            case 3:
                content[place:place] = content[place : place + draw.randrange(1, 300)]
            case 4:
                content[place] = draw.choice(b'0123456789"[]{},:. \\-e')
        path.write_bytes(content)
        try:
            again = load_model(path)
        except CheckpointError:
            refused += 1
            continue
        assert (again.config, again.class_names, again.size, again.confidence) == (
            (loaded.config, loaded.class_names, loaded.size, loaded.confidence)
        )
        assert all(map(torch.equal, again.model.state_dict().values(), loaded.model.state_dict().values()))
    assert 400 < refused <= 500


def frozen() -> dict[str, torch.Tensor]:
    """The weights of `OLD`."""
    return {
        name: torch.full(tensor.shape, 7)
        if tensor.dtype == torch.int64
        else ((torch.arange(tensor.numel()) % 7 + place + 1) / 64).reshape(tensor.shape)
        for place, (name, tensor) in enumerate(weights().items())
    }


OLD = (
    '{"format": 1, "model": {"stages": [{"filters": 4, "kernels": [3], "pool": 2, "dropout": 0.0}, '
    '{"filters": 5, "kernels": [3, 3], "pool": 4, "dropout": 0.0}], "whiten": 0, "block": "plain", '
    '"activation": "relu", "attention": "luong_scaled", "attention_stage": 1, "attention_mode": "replace", '
    '"head": "dense", "hidden": 6, "hidden_dropout": 0.5, "dropout": true, "batch_norm": true, '
    '"norm_momentum": 0.01, "normalize": "unit"}, "class_names": ["cat", "H\\u00fcndin", "<b>"], '
    '"preprocessing": {"size": 16, "resize": "centre crop, bilinear, antialiased", "channels": "RGB"}MORE}'
)
"""What version 0 wrote, letter by letter; the checksums below are its own."""
ROW = (
    '{"epoch": 1, "train_loss": 1.5, "train_accuracy": 0.25, "val_loss": null, "val_accuracy": null, '
    '"val_macro_f1": null, "lr": 0.001, "seconds": 0.5, "images_per_s": 88.0}'
)
STATE: dict[str, torch.Tensor] = {
    "training/totals": torch.tensor([1.5, 2.0], dtype=torch.float64),
    "training/generator.cpu": torch.arange(16, dtype=torch.uint8),
    "training/optimizer.0.step": torch.tensor(3.0),
}
AT = f', "training": {{"epoch": 2, "step": 3, "seconds": 0.5, "history": [{ROW}]}}'
RUN = ', "run": {"train_s": 12.5, "images_shown": 4400}'


@pytest.mark.parametrize(
    ("more", "tensors", "temperature", "checksum"),
    [
        ("", {}, None, "1de6f8bedcc6fec391b10c563529163d618372f522ae9bec5252aaec72e7a2da"),
        (', "temperature": 0.625', {}, 0.625, "a54a771562ce3f0d14cc57fcffdb87371f4af29c32e84852c7dd22cf7e7e8eb4"),
        (AT, STATE, None, "f620dda9274e7cc25fe850e02ba21f97717d31cb3f2e18703b5d0404835120c2"),
        (RUN, {}, None, "b65de0d432a3fedbed09cb0a5c7088a0c3c6719f3e074cddcb8e00ce823870d8"),
    ],
    ids=["weights", "calibrated", "state", "arm"],
)
def test_files_of_the_first_version_load(
    tmp_path: Path, more: str, tensors: dict[str, torch.Tensor], temperature: float | None, checksum: str
) -> None:
    write_text(tmp_path / "a", OLD.replace("MORE", more), {**frozen(), **tensors})
    assert checksum in (tmp_path / "a").read_text(errors="replace")
    loaded = load_model(tmp_path / "a")
    assert (loaded.config, loaded.class_names) == (TINY, TINY_CLASSES)
    assert (loaded.size, loaded.confidence) == (16, Confidence(temperature=temperature))
    image = torch.arange(768).remainder(256).to(torch.uint8).reshape(1, 3, 16, 16)
    with torch.inference_mode():
        logits = loaded.model(image)
    torch.testing.assert_close(logits, torch.tensor([[4299.603515625, 4326.9091796875, 4354.45166015625]]))


@pytest.mark.parametrize("kind", get_args(AttentionKind))
def test_a_loaded_network_of_every_attention_is_the_saved_one_to_the_last_bit(tmp_path: Path, kind: str) -> None:
    config = resolve_config("minute", settings={"attention": kind, "stages": STAGES}).model
    network = build_model(config, num_classes=3, size=16).eval()
    save_tensors(tmp_path / "a", network.state_dict(), checkpoint_metadata(config, CLASSES, Preprocessing(16)))
    before = torch.get_rng_state()
    loaded = load_model(tmp_path / "a").model
    assert torch.equal(torch.get_rng_state(), before)
    for (name, one), other in zip(network.state_dict().items(), loaded.state_dict().values(), strict=True):
        assert torch.equal(one, other), name
        assert (one.stride(), one.dtype) == (other.stride(), other.dtype), name
    trainable = [each.requires_grad for each in network.parameters()]
    assert [each.requires_grad for each in loaded.parameters()] == trainable
    images = torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8)
    with torch.inference_mode():
        assert torch.equal(loaded(images), network(images))
    save_tensors(tmp_path / "b", loaded.state_dict(), checkpoint_metadata(config, CLASSES, Preprocessing(16)))
    # Its tensors lie in memory of their own, and are saved as before; the order of the two strings is by chance.
    assert (tmp_path / "b").stat().st_size == (tmp_path / "a").stat().st_size
    assert load_tensors(tmp_path / "b")[1] == load_tensors(tmp_path / "a")[1]


STAGES = [{"filters": 16, "kernels": [3, 3]}, {"filters": 32, "kernels": [3, 3]}]


class Unusual(torch.nn.Module):
    """Cannot be made without memory, and holds what no checkpoint has and types that no other network has."""

    made: ClassVar[list[int]] = []

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.made.append(channels)
        self.scale = torch.linspace(1, 2, 3)[1].item()
        self.weight = torch.nn.Parameter(torch.ones(channels))
        self.register_buffer("seen", torch.arange(channels) % 2 == 0)
        self.register_buffer("bias", torch.tensor([0.0, float("-inf")]))
        self.register_buffer("narrow", torch.full((2,), 0.5, dtype=torch.bfloat16))
        self.register_buffer("kept_by_nobody", torch.full((1,), 3.0), persistent=False)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features * (self.weight * self.seen * self.scale * self.kept_by_nobody).view(-1, 1, 1)


def test_a_custom_attention_is_made_only_once_all_else_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("foveate.model.attention_kinds._REGISTERED", {})
    monkeypatch.setattr(Unusual, "made", [])
    config = TINY.model_copy(update={"attention": register_attention(Unusual)})
    network, card = (
        build_model(config, num_classes=3, size=16).eval(),
        checkpoint_metadata(config, TINY_CLASSES, Preprocessing(16)),
    )
    save_tensors(tmp_path / "a", network.state_dict(), card)
    loaded, images = load_model(tmp_path / "a").model, torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    with torch.inference_mode():
        assert torch.equal(loaded(images), network(images))
    assert Unusual.made == [4, 4]
    huge = {**card, "model": {**card["model"], "stages": [{"filters": 4096}, *card["model"]["stages"][1:]]}}
    save_tensors(tmp_path / "b", network.state_dict(), huge)
    with pytest.raises(CheckpointError, match=r"stages\.0\.convs\.2\.bias is missing"):
        load_model(tmp_path / "b")
    assert Unusual.made == [4, 4]
    weight = "stages.0.attention.weight"
    save_tensors(tmp_path / "d", {**network.state_dict(), weight: torch.full((4,), float("inf"))}, card)
    with pytest.raises(CheckpointError, match=f"{weight} holds values that are not finite"):
        load_model(tmp_path / "d")
    content = (tmp_path / "a").read_bytes()
    mask = bytes([1, 0, 1, 0])
    assert content.count(mask) == 1
    (tmp_path / "c").write_bytes(content.replace(mask, bytes([2, 0, 1, 0])))
    with pytest.raises(CheckpointError, match="seen holds values that are neither true nor false"):
        load_model(tmp_path / "c")


@pytest.mark.parametrize(
    ("classes", "config", "size", "differs"),
    [
        (("a", "b", "c", "d"), TINY, 16, "it has 4 classes, and its run has 3"),
        (("cat", "dog", "<b>"), TINY, 16, "it has the class 'dog' where its run has 'Hündin'"),
        (("Hündin", "cat", "<b>"), TINY, 16, "it has the class 'Hündin' where its run has 'cat'"),
        (TINY_CLASSES, TINY, 20, "it takes images of size 20, and its run has 16"),
        (TINY_CLASSES, TINY.model_copy(update={"hidden": 7}), 16, r"its model\.hidden is not that of its run"),
    ],
)
def test_the_whole_network_of_another_run_is_refused_in_this_one(
    tmp_path: Path, classes: tuple[str, ...], config: ModelConfig, size: int, differs: str
) -> None:
    path = tmp_path / "a"
    save_tensors(
        path, weights(config, len(classes), size), checkpoint_metadata(config, classes, Preprocessing(size))
    )
    load_model(path)
    load_model(path, expect=checkpoint_metadata(config, classes, Preprocessing(size)))
    with pytest.raises(CheckpointError, match=rf"a does not belong to its run \({differs}\)"):
        load_model(path, expect=CARD)


def test_a_network_that_images_are_fitted_for_otherwise_is_not_its_runs(tmp_path: Path) -> None:
    save_tensors(tmp_path / "a", weights(), checkpoint_metadata(TINY, TINY_CLASSES, Preprocessing(16, "pad")))
    assert load_model(tmp_path / "a").preprocessing == Preprocessing(16, "pad")
    differs = "takes images padded with grey, bilinear, antialiased, and its run has centre crop, bilinear"
    with pytest.raises(CheckpointError, match=differs):
        load_model(tmp_path / "a", expect=CARD)


def test_a_network_is_refused_where_so_many_images_at_once_do_not_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_tensors(tmp_path / "a", weights(), CARD)
    one = 4 * 4 * 2 * 16 * 16  # the bytes of 3 channels at 16×16 and 4 after the convolution, or a little more
    monkeypatch.setattr("foveate.checkpoint.device_memory", lambda _: 10**6)
    load_model(tmp_path / "a", images_at_once=10**6 // one)
    with pytest.raises(CheckpointError, match="a batch of 1000 at size=16 takes"):
        load_model(tmp_path / "a", images_at_once=1000)
    monkeypatch.setattr("foveate.tensors.device_memory", lambda _: 10)
    with pytest.raises(CheckpointError, match="of memory"):
        load_tensors(tmp_path / "a")


def test_what_is_no_regular_file_is_said_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    began = time.monotonic()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for bad in (tmp_path / "loop", Path("a\0b"), Path("x" * 5000)):
        with pytest.raises(CheckpointError, match=r"cannot read "):
            load_model(bad)
    for path in (tmp_path, tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(CheckpointError, match=r"cannot read .* \(it is not a regular file\)"):
            load_model(path)
    assert time.monotonic() - began < 5


@pytest.mark.skipif(sys.platform == "win32", reason="sparse files need a call of their own there")
def test_a_sparse_file_is_refused_by_its_header(tmp_path: Path) -> None:
    path = tmp_path / "sparse"
    HOSTILE["a state of a terabyte"](path)
    assert path.stat().st_size > 10**12
    began = time.monotonic()
    for load in (load_model, load_tensors):
        with pytest.raises(CheckpointError, match="training state is much larger than its network"):
            load(path)
    assert time.monotonic() - began < 5


def test_a_history_of_15000_epochs_is_read(tmp_path: Path) -> None:
    row = json.loads(ROW) | {f"val_{name}": 1 / 3 for name in ("loss", "accuracy", "macro_f1")}
    rows = [{**row, "epoch": epoch, "train_loss": 1 / epoch, "seconds": 0.1 * epoch} for epoch in range(1, 15_001)]
    training = {"epoch": 15_001, "step": 0, "seconds": 0.0, "history": rows}
    save_tensors(tmp_path / "a", weights(), {**CARD, "training": training})
    assert load_tensors(tmp_path / "a")[1]["training"]["history"] == rows
    assert load_model(tmp_path / "a").class_names == TINY_CLASSES


def test_a_section_is_read_by_its_schema(tmp_path: Path) -> None:
    save_tensors(tmp_path / "a", {}, {"run": {"train_s": 1.5}})
    meta: dict[str, Any] = load_tensors(tmp_path / "a")[1]
    assert section(tmp_path / "a", meta, "run", dict[str, float]) == {"train_s": 1.5}
    with pytest.raises(CheckpointError, match=r"a, run is damaged \(train_s: "):
        section(tmp_path / "a", meta, "run", dict[str, int])
    with pytest.raises(CheckpointError, match=r"does not fit its run \(trial is missing"):
        section(tmp_path / "a", meta, "trial", dict[str, int])

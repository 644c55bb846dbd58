import pytest
import torch
from torch import Tensor

from foveate.config import resolve_config
from foveate.model.blocks import WhiteningConv2d
from foveate.model.build import build_model
from foveate.model.network import AttentionCNN

STAGES = [{"filters": 6, "kernels": [3, 3]}, {"filters": 8, "kernels": [3, 3, 3]}]


def network(preset: str = "minute", **settings: object) -> AttentionCNN:
    config = resolve_config(preset, settings={"stages": STAGES, **settings}).model
    model = build_model(config, (0.4, 0.5, 0.6), (0.2, 0.3, 0.2), num_classes=5, size=16)
    if model.gate is not None:
        for name, parameter in model.named_parameters():
            if name.endswith("gate"):
                parameter.data.fill_(0.7)
    return model.eval()


def pictures(count: int = 4) -> Tensor:
    return torch.randint(0, 256, (count, 3, 16, 16), generator=torch.Generator().manual_seed(3)).to(torch.uint8)


@pytest.mark.parametrize("kind", ["luong", "luong_row", "luong_scaled"])
def test_without_its_residual_attention_a_network_is_its_twin(kind: str) -> None:
    model, twin = network(attention=kind), network(attention="none")
    twin.load_state_dict({name: each for name, each in model.state_dict().items() if ".attention." not in name})
    images = pictures()
    with torch.inference_mode():
        whole = model(images)
        with model.without_attention():
            assert torch.equal(model(images), twin(images))
        assert torch.equal(model(images), whole)
        assert not torch.allclose(whole, twin(images), atol=1e-4)


def test_attention_that_replaces_its_input_is_taken_out_as_well() -> None:
    model = network("small", attention="luong", hidden=8)
    twin = network("small", attention="none", hidden=8)
    twin.load_state_dict(model.state_dict())
    with torch.inference_mode(), model.without_attention():
        assert torch.equal(model(pictures()), twin(pictures()))


def test_attention_comes_back_after_an_exception() -> None:
    model, images = network(), pictures()
    parts = list(model.modules())
    with torch.inference_mode():
        whole = model(images)
        with pytest.raises(KeyboardInterrupt), model.without_attention():
            raise KeyboardInterrupt
        assert torch.equal(model(images), whole)
    assert list(model.modules()) == parts


def test_the_gate_is_told_where_there_is_one() -> None:
    assert network().gate == pytest.approx(0.7)
    assert network(attention="none").gate is None
    assert network(attention_mode="replace").gate is None


def test_the_stem_is_made_from_normalised_images() -> None:
    model, images = network(), pictures()
    model.init_whitening(images)
    alone = WhiteningConv2d(3, 2)
    alone.fit([model.normalize(images)])
    (whitening,) = (module for module in model.modules() if isinstance(module, WhiteningConv2d))
    assert torch.equal(whitening.weight, alone.weight)
    assert not whitening.weight.requires_grad


def test_a_network_without_a_stem_takes_nothing_from_images() -> None:
    model = network("small", hidden=8)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.init_whitening(pictures())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())

"""A network is asked batch after batch, in the mode and the order that it should be."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from foveate.data.loader import Loader
from foveate.errors import DataError
from foveate.inference.network import ViewsAveraged, collect_logits, float32_kept
from foveate.settings import Precision

CPU = torch.device("cpu")


class Mean(nn.Module):
    """Logits that tell which image it was, and the mode the module was in."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        assert not self.training
        assert torch.is_inference_mode_enabled()
        return images.float().mean((1, 2, 3)).unsqueeze(1) * torch.tensor([1.0, -1.0])


@pytest.mark.parametrize("training", [True, False])
def test_logits_come_in_the_order_of_the_batches_and_the_mode_is_restored(training: bool) -> None:
    images = torch.arange(7, dtype=torch.uint8).view(7, 1, 1, 1).expand(7, 2, 2, 3)
    loader = Loader(images, torch.arange(7), np.arange(7), batch=4)
    model = Mean().train(training)
    logits, labels = collect_logits(model, loader, device=CPU, label="")
    assert model.training is training
    assert logits.dtype == np.float32
    assert logits[:, 0].tolist() == labels.tolist() == list(range(7))
    with pytest.raises(DataError, match="no images"):
        collect_logits(model, replace(loader, indices=np.arange(0)), device=CPU, label="")


class Corner(nn.Module):
    """Logits that tell every pixel apart from its neighbours: a fixed weight for each, and a nonlinearity."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.weight = torch.randn(3, side, side + 1, 4, generator=torch.Generator().manual_seed(0)) / side**2

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.tanh(torch.einsum("bchw,chwk->bk", images.float(), self.weight))


@pytest.mark.parametrize("mirror", [True, False])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_views_are_averaged_as_a_plain_loop_averages_them(mirror: bool, dtype: torch.dtype) -> None:
    network = Corner(5)
    images = torch.randint(0, 256, (3, 3, 5, 6), generator=torch.Generator().manual_seed(1)).to(dtype)
    expected = np.zeros((3, 4))
    for offset, weight in (((0, 0), 0.5), ((-1, -1), 0.25), ((1, 1), 0.25)):
        rows = [abs(row + offset[0]) if row + offset[0] < 5 else 3 for row in range(5)]
        columns = [abs(column + offset[1]) if column + offset[1] < 6 else 4 for column in range(6)]
        view = images[:, :, rows][..., columns]
        views = [view, view.flip(3)] if mirror else [view]
        for each in views:
            expected += weight / len(views) * network(each).numpy()
    got = ViewsAveraged(network, mirror=mirror)(images)
    np.testing.assert_allclose(got.numpy(), expected, atol=1e-5)
    assert np.abs(expected - network(images).numpy()).max() > 0.01


@pytest.mark.parametrize(("precision", "allowed"), [("fp32", False), ("tf32", True), ("bf16", False)])
@pytest.mark.parametrize("before", [True, False])
def test_float32_is_computed_in_tf32_only_where_that_was_asked_for(
    precision: Precision, allowed: bool, before: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", before)
    with float32_kept(torch.device("cuda"), precision):
        assert torch.backends.cudnn.allow_tf32 is allowed
    assert torch.backends.cudnn.allow_tf32 is before
    with float32_kept(torch.device("cpu"), precision):
        assert torch.backends.cudnn.allow_tf32 is before


def test_what_a_process_has_set_by_the_newer_names_stays() -> None:
    code = (
        "import torch; from foveate.inference.network import float32_kept\n"
        "torch.backends.cudnn.conv.fp32_precision = 'ieee'\n"
        "with float32_kept(torch.device('cuda'), 'tf32'): print(torch.backends.cudnn.conv.fp32_precision)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "ieee\n"


def test_averaging_passes_the_mode_on_to_the_network() -> None:
    model = Mean()
    loader = Loader(torch.zeros(2, 4, 4, 3, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64), np.arange(2), 2)
    logits, _ = collect_logits(ViewsAveraged(model.train(), mirror=True), loader, device=CPU, label="")
    assert logits.tolist() == [[0, 0], [0, 0]]  # `Mean` asserts that it is in evaluation mode
    assert model.training

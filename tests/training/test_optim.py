import os

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from foveate.config import resolve_config
from foveate.training.optim import build_optimizer, learning_rate


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_updates_are_those_of_keras_adamw() -> None:
    assert os.environ["KERAS_BACKEND"] == "torch"
    import keras

    config = resolve_config("paper").train
    start = np.random.default_rng(0).normal(size=(7, 5)).astype("float32")
    gradients = np.random.default_rng(1).normal(size=(20, 7, 5)).astype("float32")
    layer = nn.Linear(5, 7, bias=False)
    layer.weight.data.copy_(torch.from_numpy(start))
    ours = build_optimizer(layer, config)
    variable = keras.Variable(start)
    theirs = keras.optimizers.AdamW()  # its defaults are what the paper used
    theirs.build([variable])
    for gradient in gradients:
        layer.weight.grad = torch.from_numpy(gradient)
        ours.step()
        theirs.apply([torch.from_numpy(gradient)])
    moved = np.abs(variable.numpy() - start).max()
    assert moved > 1e-3
    np.testing.assert_allclose(layer.weight.detach().numpy(), variable.numpy(), atol=1e-5 * moved + 1e-6)


@given(total=st.integers(1, 1000), data=st.data())
def test_cosine_falls_from_the_rate_towards_zero(total: int, data: st.DataObject) -> None:
    config = resolve_config("small", settings={"lr": 0.5}).train
    step = data.draw(st.integers(0, total - 1))
    rate = learning_rate(config, step, total)
    assert 0 < rate <= 0.5
    assert learning_rate(config, 0, total) == 0.5
    assert learning_rate(config, step + 1, total) < rate


def test_the_papers_rate_is_constant() -> None:
    config = resolve_config("paper").train
    assert {learning_rate(config, step, 100) for step in range(100)} == {1e-3}

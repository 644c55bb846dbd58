"""The paper's model against the same model in Keras, which the paper used: figure 3.1, layer by layer."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from foveate.config import resolve_config
from foveate.data.decode import decode_image
from foveate.model.build import build_model
from foveate.model.network import AttentionCNN
from foveate.preprocessing import Preprocessing

pytestmark = [
    pytest.mark.slow,
    # Keras 3.15 trips over numpy's and torch's own deprecations; what it warns of is not ours to mend.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning:keras"),
]


@pytest.fixture(scope="module")
def rows(cifar10: str) -> pa.Table:
    return pq.read_table(min(Path(cifar10).rglob("test-*.parquet"))).slice(0, 64)


@pytest.fixture(scope="module")
def images(rows: pa.Table) -> np.ndarray:
    return np.stack([decode_image(row["bytes"], Preprocessing(32)) for row in rows["img"].to_pylist()])


@pytest.fixture(scope="module")
def labels(rows: pa.Table) -> torch.Tensor:
    return torch.tensor(rows["label"].to_pylist())


def network() -> AttentionCNN:
    return build_model(resolve_config("paper").model, num_classes=10, size=32)


def figure_3_1() -> Any:
    """Figure 3.1 in Keras' functional API, but for the softmax: its logits are what is compared."""
    import keras
    from keras import layers

    inputs = keras.Input((32, 32, 3), dtype=keras.config.floatx())
    x = layers.Rescaling(1 / 255)(inputs)
    x = layers.Conv2D(64, 3, padding="same", activation="relu")(x)
    x = layers.Conv2D(64, 3, padding="same", activation="relu")(x)
    x = layers.BatchNormalization()(x)
    x = layers.MaxPooling2D(2)(x)
    x = layers.Attention()([x, x])
    x = layers.Conv2D(256, 5, padding="same", activation="relu")(x)
    x = layers.Conv2D(256, 5, padding="same", activation="relu")(x)
    x = layers.BatchNormalization()(x)
    x = layers.MaxPooling2D(3)(x)
    x = layers.Dropout(0.25)(x)
    x = layers.Flatten()(x)
    x = layers.Dense(512, activation="relu")(x)
    x = layers.Dropout(0.5)(x)
    return keras.Model(inputs, layers.Dense(10)(x))


def pairs(ours: AttentionCNN, theirs: Any) -> Iterator[tuple[torch.Tensor, Any, Any]]:
    """Our tensor, Keras' variable, and the function between their layouts (the same both ways or a pair)."""
    modules = [m for m in ours.modules() if isinstance(m, nn.Conv2d | nn.BatchNorm2d | nn.Linear)]
    layers = [layer for layer in theirs.layers if layer.weights]
    assert len(modules) == len(layers)
    flat = np.arange(5 * 5 * 256).reshape(5, 5, 256).transpose(2, 0, 1).ravel()  # Keras flattens H, W, C
    for module, layer in zip(modules, layers, strict=True):
        if isinstance(module, nn.Conv2d):
            yield (
                module.weight,
                layer.kernel,
                (lambda a: a.transpose(2, 3, 1, 0), lambda a: a.transpose(3, 2, 0, 1)),
            )
            yield module.bias, layer.bias, (np.copy, np.copy)
        elif isinstance(module, nn.BatchNorm2d):
            for name, variable in (
                ("weight", layer.gamma),
                ("bias", layer.beta),
                ("running_mean", layer.moving_mean),
                ("running_var", layer.moving_variance),
            ):
                yield getattr(module, name), variable, (np.copy, np.copy)
        elif module.in_features == 6400:
            yield module.weight, layer.kernel, (lambda a: a.T[np.argsort(flat)], lambda a: a[flat].T)
            yield module.bias, layer.bias, (np.copy, np.copy)
        else:
            yield module.weight, layer.kernel, (np.transpose, np.transpose)
            yield module.bias, layer.bias, (np.copy, np.copy)


def randomize(ours: AttentionCNN) -> None:
    """Weights as after some training: statistics and offsets that are not their initial 0 and 1."""
    generator = torch.Generator().manual_seed(3)
    for module in ours.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight.data, module.running_var):
                tensor.uniform_(0.5, 1.5, generator=generator)
            for tensor in (module.bias.data, module.running_mean):
                tensor.uniform_(-0.2, 0.2, generator=generator)


def drop_nothing(ours: AttentionCNN, theirs: Any) -> None:
    for module in ours.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    for layer in theirs.layers:
        if layer.name.startswith("dropout"):
            layer.rate = 0.0


def copy_to_keras(ours: AttentionCNN, theirs: Any) -> None:
    for tensor, variable, (to_keras, _) in pairs(ours, theirs):
        variable.assign(to_keras(tensor.detach().numpy()))


def copy_from_keras(ours: AttentionCNN, theirs: Any) -> None:
    with torch.no_grad():
        for tensor, variable, (_, to_ours) in pairs(ours, theirs):
            tensor.copy_(torch.from_numpy(np.ascontiguousarray(to_ours(variable.numpy()))))


def ours_on(model: AttentionCNN, images: np.ndarray) -> torch.Tensor:
    return model(torch.from_numpy(images).permute(0, 3, 1, 2))


def test_parameters_are_counted_alike() -> None:
    theirs = figure_3_1()
    assert theirs.count_params() == 5_370_954
    assert sum(w.numpy().size for w in theirs.non_trainable_weights) == 640


@pytest.mark.parametrize("direction", ["to keras", "from keras"])
def test_logits_are_equal_in_evaluation_mode(images: np.ndarray, direction: str) -> None:
    import keras

    keras.utils.set_random_seed(1)
    ours, theirs = network().eval(), figure_3_1()
    if direction == "to keras":
        randomize(ours)
        copy_to_keras(ours, theirs)
    else:
        copy_from_keras(ours, theirs)
    with torch.inference_mode():
        got = ours_on(ours, images).numpy()
        expected = theirs(images.astype("float32"), training=False).numpy()
    assert np.abs(expected).max() > 0.05
    np.testing.assert_allclose(got, expected, atol=1e-4)


class UnitScale(nn.Module):
    """What `Normalize` does under `normalize: unit`, in the precision of the rest of the network."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.double() / 255


@pytest.fixture
def in_float64(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Gradients are compared in float64: in float32 either's rounding switches a ReLU somewhere among the
    millions, and one that switches moves a gradient by 1 %.
    """
    import keras
    from keras.src.backend.common import dtypes

    # Off TensorFlow, Keras turns float64 back into float32 within its normalisation and attention.
    monkeypatch.setitem(dtypes.BIT64_TO_BIT32_DTYPE, "float64", "float64")
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_floatx("float32")
    keras.config.set_dtype_policy("float32")


@pytest.mark.usefixtures("in_float64")
def test_loss_and_gradients_are_equal_in_training_mode_without_dropout(
    images: np.ndarray, labels: torch.Tensor
) -> None:
    images, labels = images[:16], labels[:16]  # 64 take four times as long
    ours, theirs = network().double().train(), figure_3_1()
    randomize(ours)
    ours.normalize = UnitScale()
    drop_nothing(ours, theirs)
    copy_to_keras(ours, theirs)
    loss = F.cross_entropy(ours_on(ours, images), labels)
    loss.backward()
    reference = F.cross_entropy(theirs(images.astype("float64"), training=True), labels)
    reference.backward()
    assert loss.item() == pytest.approx(reference.item(), abs=1e-6)
    compared = 0
    for tensor, variable, (to_keras, _) in pairs(ours, theirs):
        if not isinstance(tensor, nn.Parameter):
            continue
        assert tensor.grad is not None
        expected = variable.value.grad.numpy()
        difference = np.linalg.norm(to_keras(tensor.grad.numpy()) - expected)
        assert difference <= 1e-6 * np.linalg.norm(expected)
        compared += 1
    assert compared == 16
    # Running statistics move alike but for Bessel's correction, which PyTorch applies and Keras does not.
    for tensor, variable, _ in pairs(ours, theirs):
        if not isinstance(tensor, nn.Parameter):
            np.testing.assert_allclose(tensor.numpy(), variable.numpy(), atol=1e-5, rtol=1e-3)


def test_the_loss_in_float32_is_that_of_keras(images: np.ndarray, labels: torch.Tensor) -> None:
    ours, theirs = network().train(), figure_3_1()
    drop_nothing(ours, theirs)
    copy_to_keras(ours, theirs)
    loss = F.cross_entropy(ours_on(ours, images), labels).item()
    reference = F.cross_entropy(theirs(images.astype("float32"), training=True), labels).item()
    assert loss == pytest.approx(reference, abs=1e-3)

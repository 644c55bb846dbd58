import copy
import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from foveate.config import resolve_config
from foveate.settings import TrainConfig
from foveate.training.optim import Muon, build_optimizer, orthogonalize, run_length, schedule_factor

CONDITION = 4.0
"""Of 256 rows: the least singular value is then 1/√(1 + 255·4²) = 1.57 % of the root of the sum of squares at
least, and 1.55 % is where the iterations end at 0.6. At 4.1 they can end below it."""


def train_config(**values: Any) -> TrainConfig:
    return resolve_config("minute", settings=values).train


def random_matrix(rows: int, columns: int, singular: np.ndarray, seed: int) -> tuple[np.ndarray, ...]:
    """A matrix of those singular values, and its left and right singular vectors as columns."""
    rng = np.random.default_rng(seed)
    left, _ = np.linalg.qr(rng.normal(size=(rows, len(singular))))
    right, _ = np.linalg.qr(rng.normal(size=(columns, len(singular))))
    return left * singular @ right.T, left, right


def iterated(singular: np.ndarray) -> np.ndarray:
    """What three iterations of degree five make of singular values."""
    x = singular / np.linalg.norm(singular)
    for _ in range(3):
        x = 3.4445 * x - 4.7750 * x**3 + 2.0315 * x**5
    return np.asarray(x)


def newton_schulz(matrix: np.ndarray) -> np.ndarray:
    left, singular, right = np.linalg.svd(matrix, full_matrices=False)
    return np.asarray(left * iterated(singular) @ right)


class Parts(nn.Module):
    """One parameter of each sort: kernels, a matrix, vectors, a scalar."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.first = nn.Conv2d(3, 5, 3, bias=False).to(memory_format=torch.channels_last)
        self.second = nn.Conv2d(5, 40, 1)
        self.norm = nn.BatchNorm2d(40)
        self.norm.weight.requires_grad_(False)
        self.classifier = nn.Linear(40, 4, bias=False)
        self.gate = nn.Parameter(torch.zeros(()))

    @property
    def kernels(self) -> list[Tensor]:
        return [self.first.weight, self.second.weight]


def give_gradients(model: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        if parameter.requires_grad:
            # In its parameter's memory format, as autograd makes it: the fused optimizers count on that.
            drawn = torch.randn(parameter.shape, generator=generator)
            parameter.grad = torch.empty_like(parameter).copy_(drawn)


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


@pytest.mark.slow
@settings(max_examples=25)
@given(
    rows=st.integers(1, 256),
    columns=st.integers(1, 256),
    spectrum=st.sampled_from(["even", "one small", "one large"]),
    scale=st.floats(1e-3, 1e3),
    seed=st.integers(0, 99),
)
def test_singular_values_come_near_one_and_keep_their_vectors(
    rows: int, columns: int, spectrum: str, scale: float, seed: int
) -> None:
    rank = min(rows, columns)
    singular = np.linspace(1.0, CONDITION, rank)
    if spectrum != "even":
        singular[:] = CONDITION if spectrum == "one small" else 1.0
        singular[0] = 1.0 if spectrum == "one small" else CONDITION
    matrix, left, right = random_matrix(rows, columns, singular * scale, seed)
    got = orthogonalize(torch.from_numpy(matrix).float()).double().numpy()
    assert got.shape == matrix.shape
    # In the basis of its singular vectors it is diagonal, and every entry on the diagonal is positive.
    within = left.T @ got @ right
    np.testing.assert_allclose(within, np.diag(iterated(singular)), atol=2e-4)
    assert np.diag(within).min() >= 0.6
    assert np.diag(within).max() <= 1.3


def test_a_larger_condition_number_may_leave_a_singular_value_behind() -> None:
    """So the one stated is the largest of one decimal that holds."""
    singular = np.full(256, CONDITION + 0.1)
    singular[0] = 1.0
    got = orthogonalize(torch.from_numpy(random_matrix(256, 300, singular, 0)[0]).float())
    assert torch.linalg.svdvals(got).min() < 0.6


def test_what_is_small_or_zero_stays_finite_and_keeps_its_type() -> None:
    assert not orthogonalize(torch.zeros(3, 5)).any()
    assert orthogonalize(torch.full((5, 3), 1e-30)).isfinite().all()
    assert orthogonalize(torch.eye(3, dtype=torch.float64)).dtype == torch.float64


def test_muons_first_steps_are_those_of_plain_numpy() -> None:
    model, config = Parts(), train_config(lr=0.1, momentum=0.6)
    optimizer = build_optimizer(model, config)
    expected = [kernel.detach().double().numpy().copy() for kernel in model.kernels]
    buffers = [np.zeros_like(kernel) for kernel in expected]
    for step in range(3):
        give_gradients(model, step)
        gradients = [kernel.grad.double().numpy().copy() for kernel in model.kernels if kernel.grad is not None]
        optimizer.step()
        for index, gradient in enumerate(gradients):
            buffers[index] = 0.6 * buffers[index] + gradient
            ahead = (gradient + 0.6 * buffers[index]).reshape(len(gradient), -1)
            kernel = expected[index] * np.sqrt(len(gradient)) / np.linalg.norm(expected[index])
            expected[index] = kernel - 0.1 * newton_schulz(ahead).reshape(kernel.shape)
        for kernel, reference in zip(model.kernels, expected, strict=True):
            np.testing.assert_allclose(kernel.detach().numpy(), reference, atol=1e-5)


def test_the_norm_of_a_kernel_is_the_root_of_its_rows_before_each_step() -> None:
    model = Parts()
    give_gradients(model, 0)
    Muon(model.kernels, [], lr=0.0, momentum=0.6).step()
    for kernel in model.kernels:
        assert kernel.norm().item() == pytest.approx(len(kernel) ** 0.5, rel=1e-5)


def test_a_kernel_that_begins_at_zero_moves_and_stays_finite() -> None:
    model = Parts()
    with torch.no_grad():
        model.first.weight.zero_()
    optimizer = Muon(model.kernels, [], lr=0.1, momentum=0.6)
    for step in range(2):
        give_gradients(model, step)
        optimizer.step()
        assert model.first.weight.isfinite().all()
        assert model.first.weight.norm() > 0.1


@pytest.mark.parametrize("name", ["muon", "sgd"])
def test_what_is_no_kernel_follows_torchs_nesterov(name: str) -> None:
    model = Parts()
    config = train_config(optimizer=name, batch=50, weight_decay=2e-4, head_lr=0.3, bias_lr=0.02, gate_lr=0.01)
    twin = copy.deepcopy(model)
    biases = [twin.second.bias, twin.norm.bias]
    plain = torch.optim.SGD(
        [
            {"params": [twin.classifier.weight], "lr": 0.3 * 50, "weight_decay": 2e-4 / 0.3},
            {"params": biases, "lr": 0.02 * 50, "weight_decay": 2e-4 / 0.02},
            {"params": [twin.gate], "lr": 0.01 * 50, "weight_decay": 2e-4 / 0.01},
        ],
        momentum=0.85,
        nesterov=True,
        fused=True,
    )
    optimizer = build_optimizer(model, config)
    for step in range(4):
        for each in (model, twin):
            give_gradients(each, step)
        for each, rate in ((optimizer, 1 - step / 4), (plain, 1 - step / 4)):
            for group in each.param_groups:
                group["lr"] = group.setdefault("initial_lr", group["lr"]) * rate
            each.step()
    for parameter, reference in (
        (model.classifier.weight, twin.classifier.weight),
        (model.second.bias, twin.second.bias),
        (model.norm.bias, twin.norm.bias),
        (model.gate, twin.gate),
    ):
        assert torch.equal(parameter, reference)
    assert model.gate.item() != 0


def test_sgd_moves_kernels_by_the_rate_per_image() -> None:
    model = Parts()
    before = model.first.weight.detach().clone()
    optimizer = build_optimizer(
        model, train_config(optimizer="sgd", lr=0.001, batch=20, momentum=0.6, weight_decay=0)
    )
    give_gradients(model, 0)
    optimizer.step()
    assert model.first.weight.grad is not None
    torch.testing.assert_close(model.first.weight, before - 0.02 * 1.6 * model.first.weight.grad)


@pytest.mark.parametrize("name", ["adamw", "sgd", "muon"])
def test_a_parameter_without_gradient_or_frozen_is_not_touched(name: str) -> None:
    model = Parts()
    optimizer = build_optimizer(model, train_config(optimizer=name))
    give_gradients(model, 0)
    model.first.weight.grad = None
    before = {key: value.detach().clone() for key, value in model.named_parameters()}
    optimizer.step()
    same = {key for key, value in model.named_parameters() if torch.equal(value, before[key])}
    assert same == {"first.weight", "norm.weight"}


def test_a_group_without_parameters_is_left_out() -> None:
    for name in ("sgd", "muon"):
        optimizer = build_optimizer(
            nn.Linear(3, 2), train_config(optimizer=name, batch=10, head_lr=0.67, bias_lr=0.053)
        )
        assert [group["initial_lr"] for group in optimizer.param_groups] == pytest.approx([6.7, 0.53])


@given(total=st.integers(1, 1000), data=st.data())
def test_cosine_falls_from_the_whole_rate_towards_zero(total: int, data: st.DataObject) -> None:
    config = resolve_config("small").train
    step = data.draw(st.integers(0, total - 1))
    assert 0 < schedule_factor(config, step, total) <= 1
    assert schedule_factor(config, 0, total) == 1
    assert schedule_factor(config, step + 1, total) < schedule_factor(config, step, total)


@given(total=st.integers(1, 1000), data=st.data())
def test_linear_falls_by_the_same_each_step_and_ends_at_zero(total: int, data: st.DataObject) -> None:
    config = train_config(schedule="linear")
    step = data.draw(st.integers(0, total - 1))
    assert schedule_factor(config, 0, total) == 1
    assert schedule_factor(config, total, total) == 0
    fall = schedule_factor(config, step, total) - schedule_factor(config, step + 1, total)
    assert fall == pytest.approx(1 / total)


def test_the_papers_rate_is_constant() -> None:
    config = resolve_config("paper").train
    assert {schedule_factor(config, step, 100) for step in range(100)} == {1.0}


@given(epochs=st.integers(1, 500), steps=st.integers(1, 500))
def test_epochs_are_whole(epochs: int, steps: int) -> None:
    assert run_length(train_config(epochs=epochs), steps, steps * 8) == (epochs, epochs * steps)


@given(seen=st.integers(1, 10**6), images=st.integers(1, 10**5), batch=st.integers(1, 2000))
def test_images_seen_are_shown_to_within_half_a_step(seen: int, images: int, batch: int) -> None:
    per_epoch = -(-images // batch)
    epochs, steps = run_length(train_config(images_seen=seen), per_epoch, images)
    assert (epochs - 1) * per_epoch < steps <= epochs * per_epoch
    shown = steps * images / per_epoch
    # One step is made at least.
    assert abs(shown - seen) <= images / per_epoch / 2 * (1 + 1e-9) or steps == 1


def test_the_last_epoch_may_be_cut_short() -> None:
    config = train_config(images_seen=60_000)
    assert run_length(config, 320, 40_000) == (2, 480)
    assert run_length(config, 320 * 2, 80_000) == (1, 480)
    assert run_length(train_config(images_seen=1), 320, 40_000) == (1, 1)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_without_the_compiler_every_bit_is_torchs(optimizer: str) -> None:
    ours, theirs = Parts(), Parts()
    one = build_optimizer(ours, train_config(optimizer=optimizer))
    names, mine = {id(each): name for name, each in ours.named_parameters()}, dict(theirs.named_parameters())
    groups = [
        {**group, "params": [mine[names[id(each)]] for each in group["params"]]} for group in one.param_groups
    ]
    kinds: dict[str, Any] = {"adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}
    other = kinds[optimizer](groups, fused=True)
    for step in range(3):
        generator = torch.Generator().manual_seed(step)
        for left, right in zip(ours.parameters(), theirs.parameters(), strict=True):
            left.grad = torch.randn(left.shape, generator=generator)
            right.grad = left.grad.clone()
        one.step()
        other.step()
    for left, right in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(left, right)


def test_training_does_not_import_torchs_compiler() -> None:
    """Two seconds of every process that trains; only a process of its own can tell."""
    code = (
        "import sys, torch, foveate\n"
        "from foveate.config import resolve_config\n"
        "from foveate.training.optim import build_optimizer\n"
        "for name in ('adamw', 'sgd', 'muon'):\n"
        "    network = torch.nn.Conv2d(1, 2, 3)\n"
        "    made = build_optimizer(network, resolve_config(settings={'optimizer': name}).train)\n"
        "    made.zero_grad(); network(torch.ones(1, 1, 4, 4)).sum().backward(); made.step()\n"
        "    made.load_state_dict(made.state_dict())\n"
        "assert 'torch._dynamo' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)

"""Optimizers, the learning rate's schedule and the length of a run, as pure functions of the settings."""

import math
from collections.abc import Callable, Iterable
from inspect import unwrap
from typing import Any

import torch
from torch import Tensor, nn

from foveate.model.backbones import Backbone
from foveate.settings import TrainConfig

_REST_MOMENTUM = 0.85
"""Of every weight that is not a convolution kernel, as in airbench94_muon."""


def build_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """The optimizer of `config` over what is trainable in `model`; its groups keep their rates in `initial_lr`.

    `adamw` is over every parameter, as Keras does it: the decay reaches biases and normalisation too. PyTorch
    adds epsilon after the bias correction, Keras before it (Kingma & Ba 2015, end of section 2); at 1e-7 the
    two differ by less than the last digits of a float32.

    `sgd` and `muon` tell convolution kernels from the classifier, from gates, and from biases and whatever else.
    Rates given per image are multiplied by the batch, whose mean the loss is (the linear scaling rule, Goyal et
    al. 2017, arXiv 1706.02677). `weight_decay` is per image too, and added to the gradient so that the rate
    cancels out: through the momentum m a weight shrinks by 1 / (1 - m) times it a step. Muon's kernels keep their
    norm, and have none.
    """
    trainable: list[Tensor] = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = _optimizer(model, trainable, config)
    for each in optimizer.param_groups:
        each["initial_lr"] = each["lr"]
    return optimizer


def _optimizer(model: nn.Module, trainable: list[Tensor], config: TrainConfig) -> torch.optim.Optimizer:
    if config.optimizer == "logistic_regression":  # no step is taken: it stands where a state has an optimizer
        return SGD(trainable, lr=config.lr)
    if config.optimizer == "adamw":
        backbones = [part for part in model.modules() if isinstance(part, Backbone) and config.backbone_lr]
        own = {id(parameter) for part in backbones for parameter in part.parameters()}
        groups: list[dict[str, Any]] = [
            {"params": [each for each in trainable if id(each) in own], "lr": config.backbone_lr},
            {"params": [each for each in trainable if id(each) not in own], "lr": config.lr},
        ]
        groups = [group for group in groups if group["params"]]
        return AdamW(groups, weight_decay=config.weight_decay, eps=config.epsilon, fused=True)
    kernels = [parameter for parameter in trainable if parameter.ndim == 4]
    matrices = [parameter for parameter in trainable if parameter.ndim == 2]
    biases = [parameter for parameter in trainable if parameter.ndim not in (0, 2, 4)]
    gates = [parameter for parameter in trainable if parameter.ndim == 0]

    def group(parameters: list[Tensor], rate: float, momentum: float) -> dict[str, Any]:
        return {
            "params": parameters,
            "lr": rate * config.batch,
            "momentum": momentum,
            "nesterov": momentum > 0,
            "weight_decay": config.weight_decay / rate,
        }

    rest = [
        group(parameters, rate, _REST_MOMENTUM)
        for parameters, rate in ((matrices, config.head_lr), (biases, config.bias_lr), (gates, config.gate_lr))
    ]
    if config.optimizer == "sgd":
        groups = [group(kernels, config.lr, config.momentum), *rest]
        return SGD([each for each in groups if each["params"]], fused=True)
    return Muon(kernels, rest, lr=config.lr, momentum=config.momentum)


class _Eager(torch.optim.Optimizer):
    """An optimizer that does not import torch's compiler.

    torch wraps these methods so that a compiled program leaves them out; but what is compiled here is the network
    alone. The wrappers import the compiler: two seconds of processor time in every process that trains.
    """

    add_param_group = unwrap(torch.optim.Optimizer.add_param_group)
    zero_grad = unwrap(torch.optim.Optimizer.zero_grad)
    state_dict = unwrap(torch.optim.Optimizer.state_dict)
    load_state_dict = unwrap(torch.optim.Optimizer.load_state_dict)


class AdamW(_Eager, torch.optim.AdamW):
    """torch's, without its compiler."""

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One update of every parameter that has a gradient."""
        loss: float | None = unwrap(torch.optim.AdamW.step)(self, closure)
        return loss


class SGD(_Eager, torch.optim.SGD):
    """torch's, without its compiler."""

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One update of every parameter that has a gradient."""
        loss: float | None = unwrap(torch.optim.SGD.step)(self, closure)
        return loss


class Muon(SGD):
    """Nesterov momentum, orthogonalised before it is applied, for kernels; plain Nesterov SGD for the rest.

    A kernel [out, in, k, k] is taken as a matrix of `out` rows. Before each step its norm is set to √out, so
    that the rate alone says how far a step turns it. Jordan et al., "Muon: An optimizer for hidden layers in
    neural networks", 2024; the norm as in airbench94_muon.

    Args:
        kernels: the parameters that it is for.
        rest: parameter groups of `torch.optim.SGD`.
    """

    def __init__(
        self, kernels: Iterable[Tensor], rest: Iterable[dict[str, Any]], *, lr: float, momentum: float
    ) -> None:
        # SGD without momentum or decay applies what is put in place of the kernels' gradients below.
        muon = {"params": list(kernels), "lr": lr, "weight_decay": 0.0, "nesterov": False, "muon": momentum}
        groups = [muon, *({**group, "muon": None} for group in rest)]
        super().__init__([group for group in groups if group["params"]], fused=True)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One update of every parameter that has a gradient."""
        for group in self.param_groups:
            if group["muon"] is None:
                continue
            for kernel in group["params"]:
                if kernel.grad is None:
                    continue
                state = self.state[kernel]
                if "muon_buffer" not in state:
                    state["muon_buffer"] = torch.zeros_like(kernel)
                buffer = state["muon_buffer"].mul_(group["muon"]).add_(kernel.grad)
                ahead = kernel.grad.add(buffer, alpha=group["muon"])  # Nesterov's
                norm = kernel.norm()
                # One that begins at zero stays there for its first step, and has no norm to be set.
                kernel.mul_(torch.where(norm > 0, len(kernel) ** 0.5 / norm, 1.0))
                kernel.grad.copy_(orthogonalize(ahead.flatten(1)).view_as(kernel))
        loss: float | None = super().step(closure)
        return loss


def orthogonalize(matrix: Tensor) -> Tensor:
    """About the nearest matrix [R, C] with all singular values 1, by Newton–Schulz iterations of degree five.

    The coefficients lift small singular values fastest and do not converge: after three steps those that were
    at least 2 % of the root of the sum of their squares lie in 0.6…1.3 (Jordan et al. 2024, as `Muon`).
    """
    steps, (a, b, c) = 3, (3.4445, -4.7750, 2.0315)
    wide = matrix.T if len(matrix) > matrix.shape[1] else matrix
    wide = wide / (wide.norm() + 1e-7)
    # Each step is X ← (a + b·XXᵀ + c·(XXᵀ)²)·X. The factors are symmetric and commute, so they are gathered as
    # small matrices [R, R] from the Gram matrix alone, and meet X once: less than half the arithmetic.
    gram = wide @ wide.T
    gathered = identity = torch.eye(len(wide), dtype=wide.dtype, device=wide.device)
    for step in range(steps):
        factor = torch.addmm(b * gram + a * identity, gram, gram, alpha=c)
        gathered = factor @ gathered if step else factor
        if step < steps - 1:
            gram = factor @ gram @ factor
    orthogonal = gathered @ wide
    result: Tensor = orthogonal.T if len(matrix) > matrix.shape[1] else orthogonal
    return result


def schedule_factor(config: TrainConfig, step: int, total_steps: int) -> float:
    """The share of its rate that the `step`-th update (from 0) of a run of `total_steps` has."""
    if config.schedule == "linear":
        return 1 - step / total_steps
    if config.schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * step / total_steps))
    return 1.0


def run_length(config: TrainConfig, steps_per_epoch: int, images_per_epoch: int) -> tuple[int, int]:
    """Epochs and steps of a run; where `images_seen` gives its length, its last epoch may be cut short."""
    if config.images_seen is None:
        assert config.epochs is not None  # one of the two is given: config validates it
        return config.epochs, config.epochs * steps_per_epoch
    steps = max(1, round(config.images_seen * steps_per_epoch / images_per_epoch))
    return math.ceil(steps / steps_per_epoch), steps

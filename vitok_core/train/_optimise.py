"""Weights in a step: AdamW, its schedule, the moving average.

Everything random in training is drawn from `stream`, a function of (seed, step, purpose), so no
step needs those before it and a checkpoint needs no state of a generator.

An update is made only where the guard allows it, see `_guard`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from vitok_core.dit import DiTBlock
from vitok_core.errors import SpecError
from vitok_core.layers import Block
from vitok_core.ranks import world
from vitok_core.settings import DiTTraining, Optimiser, Run, Stage1, Stage2
from vitok_core.train._guard import skip_unless
from vitok_core.train._loop import Resumable
from vitok_core.train._parallel import GradientSum
from vitok_core.train._room import Room

Model = TypeVar("Model", bound=nn.Module)

LAYERS = (nn.Linear, nn.Conv2d)
"""Layers of the models here whose weights are the matrices of `decay: matrices`."""


def learning_rate(optimiser: Optimiser, step: int, steps: int) -> float:
    """The rate of one step, from 0, of `steps`: a linear rise to `lr`, then the schedule."""
    rising = optimiser.rising(steps)
    if step < rising:
        return optimiser.lr * (step + 1) / rising
    if optimiser.schedule == "constant":
        return optimiser.lr
    done = (step - rising) / max(steps - 1 - rising, 1)
    height = 0.5 * (1 + math.cos(math.pi * done))
    return optimiser.last_lr + (optimiser.lr - optimiser.last_lr) * height


def adamw(model: nn.Module, optimiser: Optimiser, device: torch.device) -> torch.optim.AdamW:
    """A fused AdamW over all parameters of a model that are trained.

    They are one group if all of them decay, else two: first those that decay, then the others.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups: list[dict[str, Any]] = [{"params": trained}]
    if optimiser.decay == "matrices":
        matrices = {id(layer.weight) for layer in model.modules() if isinstance(layer, LAYERS)}
        groups = [
            {"params": [one for one in trained if id(one) in matrices]},
            {"params": [one for one in trained if id(one) not in matrices], "weight_decay": 0.0},
        ]
    return torch.optim.AdamW(
        groups,
        lr=optimiser.lr,
        betas=optimiser.betas,
        weight_decay=optimiser.weight_decay,
        fused=device.type in ("cpu", "cuda"),
    )


def set_learning_rate(adamw: torch.optim.AdamW, lr: float) -> None:
    """Use `lr` from the next update on."""
    for group in adamw.param_groups:
        group["lr"] = lr


def clip_gradients(parameters: Iterable[nn.Parameter], optimiser: Optimiser) -> Tensor:
    """Scale the gradients down to the largest norm allowed, if any; their norm before, a scalar."""
    parameters = list(parameters)
    if optimiser.clip is None:
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        return nn.utils.get_total_norm(gradients)
    return nn.utils.clip_grad_norm_(parameters, optimiser.clip)


def stream(seed: int, step: int, *, purpose: int) -> int:
    """A 63-bit seed for one purpose at one step, counter-based (Salmon et al. 2011)."""
    word = np.random.Philox(key=[seed, step], counter=[0, 0, 0, purpose]).random_raw()
    return int(word) >> 1


class Ema:
    """Exponential moving average of a module's parameters, kept in float32.

    It begins with the weights it is given, so it is usable from the first step.

    Args:
        module: whose parameters are averaged.
        decay: share of the old average that an update keeps, from 0 to below 1.

    Raises:
        SpecError: a decay out of range.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        if not 0 <= decay < 1:
            raise SpecError("ema", f"ema = {decay!r}: must be from 0 to below 1, or None")
        self.decay = decay
        self._update = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]  # torch has no type
        self._average = {
            name: parameter.detach().to(torch.float32, copy=True)
            for name, parameter in module.named_parameters()
        }

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """average = decay * average + (1 - decay) * parameters."""
        current = [parameter.detach().float() for parameter in module.parameters()]
        self._update(list(self._average.values()), current, 0)

    @torch.no_grad()
    def store(self, module: nn.Module) -> None:
        """Put the average into the module's parameters."""
        for name, parameter in module.named_parameters():
            parameter.copy_(self._average[name])

    def state_dict(self) -> dict[str, Tensor]:
        """The average by name of the parameter, for checkpoints."""
        return dict(self._average)

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue from what `state_dict` returned."""
        for name, average in self._average.items():
            average.copy_(state[name])


def compiled(model: nn.Module) -> nn.Module:
    """The model compiled, for fixed shapes: a short last micro-batch is compiled once more.

    As one graph in one process. In several, each block of its towers is a graph of its own: one
    graph would hand over all gradients at its end, and none could be sent before.
    """
    if world().size == 1:
        return torch.compile(model, dynamic=False)  # type: ignore[return-value]  # it is a module
    for block in model.modules():
        if isinstance(block, Block | DiTBlock):
            block.compile(dynamic=False)
    return model


class Learner(Generic[Model]):
    """A model in training, with its optimiser and, if asked for, the average of its weights.

    Args:
        model: on its device, with its first weights; what needs no gradient is not trained.
        config: of the stage.
        run: how it is run, see `fitted`.
        others: modules whose backward passes come before the model's in every micro-batch, and
            whose gradients are added up over the processes with the model's.

    Attributes:
        room: how many samples are in memory together.
    """

    def __init__(
        self,
        model: Model,
        config: Stage1 | Stage2 | DiTTraining,
        run: Run,
        *,
        others: Sequence[nn.Module] = (),
    ) -> None:
        self.model, self.optimiser = model.train(), config.optimiser
        self.device = torch.device(run.device)
        micro_batch = None if run.micro_batch == "auto" else run.micro_batch
        self.room = Room(micro_batch, self.device, GradientSum(*others, model))
        self.adamw = adamw(model, config.optimiser, self.device)
        self.ema = None if config.ema is None else Ema(model, config.ema)
        self._bf16 = config.precision == "bf16"
        self._call = compiled(model) if config.compile else model

    @property
    def resumable(self) -> dict[str, Resumable | None]:
        """What a checkpoint keeps of it."""
        return {"model": self.model, "adamw": self.adamw, "ema": self.ema}

    def forward(self, *inputs: Tensor | None) -> Any:
        """The model's output, compiled and in the stage's precision where it asks for that."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self._bf16):
            return self._call(*inputs)

    def clip(self) -> Tensor:
        """Clip the gradients; their norm before, a scalar."""
        return clip_gradients(self.model.parameters(), self.optimiser)

    def update(self, lr: float, ok: Tensor) -> None:
        """Change the weights, and their average.

        Args:
            lr: learning rate.
            ok: boolean scalar on the device; if false, the weights stay as they are, and the
                average takes them in once more.
        """
        set_learning_rate(self.adamw, lr)
        skip_unless(self.adamw, ok)
        self.adamw.step()
        if self.ema is not None:
            self.ema.update(self.model)

    def take_average(self) -> Model:
        """The model at the end of training: with the average in place of its weights, if any."""
        if self.ema is not None:
            self.ema.store(self.model)
        return self.model

"""How does the other side of stage 2 take its steps? The discriminator, its optimiser, its watch.

Decoder and discriminator take their steps at the same time: both gradients are computed from the
same samples, the same reconstructions and the weights before the step. So there is no order to
choose, one pass of the tokenizer and one of the discriminator over the reconstructions serve both,
and what is not finite on either side stops the step before either has changed.

The loop calls, in this order: `begin_step`; for every micro-batch `judge`, and `measure` if the
decoder is pulled; `finish_gradients`; `end_step`; and, if everything is finite, `update`.

Watched over windows of 100 steps after the discriminator's warm-up; each gives one event when it
begins, and nothing stops:

    discriminator wins    its mean hinge loss is below 0.02: it leaves the decoder nothing to learn
    discriminator blind   its mean logit of real images is not even 0.02 above that of reconstructed
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from vitok_core.discriminator import Discriminator
from vitok_core.losses import (
    LogitMeans,
    adaptive_factor,
    discriminator_loss,
    generator_loss,
    moved,
)
from vitok_core.settings import Adversarial, Optimiser
from vitok_core.train._optimise import adamw, clip_gradients, set_learning_rate
from vitok_core.train._parallel import sum_gradients, sum_tensor
from vitok_core.train._progress import Event, History

WATCH_STEPS = 100
WINS_HINGE = 0.02
BLIND_GAP = 0.02


class Adversary:
    """The discriminator in training.

    Args:
        loss: its terms and its weight for the decoder.
        optimiser: AdamW and schedule.
        resolution: side of the images in pixels.
        width: factor of its channels.
        seed: of its first weights.
        device: where it runs.

    Raises:
        SpecError: see `vitok_core.discriminator.check_discriminator`.
    """

    def __init__(
        self,
        loss: Adversarial,
        optimiser: Optimiser,
        *,
        resolution: int,
        width: float,
        seed: int,
        device: torch.device,
    ) -> None:
        # Drawn on the CPU from a generator of its own: the same on every device.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.network = Discriminator(resolution, width)
        self.network.to(device)
        self.loss, self.optimiser = loss, optimiser
        self.adamw = adamw(self.network.parameters(), optimiser, device)
        self._means: LogitMeans | None = None  # for LeCam
        self._factor = 0.0  # of the weight if it is adaptive: measured in the step before
        self._last_gradients: list[Tensor] = []

    def begin_step(self) -> float:
        """Forget the gradients of the step before; the factor of the decoder's weight."""
        self.adamw.zero_grad(set_to_none=True)
        self._last_gradients = []
        return self._factor if self.loss.adaptive else 1.0

    def judge(
        self, x: Tensor, x_hat: Tensor, *, share: float, pulls: bool
    ) -> tuple[Tensor | None, dict[str, Tensor]]:
        """Add the gradient of a micro-batch to the discriminator.

        Args:
            x: originals, (b, 3, H, W) or (b, 3, T, H, W), in [-1, 1].
            x_hat: reconstructions with their graph, which is left for the decoder.
            share: of the micro-batch in the global batch.
            pulls: whether the decoder is pulled in this step.

        Returns:
            The gradient of -mean(D(x_hat)) by x_hat, or None; and the detached parts: those of
            `discriminator_loss` and, if the decoder is pulled, "adversarial".
        """
        fake_logits = self.network(x_hat)
        pull, parts = None, {}
        if pulls:
            term = generator_loss(fake_logits)
            (pull,) = torch.autograd.grad(term, x_hat, retain_graph=True)
            parts["adversarial"] = term.detach()
        real = x.detach().requires_grad_(self.loss.r1 > 0)
        total, own = discriminator_loss(
            self.loss, real, self.network(real), fake_logits, self._means
        )
        # By its own weights only: below x_hat stands the decoder's graph.
        torch.autograd.backward(share * total, inputs=list(self.network.parameters()))
        return pull, {**parts, **own}

    def measure(
        self, others: Tensor, x_hat: Tensor, pull: Tensor, last: Tensor, *, share: float
    ) -> None:
        """Add a micro-batch to what the adaptive weight compares; nothing if it is not adaptive.

        Args:
            others: the decoder's other losses, a scalar with its graph.
            x_hat: reconstructions with their graph.
            pull: from `judge`.
            last: weight of the decoder's last layer.
            share: of the micro-batch in the global batch.
        """
        if not self.loss.adaptive:
            return
        (by_others,) = torch.autograd.grad(others, last, retain_graph=True)
        (by_pull,) = torch.autograd.grad(x_hat, last, pull, retain_graph=True)
        found = [share * by_others, share * by_pull]
        before = self._last_gradients or [torch.zeros_like(part) for part in found]
        self._last_gradients = [a + b for a, b in zip(before, found, strict=True)]

    def finish_gradients(self) -> list[Tensor]:
        """Add gradients up over the processes and clip them; scalars for `end_step`.

        The first is the norm of the discriminator's gradient before clipping; two more follow if
        the adaptive weight was measured.
        """
        sum_gradients(self.network.parameters())
        norm = clip_gradients(self.network.parameters(), self.optimiser)
        return [norm, *(sum_tensor(gradient).norm() for gradient in self._last_gradients)]

    def end_step(self, parts: Mapping[str, float], last_norms: Sequence[float]) -> None:
        """Take note of the step for the next one: logits for LeCam, factor for the weight."""
        self._means = moved(self._means, parts["real_logit"], parts["fake_logit"])
        if last_norms:
            self._factor = adaptive_factor(*last_norms)

    def update(self, lr: float) -> None:
        """Change the discriminator's weights."""
        set_learning_rate(self.adamw, lr)
        self.adamw.step()

    def state_dict(self) -> dict[str, Any]:
        """Everything the next step depends on, for checkpoints."""
        means = self._means
        return {
            "network": self.network.state_dict(),
            "adamw": self.adamw.state_dict(),
            "means": None if means is None else [means.real, means.fake],
            "factor": self._factor,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from what `state_dict` returned."""
        self.network.load_state_dict(state["network"])
        self.adamw.load_state_dict(state["adamw"])
        means = state["means"]
        self._means = None if means is None else LogitMeans(real=means[0], fake=means[1])
        self._factor = state["factor"]


class CollapseWatch:
    """Sees a discriminator that always wins or sees nothing, by the rules at the top of this file.

    Args:
        history: where the terms of the steps are; without a discriminator's there are no events.
        since: first step that counts, the end of the discriminator's warm-up.
    """

    def __init__(self, history: History, *, since: int) -> None:
        self.history, self.since = history, since
        self._shown = set[str]()
        self._looked = -1

    def look(self, step: int) -> None:
        """Record the events that begin with this step, from 0, of the history."""
        # After a resume the window of the step before says what has been told already.
        before = self._shown if self._looked == step - 1 else set(self._collapses(step - 1))
        now = self._collapses(step)
        for kind, text in now.items():
            if kind not in before:
                self.history.events.append(Event(step=step + 1, kind=kind, text=text))
        self._shown, self._looked = set(now), step

    def _collapses(self, step: int) -> dict[str, str]:
        if step + 1 < self.since + WATCH_STEPS:
            return {}
        windows = [
            self.history.before(step + 1, name, WATCH_STEPS)
            for name in ("hinge", "real_logit", "fake_logit")
        ]
        if any(len(values) < WATCH_STEPS for values in windows):
            return {}
        hinge, real, fake = (math.fsum(values) / WATCH_STEPS for values in windows)
        found = {}
        if hinge < WINS_HINGE:
            found["discriminator wins"] = (
                f"step {step + 1}: the discriminator wins, mean hinge loss {hinge:.2g} over "
                f"{WATCH_STEPS} steps; lower its lr, or give it R1"
            )
        if real - fake < BLIND_GAP:
            found["discriminator blind"] = (
                f"step {step + 1}: the discriminator is blind, mean logits {real:.3g} of real and "
                f"{fake:.3g} of reconstructed images over {WATCH_STEPS} steps; raise its lr"
            )
        return found

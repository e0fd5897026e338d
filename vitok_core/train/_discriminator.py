"""The discriminator of stage 2: its gradients and updates, and when it has collapsed.

Decoder and discriminator take their steps at the same time: both gradients are computed from the
same samples, the same reconstructions and the weights before the step. So there is no order to
choose, one forward pass of the tokenizer and one of the discriminator over the reconstructions
serve both, and what is not finite on either side stops the step before either has changed.

The loop calls, in this order: `begin_step`, again where a try did not fit the memory; per
micro-batch `backward`, and `compare` where the generator loss has weight; `finish_gradients`;
`end_step` and `update`, which change nothing unless everything is finite.

Watched over windows of 100 steps after the discriminator's warm-up; each gives one event when it
begins, and nothing stops:

    discriminator wins    its mean hinge loss is below 0.02: the decoder learns nothing from it
    discriminator blind   its mean logit of real images is not even 0.02 above that of reconstructed
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from vitok_core.discriminator import Discriminator
from vitok_core.features import compiled, placed
from vitok_core.losses import (
    LogitMeans,
    adaptive_factor,
    discriminator_loss,
    generator_loss,
    moved,
)
from vitok_core.settings import Adversarial, Optimiser
from vitok_core.spec import NetworkPrecision
from vitok_core.train._guard import skip_unless
from vitok_core.train._history import History
from vitok_core.train._optimise import adamw, clip_gradients, set_learning_rate
from vitok_core.train._parallel import sum_tensor
from vitok_core.train._progress import Event

WATCH_STEPS = 100
WINS_HINGE = 0.02
BLIND_GAP = 0.02


class DiscriminatorLearner:
    """The discriminator in training.

    Args:
        loss: its terms, and the weight of the generator loss.
        optimiser: AdamW and schedule.
        resolution: side of the images in pixels.
        width: factor of its channels.
        seed: of its first weights.
        device: where it runs.
        precision: of its passes.
        fast: whether to compile it on a GPU. Passes that R1 differentiates twice are not.

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
        precision: NetworkPrecision = "tf32",
        fast: bool = False,
    ) -> None:
        # Drawn on the CPU from a generator of its own: the same on every device.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = Discriminator(resolution, width, bf16=precision == "bf16")
        self.network = placed(network, device)
        self._fake = compiled(self.network, device) if fast else self.network
        self._real = self.network if loss.r1 > 0 else self._fake
        self.loss, self.optimiser = loss, optimiser
        self.adamw = adamw(self.network, optimiser, device)
        self._means = LogitMeans.none(device)
        # Of the adaptive weight: measured in the step before, 0 at first.
        self._factor = torch.zeros((), dtype=torch.float64, device=device)
        self._last_gradients: list[Tensor] = []

    @property
    def factor(self) -> Tensor:
        """What the weight of the generator loss is multiplied by in this step: float64 scalar."""
        return self._factor if self.loss.adaptive else torch.ones_like(self._factor)

    def begin_step(self) -> None:
        """Forget what the adaptive weight compares; gradients are zeroed by `Room.tries`."""
        self._last_gradients = []

    def backward(
        self, x: Tensor, x_hat: Tensor, *, share: float, generator: bool
    ) -> tuple[Tensor | None, dict[str, Tensor]]:
        """Add the gradient of a micro-batch to the discriminator.

        Args:
            x: originals, (b, 3, H, W) or (b, 3, T, H, W), in [-1, 1].
            x_hat: reconstructions with their graph, which is left for the decoder.
            share: of the micro-batch in the global batch.
            generator: whether the generator loss has weight in this step.

        Returns:
            The gradient of the generator loss -mean(D(x_hat)) with respect to x_hat, or None; and
            the detached parts: those of `discriminator_loss` and, with a generator loss,
            "adversarial".
        """
        fake_logits = self._fake(x_hat)
        gradient, parts = None, {}
        if generator:
            term = generator_loss(fake_logits)
            (gradient,) = torch.autograd.grad(term, x_hat, retain_graph=True)
            parts["adversarial"] = term.detach()
        real = x.detach().requires_grad_(self.loss.r1 > 0)
        total, own = discriminator_loss(self.loss, real, self._real(real), fake_logits, self._means)
        # With respect to its own weights only: below x_hat is the decoder's graph.
        torch.autograd.backward(share * total, inputs=list(self.network.parameters()))
        return gradient, {**parts, **own}

    def compare(
        self, others: Tensor, x_hat: Tensor, gradient: Tensor, last: Tensor, *, share: float
    ) -> None:
        """Add a micro-batch to what the adaptive weight compares; nothing if it is not adaptive.

        Args:
            others: the decoder's other losses, a scalar with its graph.
            x_hat: reconstructions with their graph.
            gradient: of the generator loss, from `backward`.
            last: weight of the decoder's last layer.
            share: of the micro-batch in the global batch.
        """
        if not self.loss.adaptive:
            return
        (of_others,) = torch.autograd.grad(others, last, retain_graph=True)
        (of_generator,) = torch.autograd.grad(x_hat, last, gradient, retain_graph=True)
        found = [share * of_others, share * of_generator]
        before = self._last_gradients or [torch.zeros_like(part) for part in found]
        self._last_gradients = [a + b for a, b in zip(before, found, strict=True)]

    def finish_gradients(self) -> list[Tensor]:
        """Clip the gradients, which are those of all processes; scalars for `end_step`.

        The first is the norm of the discriminator's gradient before clipping; two more follow if
        the adaptive weight was measured.
        """
        norm = clip_gradients(self.network.parameters(), self.optimiser)
        return [norm, *(sum_tensor(gradient).norm() for gradient in self._last_gradients)]

    def end_step(self, ok: Tensor, real: Tensor, fake: Tensor, last_norms: Tensor) -> None:
        """Keep what the next step needs: mean logits for LeCam, the factor of the weight.

        Args:
            ok: boolean scalar on the device; if false, everything stays as it is.
            real: mean logit of real images over the global batch, float64.
            fake: mean logit of reconstructions, float64.
            last_norms: float64, (2,) where the adaptive weight was measured, else (0,).
        """
        self._means = moved(self._means, real, fake, ok)
        if len(last_norms):
            self._factor = torch.where(ok, adaptive_factor(*last_norms), self._factor)

    def update(self, lr: float, ok: Tensor) -> None:
        """Change the weights, unless `ok` is false."""
        set_learning_rate(self.adamw, lr)
        skip_unless(self.adamw, ok)
        self.adamw.step()

    def state_dict(self) -> dict[str, Any]:
        """Everything the next step depends on, for checkpoints."""
        means = self._means
        return {
            "network": self.network.state_dict(),
            "adamw": self.adamw.state_dict(),
            "means": [means.real, means.fake, means.known],
            "factor": self._factor,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from what `state_dict` returned."""
        self.network.load_state_dict(state["network"])
        self.adamw.load_state_dict(state["adamw"])
        # Checkpoints of the first format have floats, None before the first batch.
        real, fake, known = (*(state["means"] or (0.0, 0.0, 0.0)), 1.0)[:3]
        self._means = LogitMeans(real=self._own(real), fake=self._own(fake), known=self._own(known))
        self._factor = self._own(state["factor"])

    def _own(self, value: float | Tensor) -> Tensor:
        return torch.as_tensor(value, dtype=torch.float64, device=self._factor.device)


class CollapseWatch:
    """Events of a discriminator that always wins or sees nothing, by the rules of this module.

    Args:
        history: where the terms of the steps are; none of a discriminator, no events.
        since: first step that counts, the end of the discriminator's warm-up.
    """

    def __init__(self, history: History, *, since: int) -> None:
        self.history, self.since = history, since
        self._shown = set[str]()
        self._looked = -1

    def look(self, step: int) -> None:
        """Record the events that begin with this step, from 0, of the history."""
        # After a resume the window of the step before tells which events there are already.
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

"""How samples are drawn from a generator: sampler, steps, guidance."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, Self

from typing_extensions import Doc

from vitok_core.settings._fields import Count, Mistake, Share, Weight, check_bounds, raise_first
from vitok_core.spec import DiTSpec, Flops, Precision, Target, in_precision

SamplerName = Literal["ddim", "ddpm", "euler"]
Spacing = Literal["sections", "stride"]

DIFFUSION_STEPS = 1000
"""Steps of the process that targets eps and v are trained on; a sampler visits some of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How samples are drawn from a generator."""

    PLACE: ClassVar = "evaluate.generation"

    cfg: Annotated[Weight, Doc("Scale of classifier-free guidance; 1 for none.")] = 1.5
    cfg_interval: Annotated[
        tuple[Share, Share] | None,
        Doc("Times, from 0 (clean) to 1 (noise), between which guidance is on; null: all."),
    ] = None
    steps: Annotated[Count, Doc("Steps of the sampler.")] = 250
    sampler: Annotated[
        SamplerName | None,
        Doc("null: ddim for targets eps and v, euler for flow, the only one there."),
    ] = None
    spacing: Annotated[Spacing, Doc("Which of the 1000 times ddim and ddpm visit.")] = "sections"
    eta: Annotated[Share, Doc("Noise that ddim adds: from 0, none, to 1, that of ddpm.")] = 0.0
    precision: Annotated[Precision, Doc("Arithmetic of the DiT.")] = "fp32"

    def sampler_for(self, target: Target) -> SamplerName:
        """The sampler that these settings mean for a target."""
        return self.sampler or _samplers(target)[0]

    def mistakes(
        self,
        target: Target,
        classes: int | None,
        class_dropout: float | None = None,
        learned: str = "what it learned from",
    ) -> Iterator[Mistake]:
        """What is wrong with these settings for a generator, besides bounds.

        Args:
            target: what it predicts.
            classes: number of labels; None where it is not known.
            class_dropout: share of labels that were left out in its training, None if not known.
            learned: name of the data set it was trained on.
        """
        yield from self._of_sampler(target)
        interval, cfg = self.cfg_interval, self.cfg
        if interval is not None and interval[0] > interval[1]:
            yield self._wrong(
                "cfg_interval", "the smaller share comes first: from 0 (clean) to 1 (noise)"
            )
        if cfg == 1 and interval is not None:
            yield self._wrong(
                "cfg_interval", "there is no guidance with cfg 1; leave the interval out"
            )
        if cfg == 1:
            return
        if classes == 0:
            yield self._wrong(
                "cfg",
                f"cfg = {cfg:g}: {learned} has no labels, and a DiT without classes cannot be "
                "guided; set cfg to 1",
            )
        elif class_dropout == 1:
            yield self._wrong(
                "cfg",
                f"cfg = {cfg:g} guides by labels, and with class_dropout 1 none is ever learned; "
                "set cfg to 1 or stages.dit.class_dropout to 0.1",
            )
        elif class_dropout == 0:
            yield self._wrong(
                "cfg",
                f"cfg = {cfg:g} compares with a DiT that is told no label, and class_dropout is 0, "
                "so it never learned without; set cfg to 1 or stages.dit.class_dropout to 0.1",
            )

    def _of_sampler(self, target: Target) -> Iterator[Mistake]:
        allowed, steps, sampler = _samplers(target), self.steps, self.sampler_for(target)
        if sampler not in allowed:
            yield self._wrong(
                "sampler",
                f"sampler = {sampler}: a DiT of target {target} is sampled by "
                f"{' or '.join(allowed)}; leave sampler out",
            )
        elif sampler == "euler":
            if self.spacing != "sections":
                yield self._wrong("spacing", "the steps of euler are equal; leave spacing out")
        elif steps > DIFFUSION_STEPS:
            yield self._wrong("steps", f"steps = {steps}: must be from 1 to {DIFFUSION_STEPS}")
        elif self.spacing == "stride" and stride_of(steps) is None:
            yield self._wrong(
                "steps",
                f"steps = {steps}: no whole stride visits that many of {DIFFUSION_STEPS} steps; "
                f"use a divisor of {DIFFUSION_STEPS} or spacing sections",
            )
        if self.eta != 0 and sampler != "ddim":
            yield self._wrong("eta", f"eta = {self.eta:g}: only ddim has it, not {sampler}")

    def _wrong(self, name: str, message: str) -> Mistake:
        return Mistake(path=f"{self.PLACE}.{name}", message=message)

    def check(self, target: Target, classes: int) -> Self:
        """Return the settings themselves if they can be used for a generator.

        Raises:
            SpecError: a value out of range or without effect; `field` names it.
        """
        check_bounds(self)
        raise_first(self.mistakes(target, classes))
        return self

    def flops(self, dit: DiTSpec, samples: int) -> Flops:
        """Operations of the generator: a prediction per step, two where guidance is on."""
        low, high = self.cfg_interval or (0.0, 1.0)
        guided = round(self.steps * (high - low)) if self.cfg != 1 else 0
        return in_precision(2 * dit.macs * (self.steps + guided) * samples, self.precision)


def _samplers(target: Target) -> tuple[SamplerName, ...]:
    return ("euler",) if target == "flow" else ("ddim", "ddpm")


def stride_of(steps: int) -> int | None:
    """The first whole stride from 0 that visits as many of the 1000 steps; None if none does."""
    strides = range(1, DIFFUSION_STEPS + 1)
    return next((k for k in strides if len(range(0, DIFFUSION_STEPS, k)) == steps), None)

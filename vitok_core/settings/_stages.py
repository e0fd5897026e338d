"""The stages: how tokenizer, discriminator and DiT are trained, and how a training is run."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal, Self

from annotated_types import Ge, Gt, Le, Lt
from typing_extensions import Doc

from vitok_core.errors import SpecError
from vitok_core.settings._fields import (
    AddedLater,
    Count,
    Decay,
    Elsewhere,
    Mistake,
    Share,
    check_bounds,
    raise_first,
)
from vitok_core.settings._losses import LR_RULE, Adversarial, Loss, Optimiser
from vitok_core.spec import (
    DiTSpec,
    Flops,
    Memory,
    NetworkPrecision,
    Precision,
    Target,
    TokenizerSpec,
    check_discriminator,
    discriminator_macs,
    discriminator_memory,
    dit_memory,
    dit_training_flops,
    in_precision,
    of_networks,
    tokenizer_memory,
    training_flops,
)

Seed = Annotated[
    int,
    Ge(0),
    Lt(2**63),
    Doc("Of initial weights, data order, mirroring, noise and everything else that is drawn."),
    Elsewhere("seed"),
]

StoredType = Literal["float32", "bfloat16"]
"""How numbers can be stored on disk; they are computed in float32."""

INITIAL_SHARE = 0.05
"""With more of the initial weights than this left in the average, a training was too short."""


def whole_steps(steps: int | None) -> int:
    """The number of steps of a training.

    Raises:
        SpecError: there is none, which means that the stage is left out.
    """
    if steps is None:
        raise SpecError("steps", "steps = None: a stage is trained with a number of steps")
    return steps


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage1:
    """Stage 1: the auto-encoder without an adversary."""

    PLACE: ClassVar = "stages.stage1"

    steps: Annotated[Count, Doc("Optimiser steps.")] = 100_000
    batch: Annotated[Count, Doc("Images or clips per step, over all devices.")] = 1024
    precision: Annotated[Precision, Doc("Arithmetic of the model; losses are float32.")] = "bf16"
    network_precision: Annotated[
        NetworkPrecision,
        Doc(
            "Arithmetic of LPIPS and DINOv2: fp32, tf32 (fp32, but TF32 in convolutions on GPUs "
            "that have it) or bf16."
        ),
        AddedLater(before="tf32"),
    ] = "tf32"
    flip: Annotated[bool, Doc("Mirror each training sample with probability one half.")] = True
    compile: Annotated[
        bool,
        Doc("Compile the model by torch.compile, on GPUs also LPIPS and DINOv2."),
        AddedLater(before=False),
    ] = False
    ema: Annotated[
        Decay | None,
        Doc("Decay of a moving average of the weights, which is then the result."),
        AddedLater(before=None),
    ] = None
    optimiser: Annotated[Optimiser, Doc("AdamW of the model.")] = Optimiser()
    loss: Annotated[Loss, Doc("Terms and their weights.")] = field(default_factory=lambda: Loss())
    seed: Seed = 0

    def mistakes(self, spec: TokenizerSpec) -> Iterator[Mistake]:
        """What is wrong with these settings for a tokenizer, besides bounds."""
        yield from self.optimiser.mistakes(f"{self.PLACE}.optimiser", self.steps)
        yield from self.loss.mistakes(spec, f"{self.PLACE}.loss")

    def check(self, spec: TokenizerSpec) -> Self:
        """Return the settings themselves if they can be used for `spec`.

        Raises:
            SpecError: a value out of range, or one that does not go with the others.
        """
        check_bounds(self)
        raise_first(self.mistakes(spec))
        return self

    def flops(self, spec: TokenizerSpec) -> Flops:
        """Operations of all steps; what is counted is said in `vitok_core.spec._training`."""
        samples = self.steps * self.batch
        return in_precision(training_flops(spec, samples), self.precision) + self.loss.flops(
            spec, samples, self.network_precision
        )

    def memory(self, spec: TokenizerSpec, *, recompute: bool = False) -> Memory:
        """Device memory of a training; what is counted is said in `vitok_core.spec._memory`."""
        tokenizer = tokenizer_memory(
            spec, self.precision, averaged=self.ema is not None, recompute=recompute
        )
        return tokenizer + self.loss.memory(spec, self.network_precision)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage2:
    """Stage 2: the decoder goes on against a discriminator; only with a number of steps."""

    PLACE: ClassVar = "stages.stage2"

    steps: Annotated[
        Count | None, Doc("Optimiser steps; null for no stage 2. The paper's is 100k.")
    ] = None
    batch: Annotated[Count, Doc("Images or clips per step, over all devices.")] = 256
    precision: Annotated[Precision, Doc("Arithmetic of the tokenizer; losses are float32.")] = (
        "bf16"
    )
    network_precision: Annotated[
        NetworkPrecision,
        Doc(
            "Arithmetic of the discriminator, LPIPS and DINOv2: fp32, tf32 (fp32, but TF32 in "
            "convolutions on GPUs that have it) or bf16."
        ),
        AddedLater(before="tf32"),
    ] = "tf32"
    flip: Annotated[bool, Doc("Mirror each training sample with probability one half.")] = True
    compile: Annotated[
        bool,
        Doc(
            "Compile the tokenizer by torch.compile, on GPUs also LPIPS, DINOv2 and the "
            "discriminator."
        ),
    ] = False
    ema: Annotated[
        Decay | None,
        Doc(
            "Decay of a moving average of the weights, which begins with those of stage 1 and is "
            "then the result; null for none."
        ),
    ] = 0.9999
    train: Annotated[
        Literal["decoder", "all"],
        Doc("decoder: the encoder is frozen, codes stay as they are; all: both."),
    ] = "decoder"
    discriminator_width: Annotated[
        float, Gt(0), Le(4), Doc("Factor of the discriminator's channels; 1 is the paper's.")
    ] = 1.0
    optimiser: Annotated[
        Optimiser, Doc("AdamW of the tokenizer; the paper's lr 1e-4 is of a batch of 256.")
    ] = Optimiser(lr=1e-4)
    discriminator: Annotated[
        Optimiser,
        Doc(
            "AdamW of the discriminator: a low constant rate, after a short warm-up. The paper's "
            "best lr 2e-5 is of a batch of 256."
        ),
    ] = Optimiser(lr=2e-5, warmup=0.025, schedule="constant")
    loss: Annotated[Loss, Doc("Terms of stage 1, which stay on; KL only with train: all.")] = field(
        default_factory=lambda: Loss()
    )
    adversarial: Annotated[Adversarial, Doc("The discriminator's terms.")] = Adversarial()
    seed: Seed = 0

    @property
    def trained_loss(self) -> Loss:
        """The terms that have something to train: `loss`, without KL if the encoder is frozen."""
        return self.loss if self.train == "all" else dataclasses.replace(self.loss, kl=0.0)

    @property
    def fools(self) -> bool:
        """Whether there is a discriminator."""
        return self.adversarial.weight > 0

    def mistakes(self, spec: TokenizerSpec) -> Iterator[Mistake]:
        """What is wrong with these settings for a tokenizer, besides bounds."""
        yield from self.optimiser.mistakes(f"{self.PLACE}.optimiser", self.steps)
        trains_code = self.train == "all"
        yield from self.loss.mistakes(spec, f"{self.PLACE}.loss", trains_code=trains_code)
        if not self.fools:
            return
        yield from self.discriminator.mistakes(f"{self.PLACE}.discriminator", self.steps)
        try:
            check_discriminator(spec.resolution, self.discriminator_width)
        except SpecError as error:
            group = "data" if error.field == "resolution" else self.PLACE
            yield Mistake(path=f"{group}.{error.field}", message=error.message)

    def check(self, spec: TokenizerSpec) -> Self:
        """Return the settings themselves if they can be used for `spec`.

        Raises:
            SpecError: a value out of range, one that does not go with the others, or no steps.
        """
        whole_steps(self.steps)
        check_bounds(self)
        raise_first(self.mistakes(spec))
        return self

    def flops(self, spec: TokenizerSpec) -> Flops:
        """Operations of all steps; what is counted is said in `vitok_core.spec._training`.

        Raises:
            SpecError: no discriminator can be built for that resolution and width, or no steps.
        """
        steps = whole_steps(self.steps)
        samples = steps * self.batch
        flops = in_precision(training_flops(spec, samples, train=self.train), self.precision)
        flops += self.loss.flops(spec, samples, self.network_precision)
        if self.fools:
            macs = discriminator_macs(spec.resolution, self.discriminator_width)
            pulled = max(steps - self.adversarial.start, 0)
            passes = steps * (9 if self.adversarial.r1 > 0 else 6) + pulled
            one = Flops(tf32=2 * macs * passes * self.batch * spec.frames)
            flops += of_networks(one, self.network_precision)
        return flops

    def memory(self, spec: TokenizerSpec, *, recompute: bool = False) -> Memory:
        """Device memory of a training; what is counted is said in `vitok_core.spec._memory`.

        Raises:
            SpecError: no discriminator can be built for that resolution and width.
        """
        total = self.loss.memory(spec, self.network_precision) + tokenizer_memory(
            spec,
            self.precision,
            averaged=self.ema is not None,
            recompute=recompute,
            trains_encoder=self.train == "all",
        )
        if self.fools:
            one = discriminator_memory(
                spec.resolution,
                self.discriminator_width,
                r1=self.adversarial.r1 > 0,
                precision=self.network_precision,
            )
            total += Memory(fixed=one.fixed, per_sample=one.per_sample * spec.frames)
        return total


@dataclass(frozen=True, slots=True, kw_only=True)
class Latents:
    """The codes that a DiT learns from, computed once per tokenizer."""

    PLACE: ClassVar = "stages.latents"

    normalisation: Annotated[
        Literal["none", "scalar", "per-channel"],
        Doc(
            "none: as they are (the paper's); scalar: one standard deviation; per-channel: mean "
            "and standard deviation of every channel."
        ),
    ] = "none"
    flip: Annotated[bool, Doc("Learn from mirrored samples too.")] = True
    dtype: Annotated[
        StoredType,
        Doc("How they are stored; bfloat16 needs half the disk and keeps 8 bits of each number."),
        AddedLater(before="float32"),
    ] = "float32"

    @property
    def value_bytes(self) -> int:
        """Of one stored number."""
        return 2 if self.dtype == "bfloat16" else 4


@dataclass(frozen=True, slots=True, kw_only=True)
class DiTTraining:
    """How a generator is trained, whatever its shape."""

    PLACE: ClassVar = "stages.dit"

    steps: Annotated[
        Count | None, Doc("Optimiser steps; null for no DiT. The paper's sweeps take 500k.")
    ] = None
    batch: Annotated[Count, Doc("Codes per step, over all devices.")] = 256
    class_dropout: Annotated[
        Share, Doc("Share of labels left out in training; guidance needs some.")
    ] = 0.1
    precision: Annotated[Precision, Doc("Arithmetic of the model; losses are float32.")] = "bf16"
    compile: Annotated[bool, Doc("Compile the model by torch.compile.")] = False
    ema: Annotated[
        Decay | None,
        Doc("Decay of a moving average of the weights, which is then the result."),
    ] = 0.9999
    optimiser: Annotated[Optimiser, Doc("AdamW of the DiT: a constant rate, no weight decay.")] = (
        Optimiser(lr=1e-4, betas=(0.9, 0.999), weight_decay=0.0, warmup=0.0, schedule="constant")
    )
    flip: Annotated[
        bool,
        Doc("Mix in codes of mirrored samples; needs latents computed with flip."),
        Elsewhere("stages.latents.flip"),
    ] = True
    seed: Seed = 0

    def mistakes(
        self, classes: int | None, learned: str = "what it learns from"
    ) -> Iterator[Mistake]:
        """What is wrong with these settings, besides bounds.

        Args:
            classes: number of labels; None where it is not known.
            learned: name of the data set.
        """
        yield from self.optimiser.mistakes(f"{self.PLACE}.optimiser", self.steps)
        if classes == 0 and self.class_dropout > 0:
            yield Mistake(
                path=f"{self.PLACE}.class_dropout",
                message=f"{learned} has no labels, so none can be left out; set class_dropout to 0",
            )

    def check(self, spec: DiTSpec) -> Self:
        """Return the settings themselves if they can be used for `spec`.

        Raises:
            SpecError: a value out of range, one that does not go with the others, or no steps.
        """
        whole_steps(self.steps)
        check_bounds(self)
        raise_first(self.mistakes(spec.classes))
        return self

    def flops(self, spec: DiTSpec) -> Flops:
        """Operations of all steps."""
        samples = whole_steps(self.steps) * self.batch
        return in_precision(dit_training_flops(spec, samples), self.precision)

    def memory(self, spec: DiTSpec, *, recompute: bool = False) -> Memory:
        """Device memory of a training; what is counted is said in `vitok_core.spec._memory`."""
        return dit_memory(spec, self.precision, averaged=self.ema is not None, recompute=recompute)


@dataclass(frozen=True, slots=True, kw_only=True)
class DiT(DiTTraining):
    """The DiT, a generator of the final tokenizer's codes; only with a number of steps."""

    size: Annotated[str, Doc("DiT size: S, B, L, XL or one of the small ones for CPUs.")] = "L"
    target: Annotated[
        Target, Doc("What it predicts: the noise, v, or the velocity of a straight path.")
    ] = "eps"
    learn_sigma: Annotated[
        bool, Doc("Predict the variance as well, as DiT does; with target eps only.")
    ] = True
    qk_norm: Annotated[bool, Doc("Normalise queries and keys of its blocks.")] = False

    def spec(self, tokenizer: TokenizerSpec, classes: int) -> DiTSpec:
        """The generator of a tokenizer's codes.

        Raises:
            SpecError: the tokenizer or the generator cannot be built.
        """
        return DiTSpec.for_tokenizer(
            tokenizer,
            size=self.size,
            classes=classes,
            target=self.target,
            learn_sigma=self.learn_sigma,
            qk_norm=self.qk_norm,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Stages:
    """The training stages; those without steps are left out."""

    stage1: Annotated[Stage1, Doc("The auto-encoder.")] = field(default_factory=lambda: Stage1())
    stage2: Annotated[Stage2, Doc("The decoder against a discriminator.")] = field(
        default_factory=lambda: Stage2()
    )
    latents: Annotated[Latents, Doc("The codes that a DiT learns from.")] = Latents()
    dit: Annotated[DiT, Doc("The generator of codes.")] = DiT()


def rates(stages: Mapping[str, Any]) -> Iterator[tuple[str, float, float]]:
    """Config path, number of the rule and rate of each learning rate that follows its batch.

    Args:
        stages: the settings of all stages as plain data, in which a rate may be a rule.
    """
    for stage, name in _optimisers():
        rule = stages[stage][name]["lr"]
        if isinstance(rule, Mapping):
            number = rule[LR_RULE.key]
            yield f"stages.{stage}.{name}.lr", number, LR_RULE.rate(number, stages[stage]["batch"])


def following(stages: Stages) -> Iterator[tuple[str, float]]:
    """Config path and value of each setting that was left to follow others."""
    for stage, name in _optimisers():
        optimiser: Optimiser = getattr(getattr(stages, stage), name)
        if optimiser.final_lr is None:
            yield f"stages.{stage}.{name}.final_lr", optimiser.last_lr


@functools.cache
def _optimisers() -> tuple[tuple[str, str], ...]:
    """The stage and the name of each optimiser."""
    groups = [(one.name, getattr(Stages(), one.name)) for one in dataclasses.fields(Stages)]
    return tuple(
        (stage, one.name)
        for stage, group in groups
        for one in dataclasses.fields(group)
        if isinstance(getattr(group, one.name), Optimiser)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """How a training is run. Nothing here changes a number beyond float rounding: no identity."""

    device: Annotated[str, Doc("torch device.")] = "cpu"
    checkpoint_s: Annotated[
        Annotated[float, Ge(0)] | Literal["auto"],
        Doc(
            "Seconds between checkpoints; auto: as often as they cost at most 1 % of the time, "
            "from every minute to every ten."
        ),
    ] = "auto"
    skip_non_finite: Annotated[
        int,
        Ge(0),
        Doc(
            "Steps whose loss or gradient is not finite that a training may skip; the next one "
            "ends it."
        ),
    ] = 0
    micro_batch: Annotated[
        Count | Literal["auto"] | None,
        Doc(
            "Samples in memory together in a process, whose gradients add up; auto: as many as "
            "fit the GPU; null for all."
        ),
    ] = None
    recompute_activations: Annotated[
        bool | Literal["auto"],
        Doc(
            "Compute the blocks' activations again in the backward pass instead of keeping them: "
            "less memory, about a third more computation; auto: where few samples fit without."
        ),
    ] = False
    sheet_every: Annotated[
        Count | None, Doc("Steps between sheets of samples in sheets/; null for none.")
    ] = None

    def check(self) -> Self:
        """Return the settings themselves if they can be used.

        Raises:
            SpecError: a number below 1; `field` names it.
        """
        check_bounds(self)
        return self

"""Optimisers and losses: AdamW and its schedule, terms and weights, the discriminator's terms."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal, Self

from annotated_types import Ge, Gt, Le, Lt
from typing_extensions import Doc

from vitok_core.protocols import BACKBONES, Backbone
from vitok_core.settings._fields import (
    AddedLater,
    Mistake,
    PerBatch,
    Share,
    ShareOrCount,
    Term,
    Weight,
    check_bounds,
    hints,
    raise_first,
    said_of,
)
from vitok_core.spec import (
    Flops,
    LpipsTrunk,
    Memory,
    NetworkPrecision,
    TokenizerSpec,
    dino_macs,
    dino_memory,
    lpips_macs,
    lpips_memory,
    of_networks,
    ssim_memory,
)

Beta = Annotated[float, Ge(0), Lt(1)]
Norm = Annotated[float, Gt(0)]
Steps = Annotated[int, Ge(0), Le(10**12)]

LR_RULE = PerBatch(256)
"""How a learning rate may follow the batch of its stage."""

DETERMINISTIC = ("none", "layernorm")
"""Bottlenecks whose code is no distribution, so that there is no KL of it."""

SSIM_SMALLEST = 11
"""Side in pixels of the window of SSIM."""

CONSTANT_FINAL_LR = 1e-5
"""What `final_lr` is by default where `lr` is not less, and always to a constant schedule, whose
rate does not fall."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Optimiser:
    """AdamW with warm-up, then cosine decay or a constant rate."""

    lr: Annotated[
        float,
        Gt(0),
        Le(1),
        Doc(
            "Peak learning rate: a number, or {per_256: 1e-4} for 1e-4 x batch / 256. The paper: "
            "1e-4 per batch of 256, its discriminator 2e-5."
        ),
        LR_RULE,
    ] = 4e-4
    betas: Annotated[tuple[Beta, Beta], Doc("AdamW's beta 1 and beta 2.")] = (0.9, 0.95)
    weight_decay: Annotated[Share, Doc("Weight decay; `decay` says of which parameters.")] = 1e-4
    decay: Annotated[
        Literal["all", "matrices"],
        Doc(
            "What decays. all: every parameter (the paper does not say); matrices: weights of "
            "linear layers and convolutions, and no bias, norm, token, position or embedding."
        ),
        AddedLater(before="all"),
    ] = "all"
    warmup: Annotated[
        float,
        Ge(0),
        ShareOrCount(),
        Doc(
            "How long the rate rises linearly: below 1 a share of the steps, from 1 a whole number "
            "of steps."
        ),
    ] = 0.03
    final_lr: Annotated[
        Share | None,
        Doc(
            "Learning rate at the end of the cosine; null for 1e-5, or lr where that is less. A "
            "constant schedule has none."
        ),
    ] = None
    schedule: Annotated[
        Literal["cosine", "constant"],
        Doc("What the rate does after the warm-up."),
        AddedLater(before="cosine", only="stages.stage1"),
    ] = "cosine"
    clip: Annotated[
        Norm | None,
        Doc("Largest norm of the gradient; longer ones are scaled down. null: none are."),
    ] = 1.0

    @property
    def last_lr(self) -> float:
        """The learning rate at the end of the cosine: `final_lr`, or what it is by default."""
        if self.final_lr is not None:
            return self.final_lr
        falls = self.schedule == "cosine"
        return min(CONSTANT_FINAL_LR, self.lr) if falls else CONSTANT_FINAL_LR

    def rising(self, steps: int) -> int:
        """The steps of the warm-up in a training of `steps`."""
        return round(self.warmup * steps) if self.warmup < 1 else int(self.warmup)

    def mistakes(self, where: str, steps: int | None = None) -> Iterator[Mistake]:
        """What is wrong with an optimiser.

        Args:
            where: the config path that it stands at.
            steps: of its training; None where that is not known.
        """
        path, rate = f"{where}.final_lr", self.last_lr
        if steps is not None and self.rising(steps) > steps:
            yield Mistake(
                path=f"{where}.warmup",
                message=f"warmup = {self.warmup:g} steps are more than the {steps:,} steps of the "
                "training; give fewer, or a share of them below 1",
            )
        if self.schedule == "constant" and rate != CONSTANT_FINAL_LR:
            yield Mistake(
                path=path,
                message=f"final_lr = {rate:g} means nothing to a constant schedule, which ends at "
                "lr; leave it out",
                when=(f"{where}.schedule", "constant", path, CONSTANT_FINAL_LR),
            )
        if self.schedule == "cosine" and rate > self.lr:
            yield Mistake(
                path=path,
                message=f"final_lr = {rate:g} is above the peak lr = {self.lr:g}; leave it out, "
                "and it is never above",
            )

    def check(self) -> Self:
        """Return the settings themselves if they can be used.

        Raises:
            SpecError: a value that is out of range or means nothing; `field` names it.
        """
        check_bounds(self)
        raise_first(self.mistakes("optimiser"))
        return self


def _lpips_flops(net: str, side: int) -> Flops:
    # Its trunk over both images forward and back to the reconstruction, its heads both ways.
    trunk, heads = lpips_macs("vgg" if net == "vgg" else "alex", side)
    return Flops(tf32=2 * (3 * trunk + 2 * heads))


def _dino_flops(backbone: str, side: int) -> Flops:
    # As LPIPS; its attention products cost two forward passes on the way back.
    linear, products = dino_macs(side)
    return Flops(fp32=2 * (3 * linear + 4 * products))


LPIPS = Term(
    title="LPIPS",
    option="lpips_net",
    flops=_lpips_flops,
    memory=lambda net, side, precision: lpips_memory(
        "vgg" if net == "vgg" else "alex", side, precision
    ),
)
SSIM = Term(
    title="SSIM",
    smallest=SSIM_SMALLEST,
    memory=lambda _, side, precision: ssim_memory(side, SSIM_SMALLEST),
)
DINO = Term(
    title="DINOv2",
    backbone="dinov2-s14",
    flops=_dino_flops,
    memory=lambda _, side, precision: dino_memory(side, precision),
)


@dataclass(frozen=True, kw_only=True)
class Loss:
    """Weights of the per-element losses (equation 1 of the paper)."""

    pixel: Annotated[Literal["l1", "l2", "charbonnier"], Doc("Pixel loss, mean over elements.")] = (
        "l2"
    )
    pixel_weight: Annotated[
        Weight, Doc("Weight of the pixel loss."), AddedLater(before=1.0, only="stages.stage1")
    ] = 1.0
    kl: Annotated[
        Weight, Doc("Weight of the KL to a unit Gaussian, mean over tokens and channels.")
    ] = 1e-3
    lpips: Annotated[
        Weight,
        Doc("Weight of the perceptual distance LPIPS."),
        LPIPS,
    ] = 1.0
    lpips_net: Annotated[
        LpipsTrunk, Doc("Its trunk: vgg is the paper's, alex is ten times faster on a CPU.")
    ] = "vgg"
    ssim: Annotated[
        Weight,
        Doc("Weight of 1 - SSIM."),
        SSIM,
        AddedLater(before=0.0, only="stages.stage1"),
    ] = 0.0
    dino: Annotated[
        Weight,
        Doc("Weight of the distance between DINOv2 features; needs its weights."),
        DINO,
        AddedLater(before=0.0, only="stages.stage1"),
    ] = 0.0

    @property
    def active(self) -> dict[str, Term]:
        """Name -> record of each term that has weight, besides pixel and KL."""
        return {name: term for name, term in terms(type(self)).items() if getattr(self, name) > 0}

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of what `vitok_core.losses.stage1_loss` measures, in its order."""
        return ("pixel", "kl", *self.active)

    @property
    def networks(self) -> dict[str, Backbone]:
        """Name of each term that has weight and looks through a network -> that network."""
        found = {name: self.backbone(term) for name, term in self.active.items()}
        return {name: backbone for name, backbone in found.items() if backbone is not None}

    def backbone(self, term: Term) -> Backbone | None:
        """The network that a term looks through; None without one."""
        name = getattr(self, term.option) if term.option else term.backbone
        return BACKBONES[name] if name else None

    def flops(
        self, spec: TokenizerSpec, samples: int, precision: NetworkPrecision = "tf32"
    ) -> Flops:
        """Operations of the terms' networks when `samples` reconstructions are compared."""
        total, frames = Flops(), spec.frames * samples
        for term in self.active.values():
            backbone = self.backbone(term)
            one = term.flops("" if backbone is None else backbone.name, spec.resolution)
            total += Flops(bf16=one.bf16 * frames, tf32=one.tf32 * frames, fp32=one.fp32 * frames)
        return of_networks(total, precision)

    def memory(self, spec: TokenizerSpec, precision: NetworkPrecision = "tf32") -> Memory:
        """Memory of the terms in training, besides pixels and code."""
        total = Memory(fixed=0)
        for term in self.active.values():
            backbone = self.backbone(term)
            name = "" if backbone is None else backbone.name
            one = term.memory(name, spec.resolution, precision)
            total += Memory(fixed=one.fixed, per_sample=one.per_sample * spec.frames)
        return total

    def mistakes(
        self, spec: TokenizerSpec, where: str = "loss", *, trains_code: bool = True
    ) -> Iterator[Mistake]:
        """What is wrong with a loss for a tokenizer.

        Args:
            spec: the tokenizer.
            where: config path of the loss.
            trains_code: whether the encoder is trained, so that the KL does something.
        """
        if spec.bottleneck in DETERMINISTIC and self.kl > 0 and trains_code:
            yield Mistake(
                path="tokenizer.bottleneck",
                message=f"a code of bottleneck {spec.bottleneck} is no distribution and has no KL, "
                f"but its weight is {self.kl:g}; set {where}.kl to 0",
                when=("tokenizer.bottleneck", spec.bottleneck, f"{where}.kl", 0.0),
            )
        for name, term in self.active.items():
            backbone = self.backbone(term)
            smallest = max(term.smallest, 1 if backbone is None else backbone.smallest)
            if spec.resolution < smallest:
                which = f" ({getattr(self, term.option)})" if term.option else ""
                yield Mistake(
                    path="data.resolution",
                    message=f"the {term.title} loss{which} needs images of at least {smallest} px, "
                    f"not {spec.resolution}; set {where}.{name} to 0 or use larger images",
                )
        if self.pixel_weight == 0 and not self.active:
            *some, last = ("pixel_weight", *terms(type(self)))
            yield Mistake(
                path=f"{where}.pixel_weight",
                message=f"{', '.join(some)} and {last} are all 0: nothing would ask for a "
                "reconstruction",
            )

    def check(self, spec: TokenizerSpec) -> Self:
        """Return the loss itself if it can be used for `spec`.

        Raises:
            SpecError: a value out of range, images too small for a term, a KL that the bottleneck
                does not have; `field` names it.
        """
        check_bounds(self)
        raise_first(self.mistakes(spec))
        return self


_TERMS: dict[type, dict[str, Term]] = {}


def terms(loss: type[Loss]) -> dict[str, Term]:
    """Name of each term that a loss may have besides pixel and KL -> its record."""
    if loss not in _TERMS:
        found = {name: said_of(hint, Term) for name, hint in hints(loss).items()}
        _TERMS[loss] = {name: term for name, term in found.items() if term is not None}
    return _TERMS[loss]


@dataclass(frozen=True, slots=True, kw_only=True)
class Adversarial:
    """How strongly the discriminator pulls on the decoder, and what holds it back."""

    weight: Annotated[
        Weight,
        Doc(
            "Weight of the decoder's adversarial term after the ramp; 0 trains on without a "
            "discriminator. 0.05 is of the paper's appendix A.3, its section 2.3 prints 1.0."
        ),
    ] = 0.05
    start: Annotated[Steps, Doc("Steps during which only the discriminator learns.")] = 0
    ramp: Annotated[Steps, Doc("Steps over which the weight then rises linearly.")] = 25_000
    r1: Annotated[
        Weight, Doc("Gamma of the R1 penalty on the discriminator's gradient; 0 for none.")
    ] = 0.0
    lecam: Annotated[Weight, Doc("Weight of the LeCam regulariser; 1e-3 is usual, 0 for none.")] = (
        0.0
    )
    adaptive: Annotated[
        bool, Doc("Scale the weight by the ratio of the gradients at the last layer.")
    ] = False

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of what `vitok_core.losses.discriminator_loss` measures, in its order."""
        used = (name for name in ("r1", "lecam") if getattr(self, name) > 0)
        return ("hinge", "real_logit", "fake_logit", *used)

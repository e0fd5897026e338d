"""Which keys may a study file hold? The frozen models of a study, without any file reading.

`Config` is what a cell is made of: every leaf of it can be an axis. `Study` adds what stands around
it: the question, the axes, the fits, the claims and how to run. Unknown keys are errors everywhere.
The defaults are the paper's (section 2.3 and appendix A of the ViTok paper). What is optional
(stage 2, the DiT, the measurement of its samples) is off until it has a number of steps or images.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import ConfigDict, Field, field_validator

from sweepctl.kinds import KINDS
from sweepctl.study._claims import Claim, Fit
from sweepctl.study._search_block import SearchBlock
from sweepctl.study._values import NAME, Count, Flag, Number, Strict, Text, Whole

STAGES = tuple(kind.name for kind in KINDS.values() if kind.in_only)
"""Stages that `only` can name; data preparation and latents follow from them."""

if TYPE_CHECKING:
    Stage = str
else:
    Stage = Literal[STAGES]

# --- what a cell is made of -------------------------------------------------------------------


class Data(Strict):
    """Which images or clips the tokenizer is trained on."""

    train: Text = Field(description="Name of the training data set.")
    resolution: Annotated[Whole, Field(ge=8, le=4096)] = Field(description="Image side in pixels.")
    images: Count = Field(description="Number of training images, or of clips.")
    frames: Annotated[Whole, Field(ge=1, le=4096)] = Field(
        1, description="Frames of a sample: 1 for images, more for clips of a video data set."
    )
    fps: Annotated[Number, Field(gt=0, le=1000)] | None = Field(
        None, description="Frames of a clip a second; null takes each video as it is."
    )
    stream: Flag = Field(
        False,
        description=(
            "Train on an own data set as it is, decoded when asked for, not on a prepared copy; "
            "images is then the number of all its samples."
        ),
    )
    crop: Literal["center", "random"] = Field(
        "center",
        description=(
            "center: the middle square; random: another square along the long side in each pass, "
            "for streams."
        ),
    )


class Tokenizer(Strict):
    """The tokenizer's shape, in the paper's names."""

    encoder: Text = Field(description="Encoder size: S, B, L or one of the small ones for CPUs.")
    decoder: Text = Field(description="Decoder size, independent of the encoder's.")
    q: Annotated[Whole, Field(ge=1, le=64)] = Field(1, description="Temporal stride in frames.")
    p: Annotated[Whole, Field(ge=1, le=512)] = Field(description="Patch side in pixels.")
    c: Annotated[Whole, Field(ge=1, le=4096)] = Field(description="Channels of a token.")
    latent_tokens: Annotated[Whole, Field(ge=1, le=65536)] | None = Field(
        None,
        description="Tokens of a 1-D code (latent ViTok); null codes each tubelet by one token.",
    )
    lengths: tuple[Annotated[Whole, Field(ge=1, le=10**6)], ...] = Field(
        (),
        description="Code lengths drawn in training (masked ViTok), rising; empty: always all.",
    )
    norm: Literal["layernorm", "rmsnorm"] = Field(
        "layernorm", description="Normalisation of the blocks."
    )
    qk_norm: Flag = Field(False, description="Normalise queries and keys, by the same norm.")
    positions: Literal["axial", "1d", "sincos", "none"] = Field(
        "axial",
        description=(
            "axial: rotary by time, height and width; 1d: rotary by the token's number; "
            "sincos: a fixed table added at the input."
        ),
    )
    bottleneck: Literal["kl", "none", "layernorm", "noise"] = Field(
        "kl",
        description=(
            "kl: Gaussian code; none: plain code; layernorm: code normalised over its channels; "
            "noise: Gaussian code of fixed deviation."
        ),
    )
    noise_std: Annotated[Number, Field(gt=0)] | None = Field(
        None, description="Standard deviation of the code with bottleneck noise, and only there."
    )
    causal: Flag = Field(
        False, description="Tokens see their own and earlier steps in time; for clips only."
    )


class Optimiser(Strict):
    """AdamW with warm-up, then cosine decay or a constant rate."""

    lr: Annotated[Number, Field(gt=0, le=1)] = Field(
        4e-4, description="Peak learning rate. The paper's 1e-4 a batch of 256 is 4e-4 at 1024."
    )
    betas: Annotated[
        tuple[Annotated[Number, Field(ge=0, lt=1)], Annotated[Number, Field(ge=0, lt=1)]],
        Field(description="AdamW's beta 1 and beta 2."),
    ] = (0.9, 0.95)
    weight_decay: Annotated[Number, Field(ge=0, le=1)] = Field(
        1e-4, description="Applied to all parameters."
    )
    warmup: Annotated[Number, Field(ge=0, lt=1)] = Field(
        0.03, description="Share of the steps over which the rate rises linearly."
    )
    final_lr: Annotated[Number, Field(ge=0, le=1)] = Field(
        1e-5, description="Learning rate at the end of the cosine; a constant schedule has none."
    )
    schedule: Literal["cosine", "constant"] = Field(
        "cosine", description="What the rate does after the warm-up."
    )
    clip: Annotated[Number, Field(gt=0)] = Field(
        1.0, description="Largest norm of the gradient; longer ones are scaled down."
    )


class Stage1Loss(Strict):
    """Weights of the per-element losses of stage 1 (equation 1 of the paper)."""

    pixel: Literal["l1", "l2", "charbonnier"] = Field(
        "l2", description="Pixel loss, mean over elements."
    )
    pixel_weight: Annotated[Number, Field(ge=0)] = Field(
        1.0, description="Weight of the pixel loss."
    )
    kl: Annotated[Number, Field(ge=0)] = Field(
        1e-3, description="Weight of the KL to a unit Gaussian, mean over tokens and channels."
    )
    lpips: Annotated[Number, Field(ge=0)] = Field(
        1.0, description="Weight of the perceptual distance LPIPS."
    )
    lpips_net: Literal["alex", "vgg"] = Field(
        "vgg", description="Its trunk: vgg is the paper's, alex is ten times faster on a CPU."
    )
    ssim: Annotated[Number, Field(ge=0)] = Field(0.0, description="Weight of 1 - SSIM.")
    dino: Annotated[Number, Field(ge=0)] = Field(
        0.0, description="Weight of the distance between DINOv2 features; needs its weights."
    )


class Stage1(Strict):
    """Stage 1: the auto-encoder without an adversary."""

    steps: Count = Field(100_000, description="Optimiser steps.")
    batch: Count = Field(1024, description="Images or clips a step, over all devices.")
    precision: Literal["fp32", "bf16"] = Field("bf16", description="Arithmetic of the model.")
    flip: Flag = Field(True, description="Mirror each training sample with probability one half.")
    compile: Flag = Field(False, description="Compile the model by torch.compile.")
    ema: Annotated[Number, Field(gt=0, lt=1)] | None = Field(
        None, description="Decay of a moving average of the weights, which is then the result."
    )
    optimiser: Optimiser = Optimiser()
    loss: Stage1Loss = Stage1Loss()


class Stage2Optimiser(Optimiser):
    """AdamW of the tokenizer in stage 2."""

    lr: Annotated[Number, Field(gt=0, le=1)] = Field(
        1e-4, description="Peak learning rate. The paper's 1e-4 a batch of 256."
    )


class DiscriminatorOptimiser(Optimiser):
    """AdamW of the discriminator: a low constant rate, after a short warm-up."""

    lr: Annotated[Number, Field(gt=0, le=1)] = Field(
        2e-5, description="Peak learning rate. The paper's best, at a batch of 256."
    )
    warmup: Annotated[Number, Field(ge=0, lt=1)] = Field(
        0.025, description="Share of the steps over which the rate rises linearly."
    )
    schedule: Literal["cosine", "constant"] = Field(
        "constant", description="What the rate does after the warm-up."
    )


class Adversarial(Strict):
    """How strongly the discriminator pulls on the decoder, and what holds it back."""

    weight: Annotated[Number, Field(ge=0)] = Field(
        0.05,
        description=(
            "Weight of the decoder's adversarial term after the ramp; 0 trains on without a "
            "discriminator. 0.05 is of the paper's appendix A.3, its section 2.3 prints 1.0."
        ),
    )
    start: Annotated[Whole, Field(ge=0, le=10**12)] = Field(
        0, description="Steps during which only the discriminator learns."
    )
    ramp: Annotated[Whole, Field(ge=0, le=10**12)] = Field(
        25_000, description="Steps over which the weight then rises linearly."
    )
    r1: Annotated[Number, Field(ge=0)] = Field(
        0.0, description="Gamma of the R1 penalty on the discriminator's gradient; 0 for none."
    )
    lecam: Annotated[Number, Field(ge=0)] = Field(
        0.0, description="Weight of the LeCam regulariser; 1e-3 is usual, 0 for none."
    )
    adaptive: Flag = Field(
        False, description="Scale the weight by the ratio of the gradients at the last layer."
    )


class Stage2(Strict):
    """Stage 2: the decoder goes on against a discriminator; only with a number of steps."""

    steps: Count | None = Field(
        None, description="Optimiser steps; null for no stage 2. The paper's is 100k."
    )
    batch: Count = Field(256, description="Images or clips a step, over all devices.")
    precision: Literal["fp32", "bf16"] = Field("bf16", description="Arithmetic of the tokenizer.")
    flip: Flag = Field(True, description="Mirror each training sample with probability one half.")
    compile: Flag = Field(False, description="Compile the tokenizer by torch.compile.")
    ema: Annotated[Number, Field(gt=0, lt=1)] | None = Field(
        0.9999,
        description=(
            "Decay of a moving average of the weights, which begins with those of stage 1 and is "
            "then the result; null for none."
        ),
    )
    train: Literal["decoder", "all"] = Field(
        "decoder", description="decoder: the encoder is frozen, codes stay as they are; all: both."
    )
    discriminator_width: Annotated[Number, Field(gt=0, le=4)] = Field(
        1.0, description="Factor of the discriminator's channels; 1 is the paper's."
    )
    optimiser: Stage2Optimiser = Stage2Optimiser()
    discriminator: DiscriminatorOptimiser = DiscriminatorOptimiser()
    loss: Stage1Loss = Stage1Loss()
    adversarial: Adversarial = Adversarial()


class StoredLatents(Strict):
    """The codes that a DiT learns from, computed once a tokenizer."""

    normalisation: Literal["none", "scalar", "per-channel"] = Field(
        "none",
        description=(
            "none: as they are (the paper's); scalar: one standard deviation; per-channel: mean "
            "and standard deviation of every channel."
        ),
    )
    flip: Flag = Field(True, description="Learn from mirrored samples too.")


class DiTOptimiser(Optimiser):
    """AdamW of the DiT: a constant rate, no weight decay."""

    lr: Annotated[Number, Field(gt=0, le=1)] = Field(1e-4, description="Peak learning rate.")
    betas: Annotated[
        tuple[Annotated[Number, Field(ge=0, lt=1)], Annotated[Number, Field(ge=0, lt=1)]],
        Field(description="AdamW's beta 1 and beta 2."),
    ] = (0.9, 0.999)
    weight_decay: Annotated[Number, Field(ge=0, le=1)] = Field(
        0.0, description="Applied to all parameters."
    )
    warmup: Annotated[Number, Field(ge=0, lt=1)] = Field(
        0.0, description="Share of the steps over which the rate rises linearly."
    )
    schedule: Literal["cosine", "constant"] = Field(
        "constant", description="What the rate does after the warm-up."
    )


class GeneratorStage(Strict):
    """The DiT, a generator of the final tokenizer's codes; only with a number of steps."""

    steps: Count | None = Field(
        None, description="Optimiser steps; null for no DiT. The paper's sweeps take 500k."
    )
    batch: Count = Field(256, description="Codes a step, over all devices.")
    size: Text = Field("L", description="DiT size: S, B, L, XL or one of the small ones for CPUs.")
    target: Literal["eps", "v", "flow"] = Field(
        "eps", description="What it predicts: the noise, v, or the velocity of a straight path."
    )
    learn_sigma: Flag = Field(
        True, description="Predict the variance as well, as DiT does; with target eps only."
    )
    qk_norm: Flag = Field(False, description="Normalise queries and keys of its blocks.")
    class_dropout: Annotated[Number, Field(ge=0, le=1)] = Field(
        0.1, description="Share of labels left out in training; guidance needs some."
    )
    precision: Literal["fp32", "bf16"] = Field("bf16", description="Arithmetic of the model.")
    compile: Flag = Field(False, description="Compile the model by torch.compile.")
    ema: Annotated[Number, Field(gt=0, lt=1)] | None = Field(
        0.9999, description="Decay of a moving average of the weights, which is then the result."
    )
    optimiser: DiTOptimiser = DiTOptimiser()


class Stages(Strict):
    """The training stages; those without steps are left out."""

    stage1: Stage1 = Stage1()
    stage2: Stage2 = Stage2()
    latents: StoredLatents = StoredLatents()
    dit: GeneratorStage = GeneratorStage()


class Reconstruction(Strict):
    """How the final tokenizer is measured: that of stage 2, else of stage 1."""

    on: Annotated[tuple[Text, ...], Field(min_length=1)] = Field(
        description="Evaluation data sets; the first one is the study's main one."
    )
    images: Count = Field(description="Number of images, or clips, of each data set.")
    metrics: Annotated[tuple[Text, ...], Field(min_length=1)] = Field(
        description="Names of metrics, for example psnr."
    )
    protocol: Text = Field("lite0", description="Name of the protocol the metrics follow.")
    length: Annotated[Whole, Field(ge=1, le=10**6)] | None = Field(
        None, description="Code length that is measured, one of tokenizer.lengths; null for all."
    )
    bootstrap: Annotated[Whole, Field(ge=2, le=10_000)] | None = Field(
        None,
        description=(
            "Resamples for the standard error of distances between distributions, each as dear as "
            "the distance; null for none."
        ),
    )


class Generation(Strict):
    """How the DiT is measured by its samples; only with a number of images, and with a DiT."""

    on: tuple[Text, ...] = Field(
        (), description="Data sets the samples are compared with; the first one is the main one."
    )
    images: Count | None = Field(
        None,
        description="Samples that are made, as many of each class; null for none. The paper: 50k.",
    )
    originals: Count | None = Field(
        None, description="Originals they are compared with; null for as many as samples."
    )
    metrics: tuple[Text, ...] = Field((), description="Names of metrics, for example gfid.")
    protocol: Text = Field("lite0", description="Name of the protocol the metrics follow.")
    bootstrap: Annotated[Whole, Field(ge=2, le=10_000)] | None = Field(
        None, description="Resamples for the standard error of each metric; null for none."
    )
    cfg: Annotated[Number, Field(ge=0)] = Field(
        1.5, description="Scale of classifier-free guidance; 1 for none."
    )
    cfg_interval: (
        tuple[Annotated[Number, Field(ge=0, le=1)], Annotated[Number, Field(ge=0, le=1)]] | None
    ) = Field(
        None,
        description="Times, from 0 (clean) to 1 (noise), between which guidance is on; null: all.",
    )
    steps: Count = Field(250, description="Steps of the sampler.")
    sampler: Literal["ddim", "ddpm", "euler"] | None = Field(
        None, description="null: ddim for targets eps and v, euler for flow, the only one there."
    )
    spacing: Literal["sections", "stride"] = Field(
        "sections", description="Which of the 1000 times ddim and ddpm visit."
    )
    eta: Annotated[Number, Field(ge=0, le=1)] = Field(
        0.0, description="Noise that ddim adds: from 0, none, to 1, that of ddpm."
    )
    precision: Literal["fp32", "bf16"] = Field("fp32", description="Arithmetic of the DiT.")


class Evaluate(Strict):
    """What is measured."""

    reconstruction: Reconstruction
    generation: Generation = Generation()


class Config(Strict):
    """Everything that decides a cell's numbers; each leaf can be an axis."""

    seed: Annotated[Whole, Field(ge=0, lt=2**31)] = Field(
        0, description="Seed of initialisation, data order and noise."
    )
    data: Data
    tokenizer: Tokenizer
    stages: Stages = Stages()
    evaluate: Evaluate


# --- what stands around it --------------------------------------------------------------------


class Run(Strict):
    """How the study is run; never part of a task's identity."""

    retries: Annotated[Whole, Field(ge=0, le=100)] = Field(
        2, description="Further attempts after a lost worker, a kill or a lack of memory."
    )
    checkpoint_s: Annotated[Number, Field(gt=0)] = Field(
        60.0, description="Seconds between checkpoints of a training."
    )
    timeout_s: Annotated[Number, Field(gt=0)] | None = Field(
        None, description="Seconds after which an attempt is ended; none by default."
    )


class When(Strict):
    """Values for the cells that match."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    if_: dict[str, Any] = Field(alias="if", min_length=1, description="What a cell must match.")
    set_: dict[str, Any] = Field(alias="set", min_length=1, description="Values it then gets.")


class Study(Config):
    """A whole study file."""

    format: Literal[1] = Field(description="Version of this file format.")
    study: Annotated[Text, Field(pattern=NAME)] = Field(
        description="Name of the study: lower case, digits, dot, dash, underscore."
    )
    question: Text = Field("", description="The question this study answers.")
    base: Text | tuple[Text, ...] | None = Field(
        None, description="Files merged below this one, relative to it; later ones win."
    )
    axes: dict[str, Annotated[tuple[Any, ...], Field(min_length=1)]] = Field(
        default_factory=dict, description="Path or short name -> values; every combination is run."
    )
    zip: tuple[dict[str, Annotated[tuple[Any, ...], Field(min_length=1)]], ...] = Field(
        (), description="Groups of axes that move together."
    )
    exclude: tuple[dict[str, Any], ...] = Field(
        (), description="Cells that match an entry are left out; `only: [stage]` limits it."
    )
    only: dict[Stage, tuple[dict[str, Any], ...]] = Field(
        default_factory=dict, description="A stage is run only for cells that match an entry."
    )
    fixed: dict[Literal["E", "tokens", "compression"], float] = Field(
        default_factory=dict, description="Derived values held fixed: c or p is solved from them."
    )
    when: tuple[When, ...] = Field((), description="Values for the cells that match.")
    search: SearchBlock | None = Field(
        None, description="Settings to search for the best of; a search in each cell of the grid."
    )
    fits: dict[Annotated[str, Field(pattern=NAME)], Fit] = Field(
        default_factory=dict, description="Laws to fit, by name."
    )
    claims: tuple[Claim, ...] = Field((), description="Claims to test, written before the run.")
    run: Run = Run()

    @field_validator("claims")
    @classmethod
    def _claims_have_names_of_their_own(cls, claims: tuple[Claim, ...]) -> tuple[Claim, ...]:
        names = [claim.name for claim in claims]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two claims are named {name!r}; give each a name of its own")
        return claims

"""The keys of a study file: its frozen models, without any file reading.

`Config` is what a cell is made of: every leaf of it can be an axis. `Study` adds what stands around
it: the question, the axes, the fits, the claims and how to run. Unknown keys are errors everywhere.
Stages and sampling are the settings of `vitok_core.settings`, with their defaults, which are the
paper's (section 2.3 and appendix A of the ViTok paper). What is optional (stage 2, the DiT, the
measurement of its samples) is off until it has a number of steps or images.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import ConfigDict, Field, field_validator

from sweepctl.kinds import KINDS, in_ranks, trainings
from sweepctl.study._claims import Claim, Fit
from sweepctl.study._needs import Gpus, Needs
from sweepctl.study._search_block import SearchBlock
from sweepctl.study._values import NAME, Count, Flag, Number, Strict, Text, Whole, model_of
from vitok_core import settings
from vitok_core.settings import AddedLater
from vitok_core.sources import Crop
from vitok_core.spec import Bottleneck, Norm, Positions

STAGES = tuple(kind.name for kind in KINDS.values() if kind.in_only)
"""Stages that `only` can name; data preparation and latents follow from them."""

FIXABLE = ("E", "tokens", "compression")
"""Derived values that `fixed` can hold."""

MicroBatch = Literal["auto", "all"] | Count
Recompute = Literal["auto"] | Flag

if TYPE_CHECKING:
    Stage = str
    Training = str
    InRanks = str
    Fixable = str
else:
    Stage = Literal[STAGES]
    Training = Literal[trainings()]
    InRanks = Literal[in_ranks()]
    Fixable = Literal[FIXABLE]

# --- what a cell is made of -------------------------------------------------------------------


class Data(Strict):
    """Which images or clips the tokenizer is trained on."""

    train: Text = Field(description="Name of the training data set.")
    resolution: Annotated[Whole, Field(ge=8, le=4096)] = Field(description="Image side in pixels.")
    images: Count = Field(description="Number of training images, or of clips.")
    frames: Annotated[Whole, Field(ge=1, le=4096), AddedLater(before=1)] = Field(
        1, description="Frames of a sample: 1 for images, more for clips of a video data set."
    )
    fps: Annotated[Annotated[Number, Field(gt=0, le=1000)] | None, AddedLater(before=None)] = Field(
        None, description="Frames of a clip a second; null takes each video as it is."
    )
    stream: Annotated[Flag, AddedLater(before=False)] = Field(
        False,
        description=(
            "Train on an own data set as it is, decoded when asked for, not on a prepared copy; "
            "images is then the number of all its samples."
        ),
    )
    crop: Annotated[Crop, AddedLater(before="center")] = Field(
        "center",
        description=(
            "center: the middle square; for streams also random: another square along the long "
            "side in each pass, and random-resized: another box of 80 to 100 % of the area."
        ),
    )


class Tokenizer(Strict):
    """The tokenizer's shape, in the paper's names."""

    encoder: Text = Field(description="Encoder size: S, B, L or one of the small ones for CPUs.")
    decoder: Text = Field(description="Decoder size, independent of the encoder's.")
    q: Annotated[Whole, Field(ge=1, le=64)] = Field(1, description="Temporal stride in frames.")
    p: Annotated[Whole, Field(ge=1, le=512)] = Field(description="Patch side in pixels.")
    c: Annotated[Whole, Field(ge=1, le=4096)] = Field(description="Channels of a token.")
    latent_tokens: Annotated[
        Annotated[Whole, Field(ge=1, le=65536)] | None, AddedLater(before=None)
    ] = Field(
        None,
        description="Tokens of a 1-D code (latent ViTok); null codes each tubelet by one token.",
    )
    lengths: Annotated[
        tuple[Annotated[Whole, Field(ge=1, le=10**6)], ...], AddedLater(before=[])
    ] = Field(
        (),
        description="Code lengths drawn in training (masked ViTok), rising; empty: always all.",
    )
    norm: Annotated[Norm, AddedLater(before="layernorm")] = Field(
        "layernorm", description="Normalisation of the blocks."
    )
    qk_norm: Annotated[Flag, AddedLater(before=False)] = Field(
        False, description="Normalise queries and keys, by the same norm."
    )
    positions: Annotated[Positions, AddedLater(before="axial")] = Field(
        "axial",
        description=(
            "axial: rotary by time, height and width; 1d: rotary by the token's number; "
            "sincos: a fixed table added at the input."
        ),
    )
    bottleneck: Annotated[Bottleneck, AddedLater(before="kl")] = Field(
        "kl",
        description=(
            "kl: Gaussian code; none: plain code; layernorm: code normalised over its "
            "channels; noise: Gaussian code of fixed deviation."
        ),
    )
    noise_std: Annotated[Annotated[Number, Field(gt=0)] | None, AddedLater(before=None)] = Field(
        None, description="Standard deviation of the code with bottleneck noise, and only there."
    )
    causal: Annotated[Flag, AddedLater(before=False)] = Field(
        False, description="Tokens see their own and earlier steps in time; for clips only."
    )


if TYPE_CHECKING:
    # To the type checker the models are the settings that they are made of.
    Stages = settings.Stages

    class _Sampling(Strict):
        pass
else:
    Stages = model_of(settings.Stages())
    _Sampling = model_of(settings.Sampling())


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
    length: Annotated[Annotated[Whole, Field(ge=1, le=10**6)] | None, AddedLater(before=None)] = (
        Field(
            None,
            description="Code length that is measured, one of tokenizer.lengths; null for all.",
        )
    )
    bootstrap: Annotated[
        Annotated[Whole, Field(ge=2, le=10_000)] | None, AddedLater(before=None)
    ] = Field(
        None,
        description=(
            "Resamples for the standard error of distances between distributions, each as "
            "expensive as the distance; null for none."
        ),
    )


class Generation(_Sampling):
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


class Evaluate(Strict):
    """What is measured."""

    reconstruction: Reconstruction
    generation: Generation = Generation()
    allow_overlap: Annotated[Flag, AddedLater(before=False)] = Field(
        False,
        description=(
            "Allow measuring on data that are trained on; results then say so. Changes no number."
        ),
    )


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


class Skip(Strict):
    """A training may leave out updates."""

    skip: Annotated[Whole, Field(ge=1)] = Field(
        description="Updates that a training may leave out; the next one ends it."
    )


class Run(Strict):
    """How the study is run; never part of a task's identity."""

    retries: Annotated[Whole, Field(ge=0, le=100)] = Field(
        2, description="Further attempts after a lost worker, a kill or a lack of memory."
    )
    checkpoint_s: Annotated[Number, Field(gt=0)] | Literal["auto"] = Field(
        settings.Run().checkpoint_s,
        description=(
            "Seconds between checkpoints of a training; auto: as often as they cost at most 1 % of "
            "its time, from every minute to every ten."
        ),
    )
    non_finite: Literal["stop"] | Skip = Field(
        "stop",
        description=(
            "What a training does when loss or gradient is not finite: stop, or {skip: N} to leave "
            "out up to N updates, each recorded as an event."
        ),
    )
    timeout_s: Annotated[Number, Field(gt=0)] | None = Field(
        None, description="Seconds after which an attempt is ended; none by default."
    )
    micro_batch: MicroBatch | dict[Training, MicroBatch] = Field(
        "auto",
        description=(
            "Samples of a step that are in memory together: a number, all, or auto for as many as "
            "fit the GPU (on a CPU: all); or one of these per training. Running out of memory "
            "halves it."
        ),
    )
    recompute: Recompute | dict[Training, Recompute] = Field(
        "auto",
        description=(
            "Compute activations again in the backward pass instead of keeping them, for a third "
            "more computation: true, false, or auto where few samples fit a GPU without; or one of "
            "these per training."
        ),
    )

    deterministic: Flag = Field(
        False,
        description=(
            "Deterministic algorithms on GPUs, where there are some; slower. On a CPU they are "
            "always used."
        ),
    )

    needs: dict[InRanks, Needs] = Field(
        default_factory=dict,
        description="What tasks of a stage get to run on; 1 GPU each for what is not named.",
    )

    @property
    def gpus(self) -> dict[str, Gpus]:
        """Kind of task -> how many GPUs a task gets; 1 for what is not named."""
        return {kind: needs.gpus for kind, needs in self.needs.items()}

    @field_validator("needs")
    @classmethod
    def _rules_are_of_trainings(cls, needs: dict[str, Needs]) -> dict[str, Needs]:
        for kind, one in needs.items():
            if one.gpus.by_size and kind not in trainings():
                raise ValueError(
                    f"{kind}: a rule by size is for trainings ({', '.join(trainings())}); give a "
                    "number, or {within: 12 h}"
                )
        return needs

    @property
    def skip_non_finite(self) -> int:
        """Updates that a training may leave out."""
        return 0 if self.non_finite == "stop" else self.non_finite.skip

    @property
    def memory(self) -> dict[str, tuple[int | str, bool | str]]:
        """Kind of training -> `micro_batch` and `recompute` of it, "auto" for what is not named."""
        many, again = self.micro_batch, self.recompute
        return {
            kind: (
                many.get(kind, "auto") if isinstance(many, dict) else many,
                again.get(kind, "auto") if isinstance(again, dict) else again,
            )
            for kind in trainings()
        }


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
    fixed: dict[Fixable, Number] = Field(
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

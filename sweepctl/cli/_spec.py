"""How large is a model? One tokenizer and its parts, without a study."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any

import typer

from sweepctl.cli._options import Json
from sweepctl.cli._output import give_json, give_table, say
from sweepctl.errors import UsageError


def spec(
    variant: Annotated[
        str, typer.Argument(metavar="VARIANT", help="encoder-decoder/p or /qxp: S-B/16, S-B/4x8.")
    ],
    resolution: Annotated[
        int, typer.Option("--resolution", "-r", help="Image side in pixels.")
    ] = 256,
    channels: Annotated[int, typer.Option("--channels", "-c", help="Channels of a token.")] = 16,
    frames: Annotated[int, typer.Option("--frames", help="Frames of a sample.")] = 1,
    latent_tokens: Annotated[
        int | None, typer.Option("--latent-tokens", help="Tokens of a 1-D code.")
    ] = None,
    lengths: Annotated[
        str | None, typer.Option("--lengths", metavar="L,L,...", help="Lengths of a masked code.")
    ] = None,
    norm: Annotated[str | None, typer.Option("--norm", help="layernorm or rmsnorm.")] = None,
    qk_norm: Annotated[bool, typer.Option("--qk-norm", help="Normalise queries and keys.")] = False,
    positions: Annotated[
        str | None, typer.Option("--positions", help="axial, 1d, sincos or none.")
    ] = None,
    bottleneck: Annotated[
        str | None, typer.Option("--bottleneck", help="kl, none, layernorm or noise.")
    ] = None,
    noise_std: Annotated[
        float | None, typer.Option("--noise-std", help="Deviation of a noise bottleneck.")
    ] = None,
    causal: Annotated[
        bool, typer.Option("--causal", help="Attention to earlier steps in time only.")
    ] = False,
    dit: Annotated[
        str | None, typer.Option("--dit", metavar="SIZE", help="Count a DiT over the codes too.")
    ] = None,
    classes: Annotated[
        int | None, typer.Option("--classes", min=0, help="Labels of the DiT; none by default.")
    ] = None,
    target: Annotated[
        str | None, typer.Option("--target", help="What the DiT predicts: eps, v or flow.")
    ] = None,
    learn_sigma: Annotated[
        bool, typer.Option("--learn-sigma", help="The DiT predicts the variance as well.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Print the tokens, E and compression of a tokenizer, and what each part of it costs.

    GMACs are what the paper calls GFLOPs; GFLOPs here are operations, twice the GMACs.

    Example: sweepctl spec S-B/16 --resolution 256 --channels 16
    """
    _print(
        variant,
        lengths,
        classes,
        resolution=resolution,
        channels=channels,
        frames=frames,
        latent_tokens=latent_tokens,
        norm=norm,
        qk_norm=qk_norm,
        positions=positions,
        bottleneck=bottleneck,
        noise_std=noise_std,
        causal=causal,
        dit=dit,
        target=target,
        learn_sigma=learn_sigma,
        as_json=as_json,
    )


def _print(
    variant: str, lengths: str | None, classes: int | None, *, as_json: bool, **options: Any
) -> None:
    """Print a tokenizer's code and the cost of its parts.

    Args:
        variant: as the paper writes it.
        lengths: code lengths, comma-separated.
        classes: labels of the DiT.
        as_json: whether to print one JSON document.
        options: further arguments of `sweepctl.plan.describe_tokenizer`.
    """
    from sweepctl.plan import describe_tokenizer

    if options["dit"] is None and (
        classes is not None or options["learn_sigma"] or options["target"]
    ):
        raise UsageError(
            "--classes, --target and --learn-sigma are about a DiT", hint="ask for one with --dit"
        )
    given = {name: value for name, value in options.items() if value is not None}
    sized = describe_tokenizer(
        variant, lengths=_whole_numbers(lengths), classes=classes or 0, **given
    )
    if as_json:
        give_json({"schema": 1, **dataclasses.asdict(sized)})
        return
    t, h, w = sized.grid
    shape = (
        f"{sized.resolution} px"
        if sized.frames == 1
        else (f"{sized.frames} x {sized.resolution} px")
    )
    say(f"{sized.variant} at {shape}: {t} x {h} x {w} tubelets; one forward pass of one sample")
    whole = sized.code
    rows: list[tuple[object, ...]] = [
        (
            one.part,
            *((whole.tokens, whole.E, whole.compression) if one.part == "tokenizer" else ("",) * 3),
            one.parameters,
            round(one.macs / 1e9, 3),
            round(one.flops / 1e9, 3),
        )
        for one in sized.parts
    ]
    rows += [
        (f"cut to {one.tokens}", one.tokens, one.E, one.compression, "", "", "")
        for one in sized.cut
    ]
    columns = ("part", "tokens", "E", "compression", "parameters", "GMACs", "GFLOPs")
    give_table(columns, rows, "table")


def _whole_numbers(text: str | None) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(",")) if text else ()
    except ValueError:
        raise UsageError(
            f"--lengths takes whole numbers, not {text!r}", hint="for example --lengths 64,128,256"
        ) from None

"""`spec`: the size of one tokenizer and its parts, without a study."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
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
    channels: Annotated[int, typer.Option("--channels", "-c", help="Channels per token.")] = 16,
    dit: Annotated[
        str | None, typer.Option("--dit", metavar="SIZE", help="Count a DiT over the codes too.")
    ] = None,
    classes: Annotated[
        int | None, typer.Option("--classes", min=0, help="Labels of the DiT; none by default.")
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            "-s",
            metavar="NAME=VALUE",
            help="Another setting of the tokenizer or the DiT; can be repeated.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Print the tokens, E and compression of a tokenizer, and what each part costs.

    --set takes frames, latent_tokens, lengths, norm, qk_norm, positions, bottleneck, noise_std,
    causal, target and learn_sigma, as in a study.

    GMACs are what the paper calls GFLOPs; GFLOPs here are operations, twice the GMACs.

    Example: sweepctl spec S-B/16 --resolution 256 --channels 16
    """
    from sweepctl.plan import describe_tokenizer

    stated = dict(map(_setting, overrides or ()))
    if dit is None and (classes is not None or stated.keys() & ABOUT_DIT):
        raise UsageError("--classes, target and learn_sigma need a DiT", hint="add --dit SIZE")
    sized = describe_tokenizer(
        variant, resolution=resolution, channels=channels, dit=dit, classes=classes or 0, **stated
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


def _setting(text: str) -> tuple[str, Any]:
    """NAME=VALUE with the value as the setting needs it.

    Raises:
        UsageError: there is no such setting, or the value is of another kind.
    """
    name, sign, value = text.partition("=")
    if not sign or name not in SETTINGS:
        raise UsageError(
            f"--set {text}: not a setting", hint=f"NAME=VALUE of {', '.join(SETTINGS)}"
        )
    try:
        return name, SETTINGS[name](value)
    except ValueError:
        example = "64,128,256" if name == "lengths" else "true" if name in FLAGS else "16"
        raise UsageError(
            f"--set {text}: {name} cannot be {value!r}", hint=f"for example --set {name}={example}"
        ) from None


def _flag(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError(text)
    return text == "true"


def _whole_numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.strip("[]").split(","))


SETTINGS: dict[str, Callable[[str], Any]] = {
    "frames": int,
    "latent_tokens": int,
    "lengths": _whole_numbers,
    "norm": str,
    "qk_norm": _flag,
    "positions": str,
    "bottleneck": str,
    "noise_std": float,
    "causal": _flag,
    "target": str,
    "learn_sigma": _flag,
}
"""What --set takes, named as in a study's `tokenizer` and `stages.dit` -> how its text is read."""
FLAGS = ("qk_norm", "causal", "learn_sigma")
ABOUT_DIT = {"target", "learn_sigma"}

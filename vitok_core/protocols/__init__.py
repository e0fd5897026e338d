"""Under which rules is a number measured? Metrics and protocols by name; no torch here.

A metric says what is measured and how it is read (direction, scale for fits). A protocol says
everything else that changes the number: backbone and weights, resize, range, rounding. Both are
part of a result's identity and stored beside every value, because values of different protocols
must never meet in one fit.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable

from vitok_core.protocols._metrics import (
    FEATURE_WIDTHS,
    METRICS,
    SEE_CLIPS,
    Features,
    Metric,
    MetricGroup,
)
from vitok_core.protocols._protocols import LATER_BACKBONES, PROTOCOLS, Network, Protocol

__all__ = [
    "FEATURE_WIDTHS",
    "LATER_BACKBONES",
    "METRICS",
    "PROTOCOLS",
    "SEE_CLIPS",
    "Features",
    "Metric",
    "MetricGroup",
    "Network",
    "Protocol",
    "not_in_group",
    "not_of_code",
    "not_under",
    "pretrained",
    "references",
]


@functools.cache  # plans ask for every cell
def not_under(metric: str, protocol: str) -> str | None:
    """Why a metric cannot be measured under a protocol, or None.

    A protocol has one main backbone, and says in its record how further ones are used.
    """
    wanted = METRICS[metric].features
    fitting = [name for name, one in PROTOCOLS.items() if _has(one, wanted)]
    if protocol in fitting:
        return None
    return (
        f"{metric} is measured on features ({wanted}) that protocol {protocol} has no rule for; "
        f"take {' or '.join(fitting)} as the protocol, or leave the metric out"
    )


def _has(protocol: Protocol, wanted: Features | None) -> bool:
    if wanted == "dinov2":
        return bool(protocol.dino)
    if wanted == "i3d":
        return bool(protocol.video)
    if wanted == "clip":
        return bool(protocol.clip)
    if wanted == "videomae":
        return bool(protocol.videomae)
    return wanted in (None, "alex", protocol.features)


def not_in_group(metric: str, group: MetricGroup) -> str | None:
    """Why a group of `evaluate` does not measure a metric, or None."""
    own = METRICS[metric].group
    if own == group:
        return None
    what = {"reconstruction": "reconstructions or codes", "generation": "generated samples"}
    twin = ("g" if group == "generation" else "r") + metric[1:]
    hint = f"; its twin here is {twin}" if twin in METRICS else ""
    return (
        f"{metric} is a metric of {what[own]} and belongs under evaluate.{own}.metrics, not under "
        f"evaluate.{group}.metrics{hint}"
    )


def not_of_code(metric: str, *, grid: tuple[int, int, int] | None, random: bool) -> str | None:
    """Why a metric of codes cannot be measured on a tokenizer's codes, or None.

    Args:
        metric: key into `METRICS`; those of other things than codes can always be.
        grid: tokens in time, height and width; None for 1-D codes and codes that are cut.
        random: whether the code is a distribution.
    """
    if metric == "code_kl" and not random:
        return "code_kl: this bottleneck makes no distribution, so there is no KL"
    if metric not in ("code_spectrum_slope", "code_scale_error", "code_rotation_error"):
        return None
    if grid is None:
        return f"{metric} looks at the grid of tokens; a 1-D code and a cut code have none"
    if metric == "code_spectrum_slope" and min(grid[1:]) < 4:
        return f"{metric} needs a grid of at least 4 x 4 tokens, not {grid[1]} x {grid[2]}"
    if metric == "code_scale_error" and grid[1] % 2:
        return f"{metric} halves the grid of tokens, which is {grid[1]} x {grid[2]}"
    return None


def pretrained(metric: str, protocol: str) -> tuple[str, ...]:
    """The pretrained files that a metric needs under a protocol, names in `vitok_core.weights`."""
    wanted = METRICS[metric].features
    if wanted is None:
        return ()
    if wanted in ("lite0", "inception"):
        return (_WEIGHTS[PROTOCOLS[protocol].network],)
    return {
        "alex": ("lpips-alex-trunk", "lpips-alex-heads"),
        "dinov2": ("dinov2-l14",),
        "i3d": ("i3d",),
        "clip": ("clip-l14-336",),
        "videomae": ("videomae-g-ssv2",),
    }[wanted]


_WEIGHTS: dict[Network, str] = {
    "lite0": "lite0",
    "inception-tf1": "inception-fid",
    "inception-bicubic": "inception-fid",
    "inception-torchvision": "inception-torchvision",
}


def references(metrics: Iterable[str]) -> tuple[Features, ...]:
    """The backbones whose features of the originals these metrics compare with, sorted."""
    return tuple(
        sorted(
            {
                one.features
                for one in (METRICS[name] for name in metrics)
                if one.reference and one.features is not None
            }
        )
    )

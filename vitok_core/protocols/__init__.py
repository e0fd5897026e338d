"""Metrics, protocols and backbones by name: under which rules a number is measured; no torch here.

A metric says what is measured, by which function, and how it is read (direction, scale for fits). A
protocol says everything else that changes the number: rounding, pooling, the main network. A
backbone says which network it is, its files of weights, and how samples reach its input. What a
task reads of them is part of its identity, because values of different rules must never meet in one
fit.
"""

from __future__ import annotations

from collections.abc import Iterable

from vitok_core.protocols._metrics import METRICS, CodeNeeds, Metric, MetricGroup
from vitok_core.protocols._protocols import PROTOCOLS, Protocol, explained
from vitok_core.protocols.backbones import (
    BACKBONES,
    FILES,
    Backbone,
    Download,
    Packaged,
    Unpinned,
)

__all__ = [
    "BACKBONES",
    "FILES",
    "METRICS",
    "PROTOCOLS",
    "Backbone",
    "CodeNeeds",
    "Download",
    "Metric",
    "MetricGroup",
    "Packaged",
    "Protocol",
    "Unpinned",
    "explained",
    "networks",
    "not_in_group",
    "not_of_code",
    "not_under",
    "references",
]


def networks(metrics: Iterable[str], protocol: str) -> dict[str, Backbone]:
    """The networks that metrics look through under a protocol, by features, sorted.

    Features that the protocol has no rule for are left out, see `not_under`.
    """
    found = {}
    for features in sorted({one.features or "" for one in (METRICS[name] for name in metrics)}):
        if features and (backbone := PROTOCOLS[protocol].backbone(features)):
            found[features] = backbone
    return found


def not_under(metric: str, protocol: str) -> str | None:
    """Why a metric cannot be measured under a protocol, or None."""
    wanted = METRICS[metric].features
    if wanted is None or PROTOCOLS[protocol].backbone(wanted):
        return None
    fitting = [name for name, one in PROTOCOLS.items() if one.backbone(wanted)]
    return (
        f"{metric} is measured on features ({wanted}) that protocol {protocol} has no rule for; "
        f"take {' or '.join(fitting)} as the protocol, or leave the metric out"
    )


def not_in_group(metric: str, group: MetricGroup) -> str | None:
    """Why a group of `evaluate` does not measure a metric, or None."""
    own, twin = METRICS[metric].group, METRICS[metric].twin
    if own == group:
        return None
    what = {"reconstruction": "reconstructions or codes", "generation": "generated samples"}
    hint = f"; its twin here is {twin}" if twin else ""
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
    needs = METRICS[metric].code
    if needs.random and not random:
        return f"{metric}: this bottleneck makes no distribution, so there is no KL"
    if not needs.grid:
        return None
    if grid is None:
        return f"{metric} looks at the grid of tokens; a 1-D code and a cut code have none"
    if needs.even and grid[1] % 2:
        return f"{metric} halves the grid of tokens, which is {grid[1]} x {grid[2]}"
    if min(grid[1:]) < needs.grid:
        return (
            f"{metric} needs a grid of at least {needs.grid} x {needs.grid} tokens, not "
            f"{grid[1]} x {grid[2]}"
        )
    return None


def references(metrics: Iterable[str]) -> tuple[str, ...]:
    """The features of the originals that these metrics compare with, sorted."""
    found = {METRICS[name].features for name in metrics if METRICS[name].reference}
    return tuple(sorted(name for name in found if name is not None))

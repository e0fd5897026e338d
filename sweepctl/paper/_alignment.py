"""Which published number stands beside a result, how far apart are they, and may they be compared?

Alignment goes by design factors, not by E: a result is put beside the published point with the same
kind, metric, stride, patch side, channels and code length, and of several such points beside the
one that differs from it in the fewest other settings. Each difference that remains is named. One
that moves the metric by itself (data set, resolution, sizes, losses, amount and recipe of the
training, another feature network, far fewer samples) makes the pair incomparable; what nobody can
match or know (the paper's private training pictures, its unstated protocol, the rounding of the
arithmetic) is a reservation, and the pair is compared.

The yardstick is the paper's own: some configurations stand in several of its figures with different
values, because they were trained anew. The pooled standard deviation of those is what one more run
of the paper's would have changed; two single runs differ by 1.4 of it.
"""

from __future__ import annotations

import functools
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sweepctl.analyse import is_metric, scale_of
from sweepctl.laws import Scale
from sweepctl.paper._points import PROTOCOL
from sweepctl.paper._values import WITH_STAGE2, ConfiguredValue, configured, published
from vitok_core.protocols import METRICS

if TYPE_CHECKING:
    import pandas as pd

PLAUSIBLE = ("vitok", "adm")
"""Protocols that the paper may have used. It states none: its authors' code is `vitok`, and tables
that stand beside other papers' numbers suggest `adm`."""

FEWEST = 0.5
"""Share of the paper's number of samples below which a distribution metric is another quantity:
the bias of a Frechet distance goes with 1 / n."""

_SAMPLES = {
    "ImageNet-1K val": 50_000,
    "COCO-2017 val": 5_000,
    "ImageNet-1K": 50_000,
}
"""Samples of the paper's data sets, where their size is public and all of it is measured."""

_MAIN = "ImageNet-1K"
"""The paper's main data set, which goes first where nothing else decides."""

_RESERVED = ("precision",)
"""Settings that differ without making a pair incomparable: arXiv v1 of the paper has rFID 1.63 in
bfloat16 and 1.62 in float32."""


def _clips(one: ConfiguredValue) -> bool:
    return bool(one.factors["frames"] > 1)


def _of(name: str) -> Callable[[ConfiguredValue], Any]:
    return lambda one: one.factors.get(name)


_HARD: tuple[tuple[str, Callable[[ConfiguredValue], Any]], ...] = (
    ("clips", _clips),
    ("q", _of("q")),
    ("p", _of("p")),
    ("masked", lambda one: bool(one.factors["trained lengths"])),
    ("latent", lambda one: one.factors["latent tokens"] is not None),
    ("c", _of("c")),
    ("latent tokens", _of("latent tokens")),
    ("length", _of("length")),
    ("cfg", _of("cfg")),
)
"""What a published point must share with a result to stand beside it, in this order."""

_HARD_NAMES = {name for name, _ in _HARD}


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """How much a metric of the paper changes from run to run.

    Attributes:
        sd: standard deviation on the metric's scale (log2 for distances).
        df: degrees of freedom.
        configurations: number of configurations that were published more than once.
    """

    sd: float
    df: int
    configurations: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Aligned:
    """A result beside the paper's number.

    Attributes:
        own: the result.
        paper: the published number with the nearest configuration; None when there is no such
            point.
        scale: log2 when `difference` is log2(own / paper), raw when it is own - paper.
        difference: own against the paper, on that scale; None without a paper's number.
        spreads: the difference in standard deviations of the paper's run-to-run spread; None where
            the paper has no repeated run of the metric, or the pair is not comparable.
        comparable: whether the two may be compared.
        reasons: what makes them incomparable.
        reservations: what differs or is not known, and does not.
        others: (place, value) of further published numbers of the very same configuration.
    """

    own: ConfiguredValue
    paper: ConfiguredValue | None
    scale: Scale
    difference: float | None
    spreads: float | None
    comparable: bool
    reasons: tuple[str, ...]
    reservations: tuple[str, ...]
    others: tuple[tuple[str, float], ...]


def align(own: Iterable[ConfiguredValue], *, place: str = "") -> tuple[Aligned, ...]:
    """Put every result beside its published counterpart.

    Args:
        own: results; published points may stand for them, and are then beside themselves.
        place: beginning of the figure or table that is preferred among equals: "Fig 14".
    """
    return tuple(_aligned(one, place or one.place) for one in own)


def _aligned(own: ConfiguredValue, place: str) -> Aligned:
    scale: Scale = scale_of(own.metric) if is_metric(own.metric) else "raw"
    near, missing = _candidates(own)
    if not near:
        return Aligned(
            own=own,
            paper=None,
            scale=scale,
            difference=None,
            spreads=None,
            comparable=False,
            reasons=(missing,),
            reservations=(),
            others=(),
        )
    judged = [(*_differences(own, one), one) for one in near]
    reasons, reservations, paper = min(
        judged,
        key=lambda one: (
            len(one[0]),
            _has_stage2(one[2]) != _has_stage2(own),
            not one[2].stands_in(place),
            len(one[1]),
            not one[2].on.startswith(_MAIN),
            one[2].cell,
        ),
    )
    difference = _difference(own.value, paper.value, scale)
    spread = None if reasons else run_to_run(own.metric)
    same = [(one.place, one.value) for one in _repeated()[_key(paper)] if one.value != paper.value]
    return Aligned(
        own=own,
        paper=paper,
        scale=scale,
        difference=difference,
        spreads=None if spread is None or difference is None else difference / spread.sd,
        comparable=not reasons,
        reasons=reasons,
        reservations=reservations,
        others=tuple(dict.fromkeys(same)),
    )


def _difference(own: float, paper: float, scale: Scale) -> float | None:
    if math.isnan(own):
        return None
    if scale == "raw":
        return own - paper
    return math.log2(own / paper) if own > 0 else None


def _candidates(own: ConfiguredValue) -> tuple[list[ConfiguredValue], str]:
    """Published points that share the hard factors, or why there is none."""
    near = [one for one in published() if one.metric == own.metric and one.kind == own.kind]
    if not near:
        return [], f"the paper has no {own.metric}"
    told = [own.metric]
    for name, read in _HARD:
        if (wanted := read(own)) is None and name == "cfg":
            continue
        kept = [one for one in near if _equal(read(one), wanted) or _not_stated(one, name)]
        if not kept:
            return [], f"no such point: the paper has no {' '.join(told)} {_with(name, wanted)}"
        near = kept
        if name in ("q", "p", "c") and not (name == "q" and wanted == 1):
            told += ["with" if len(told) == 1 else "and", f"{name} {wanted}"]
    return near, ""


def _not_stated(one: ConfiguredValue, name: str) -> bool:
    return name == "cfg" and "cfg" not in one.factors


def _with(name: str, wanted: object) -> str:
    if name in ("clips", "masked", "latent"):
        nouns = {
            "clips": ("of clips", "of single images"),
            "masked": ("of a masked tokenizer", "of a tokenizer without lengths"),
            "latent": ("of a 1-D code", "of a code on a grid"),
        }[name]
        return nouns[0] if wanted else nouns[1]
    return f"at {name} {wanted}"


def _differences(
    own: ConfiguredValue, paper: ConfiguredValue
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What makes a pair incomparable, and what is to be kept in mind."""
    reasons: list[str] = []
    reservations: list[str] = []
    for name, wanted in paper.factors.items():
        if name in WITH_STAGE2 and not _has_stage2(own):
            continue  # that there is none is said once, by its steps
        if name in _HARD_NAMES or _equal(own.factors.get(name), wanted):
            continue
        words = f"{name} {_said(own.factors.get(name))}, not {_said(wanted)}"
        (reservations if name in _RESERVED else reasons).append(words)
    if own.on != paper.on:
        reasons.append(f"data set {own.on}, not {paper.on}")
    if own.protocol != PROTOCOL:
        if own.protocol in PLAUSIBLE:
            reservations.append(f"protocol {own.protocol}; the paper states none")
        else:
            reasons.append(
                f"protocol {own.protocol}, none of those that the paper may have used "
                f"({' or '.join(PLAUSIBLE)})"
            )
    wanted = _SAMPLES.get(paper.on)
    if own.n is not None and wanted is not None and own.n != wanted:
        words = f"{own.n:,} samples, not {wanted:,}"
        biased = own.metric not in METRICS or METRICS[own.metric].of == "features"
        (reasons if biased and own.n < FEWEST * wanted else reservations).append(words)
    originals = own.factors.get("originals")
    # More of them, the whole training set for one, is what ADM's own evaluation has.
    compared = own.metric in METRICS and METRICS[own.metric].reference
    if compared and originals is not None and wanted is not None and originals < wanted:
        words = f"{originals:,} originals, not {wanted:,}"
        (reasons if originals < FEWEST * wanted else reservations).append(words)
    if own.training_set != paper.training_set:
        reservations.append(f"trained on {own.training_set}, the paper on {paper.training_set}")
    return tuple(reasons), tuple(reservations)


def _has_stage2(one: ConfiguredValue) -> bool:
    return one.factors.get("stage 2 steps") is not None


def _said(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool | str):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _equal(one: object, other: object) -> bool:
    if isinstance(one, float | int) and isinstance(other, float | int):
        return one == other or math.isclose(one, other, rel_tol=1e-9)
    return one == other


# --- the paper's own spread -------------------------------------------------------------------


def _key(one: ConfiguredValue) -> tuple[Any, ...]:
    return (one.metric, one.kind, one.on, tuple(sorted(one.factors.items(), key=lambda kv: kv[0])))


@functools.cache
def _repeated() -> Mapping[tuple[Any, ...], Sequence[ConfiguredValue]]:
    """Published numbers by what they measured: of one configuration in several places."""
    groups: dict[tuple[Any, ...], list[ConfiguredValue]] = defaultdict(list)
    for one in published():
        groups[_key(one)].append(one)
    return groups


@functools.cache
def run_to_run(metric: str) -> Spread | None:
    """The paper's run-to-run spread of a metric; None where it has no repeated run.

    A configuration counts when the paper has different values of it on the same data set; equal
    values are one run that is shown twice. Variances are pooled over configurations.
    """
    groups = [[one.value for one in same] for key, same in _repeated().items() if key[0] == metric]
    scale = scale_of(metric) if is_metric(metric) else "raw"
    squares, df, configurations = 0.0, 0, 0
    for values in groups:
        distinct = sorted(set(values))
        if len(distinct) < 2:
            continue
        seen = [math.log2(value) for value in distinct] if scale == "log2" else distinct
        mean = sum(seen) / len(seen)
        squares += sum((value - mean) ** 2 for value in seen)
        df += len(seen) - 1
        configurations += 1
    return Spread(sd=math.sqrt(squares / df), df=df, configurations=configurations) if df else None


def as_published(
    rows: Sequence[Mapping[str, Any]], configs: Mapping[int, Mapping[str, Any]], *, place: str = ""
) -> pd.DataFrame:
    """A planned study as if the paper had run it: what it published on the very same designs.

    Rows without a published number are left out; the protocol of the others is the paper's.

    Args:
        rows: the planned numbers with the columns of a frame of results, see `plan.design_rows`.
        configs: config of each cell by its number.
        place: the figure or table that is preferred where there are several.
    """
    import pandas as pd

    found = []
    for row in rows:
        asked = {name: row[name] for name in ("metric", "dataset", "protocol", "n", "cell")}
        planned = configured(configs[row["cell"]], value=math.nan, **asked)
        pair = _aligned(planned, place)
        # What the paper does not say or nobody can match is no matter here: it is its own number.
        designed = [reason for reason in pair.reasons if not reason.startswith("protocol ")]
        if pair.paper is not None and not designed:
            found.append({**row, "value": pair.paper.value, "protocol": PROTOCOL})
    return pd.DataFrame.from_records(found, columns=list(rows[0]) if rows else None)

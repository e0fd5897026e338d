"""What will a plan take? Hours, from recorded tasks or from an assumption, with an interval.

A task is expected to run at the rate of finished tasks on the same kind of device, the first of
these that there is:

    1. of its own kind: FLOP/s, of those within a factor of 4 of its FLOPs if there are three of
       them, else of all; tasks whose FLOPs are not counted go by seconds a sample, or a task
    2. of any training, by FLOP/s
    3. a stated share of the device's peak, each operation at the peak of its precision

Rates are compared as logarithms. Of n of them with standard deviation s, the 95 % interval of one
more task is t(n - 1) * s * sqrt(1 + 1 / n) wide to each side; of a sum of tasks of one source their
own deviations average out and the common one stays. One attempt gives no interval, nor do a few
that differ so much that it would end beyond 1,000 times the expectation: t(1) is 12.7. An
assumption that the user states has none either; the built-in one has the spread of what it was
taken from.
"""

from __future__ import annotations

import bisect
import functools
import itertools
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sweepctl.errors import UsageError
from sweepctl.kinds import trainings
from sweepctl.statistics import t_quantile
from vitok_core.errors import SpecError
from vitok_core.spec import DEVICES, Flops, known_device, least_seconds

if TYPE_CHECKING:
    from sweepctl.plan._model import Task
    from sweepctl.plan._operations import Cost

ASSUMED_SHARE = 0.20
ASSUMED_SHARES = (0.13, 0.34)
"""Share of the peak where nothing is measured or stated, and its range. The ViTok paper's own hours
(8 H100: stage 1 of S-B/16 6 to 12, stage 2 3 to 6, DiT-L 72 to 96) are the operations counted here
at 13 to 27, 17 to 34 and 18 to 24 % of the peak."""

NEAR = 4.0
NEAR_LEAST = 3
"""Recorded tasks within this factor of a task's FLOPs are enough, if there are so many."""

WIDEST = 1000.0
"""Most that the upper end of an interval may be times the expectation; a wider one says nothing."""

LITTLE = 0.1
"""Share of a sum that may be without an interval; it then counts as its own half-width."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """How fast one finished task has been.

    Attributes:
        kind: its kind.
        device: kind of device it ran on, for example "NVIDIA H100 80GB HBM3".
        seconds: wall time of the attempts that made it, times the devices that each had.
        flops: floating point operations it did; 0 where they are not counted.
        samples: images or clips it went through; 0 where there are none.
    """

    kind: str
    device: str
    seconds: float
    flops: float = 0.0
    samples: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class On:
    """Which devices a plan is to be costed for.

    Attributes:
        devices: how many, at least 1.
        device: a name, or words of one; of a stated peak the words that state it.
        share: of the peak, above 0 and at most 1; None takes what was measured, if anything was.
        peak: of each device, in FLOP/s, where it is stated; else that of its data sheet counts.
    """

    devices: int = 1
    device: str
    share: float | None = None
    peak: float | None = None


def parse_on(text: str) -> On:
    """Read "8xH100@0.35", "H100", "2xL40S@35%" or "8 x 200 TFLOP/s".

    Raises:
        UsageError: not of that form, or a number out of range.
    """
    match = re.fullmatch(
        r"(?:([0-9]{1,9})\s*[x*×]\s*)?([^@]*?\S)\s*(?:@\s*([0-9.]+)\s*(%?))?", text.strip()
    )
    form = (
        "write [COUNTx]DEVICE[@SHARE], for example 8xH100@0.35; a peak of your own is a device, "
        "too: '8 x 200 TFLOP/s'"
    )
    if match is None:
        raise UsageError(f"--on cannot be {text!r}", hint=form)
    count, device, share, percent = match.groups()
    try:
        value = None if share is None else float(share) / (100 if percent else 1)
    except ValueError:
        raise UsageError(f"--on {text}: {share!r} is no number", hint=form) from None
    if value is not None and not 0 < value <= 1:
        raise UsageError(f"--on {text}: a share of the peak is above 0 and at most 1", hint=form)
    if count is not None and int(count) < 1:
        raise UsageError(f"--on {text}: at least 1 device is needed", hint=form)
    peak = _stated_peak(device)
    if peak is not None and not 0 < peak < math.inf:
        raise UsageError(f"--on {text}: a peak is above 0", hint=form)
    return On(devices=int(count or 1), device=device, share=value, peak=peak)


def _stated_peak(device: str) -> float | None:
    """The FLOP/s that a text like "200 TFLOP/s" states, None for the name of a device."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*([GTP])FLOP(?:S|/S)?", device.upper())
    if match is None:
        return None
    return float(match[1]) * {"G": 1e9, "T": 1e12, "P": 1e15}[match[2]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Basis:
    """Where an expected time comes from.

    Attributes:
        of: for people, "stage1 tasks on NVIDIA L4" or "assumed 35 % of 989 TFLOP/s bf16 (...)".
        about: what it is wrong about together with others; empty where `of` says that, too.
        measured: number of finished tasks; 0 for an assumption.
        sd: standard deviation of the logarithm of their rates; None of fewer than two.
        range: factors of the time at the ends of an assumption's range; None without one.
    """

    of: str
    about: str = ""
    measured: int
    sd: float | None = None
    range: tuple[float, float] | None = None

    @property
    def source(self) -> str:
        """For people, with the number of tasks."""
        return f"{self.measured} {self.of}" if self.measured else self.of


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """How long something will take on one device.

    Attributes:
        seconds: the expectation.
        low, high: ends of its 95 % interval, or of the range of an assumption; None where nothing
            is known about its error, or so little that the interval would say nothing.
        basis: where that comes from; of a sum None.
    """

    seconds: float
    low: float | None
    high: float | None
    basis: Basis | None = None


class Calibration:
    """Expected times by what was measured on one kind of device, or assumed of it.

    Args:
        speeds: finished tasks, the newest last.
        on: the devices to cost for; None takes the kind of device of the newest finished task.

    Raises:
        UsageError: a device that nothing is known of.
    """

    def __init__(self, speeds: Sequence[Speed] = (), on: On | None = None) -> None:
        self.on = on
        self.device, self._peaks = _device(speeds, on)
        self._rates: dict[tuple[str, str], _Rates] = {}
        self._known: dict[tuple[str, Cost], Expected | None] = {}
        if on is not None and on.share is not None:
            return
        grouped: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
        trained = trainings()
        for one in speeds:
            if one.device != self.device or not one.seconds > 0:
                continue
            if one.flops > 0:
                point = math.log(one.flops), math.log(one.seconds / one.flops)
                grouped[one.kind, "FLOPs"].append(point)
                if one.kind in trained:  # FLOP/s of trainings say something about each other
                    grouped["training", "FLOPs"].append(point)
            if one.samples > 0:
                point = math.log(one.samples), math.log(one.seconds / one.samples)
                grouped[one.kind, "samples"].append(point)
            grouped[one.kind, "tasks"].append((0.0, math.log(one.seconds)))
        self._rates = {key: _Rates(points, *key, self.device) for key, points in grouped.items()}

    @property
    def memory_bytes(self) -> int | None:
        """Memory of the device by its data sheet; None where that is not known."""
        return DEVICES[self.device].memory_bytes if self.device in DEVICES else None

    def expect(self, kind: str, cost: Cost) -> Expected | None:
        """The time of one task on one device, or None where nothing is known of it."""
        if (kind, cost) not in self._known:
            self._known[kind, cost] = self._expect(kind, cost)
        return self._known[kind, cost]

    def _expect(self, kind: str, cost: Cost) -> Expected | None:
        for of, unit, amount in (
            (kind, "FLOPs", cost.flops),
            (kind, "samples", 0 if cost.flops else cost.samples),
            (kind, "tasks", 0 if cost.flops or cost.samples else 1),
            ("training", "FLOPs", cost.flops),
        ):
            rates = self._rates.get((of, unit))
            if amount and rates is not None:
                return rates.expect(amount)
        if self._peaks is None or not cost.flops:
            return None
        return self._assumed(cost)

    def _assumed(self, cost: Cost) -> Expected:
        assert self._peaks is not None
        stated = None if self.on is None else self.on.share
        share = stated or ASSUMED_SHARE
        flops = Flops(
            bf16=cost.flops - cost.tf32_flops - cost.fp32_flops,
            tf32=cost.tf32_flops,
            fp32=cost.fp32_flops,
        )
        seconds = least_seconds(flops, self._peaks) / share
        spread = None if stated else (share / ASSUMED_SHARES[1], share / ASSUMED_SHARES[0])
        used = tuple(kind for kind in _PRECISIONS if getattr(flops, kind))
        peak = _peaks_in_words(self._peaks, used)
        basis = _assumption(self.device, peak, share, spread)
        low, high = (None, None) if spread is None else (seconds * spread[0], seconds * spread[1])
        return Expected(seconds=seconds, low=low, high=high, basis=basis)


def _device(speeds: Sequence[Speed], on: On | None) -> tuple[str, Mapping[str, float] | None]:
    """The kind of device that is meant, and its peaks if a data sheet is known."""
    if on is None:
        device = next((one.device for one in reversed(speeds) if one.device), "")
        return device, _sheet(device)
    if on.peak is not None:
        return on.device, dict.fromkeys(_PRECISIONS, on.peak)
    recorded = dict.fromkeys(one.device for one in reversed(speeds))
    if on.share is None:
        wanted = set(re.findall(r"\w+", on.device.lower()))
        for device in recorded:
            if wanted and wanted <= set(re.findall(r"\w+", device.lower())):
                return device, _sheet(device)
    try:
        name = known_device(on.device)
    except SpecError as error:
        ran = f"; tasks were recorded on {', '.join(recorded)}" if recorded else ""
        raise UsageError(f"{error.message}{ran}") from error
    return name, DEVICES[name].peaks


def _sheet(device: str) -> Mapping[str, float] | None:
    return DEVICES[device].peaks if device in DEVICES else None


_PRECISIONS = ("bf16", "tf32", "fp32")


def _peaks_in_words(peaks: Mapping[str, float], used: Sequence[str]) -> str:
    """The peaks of the precisions that a task computes in, "989 TFLOP/s bf16, 67 TFLOP/s fp32"."""
    by_peak: dict[float, list[str]] = {}
    for kind in used:
        by_peak.setdefault(peaks[kind], []).append(kind)
    return ", ".join(f"{_tera(peak)} {' and '.join(kinds)}" for peak, kinds in by_peak.items())


def _tera(peak: float) -> str:
    return f"{peak / 1e12:.0f} TFLOP/s" if peak >= 1e14 else f"{peak / 1e12:.3g} TFLOP/s"


@functools.cache
def _assumption(device: str, peak: str, share: float, spread: tuple[float, float] | None) -> Basis:
    low, high = (100 * end for end in ASSUMED_SHARES)
    ends = "" if spread is None else f", {low:.3g} to {high:.3g} %"
    # A stated peak is its own name, and holds for every precision.
    at = device if _stated_peak(device) is not None else peak
    of = "" if at == device else f" ({device})"
    said = f"assumed {100 * share:.3g} % of {at}{ends}{of}"
    return Basis(of=said, about=f"{100 * share:.3g} % of {device}", measured=0, range=spread)


class _Rates:
    """Logarithms of seconds a unit of finished tasks, ordered by their size."""

    def __init__(
        self, points: list[tuple[float, float]], kind: str, unit: str, device: str
    ) -> None:
        ordered = sorted(points)
        self._sizes = [size for size, _ in ordered]
        self._about = ordered[0][1]  # sums of squares keep their digits when they are small
        rates = [rate - self._about for _, rate in ordered]
        self._sums = list(itertools.accumulate(rates, initial=0.0))
        self._squares = list(itertools.accumulate((rate**2 for rate in rates), initial=0.0))
        self._kind, self._device = kind, device
        self._bases: dict[tuple[int, int], tuple[float, Basis]] = {}

    def expect(self, amount: float) -> Expected:
        size, near = math.log(amount), math.log(NEAR)
        first = bisect.bisect_left(self._sizes, size - near)
        last = bisect.bisect_right(self._sizes, size + near)
        if last - first < NEAR_LEAST:
            first, last = 0, len(self._sizes)
        if (first, last) not in self._bases:
            self._bases[first, last] = self._basis(first, last)
        rate, basis = self._bases[first, last]
        return _with_interval(amount * math.exp(rate), basis, 1.0)

    def _basis(self, first: int, last: int) -> tuple[float, Basis]:
        n = last - first
        mean = (self._sums[last] - self._sums[first]) / n
        squares = self._squares[last] - self._squares[first]
        sd = None if n < 2 else math.sqrt(max(squares - n * mean**2, 0.0) / (n - 1))
        tasks = f"{self._kind} task{'' if n == 1 else 's'}"
        of = f"{tasks} on {self._device or 'an unnamed device'}"
        return self._about + mean, Basis(of=of, measured=n, sd=sd)


def _with_interval(seconds: float, basis: Basis, own: float) -> Expected:
    """An expectation with the interval of its basis.

    Args:
        seconds: expected.
        basis: where from.
        own: sum of the squared shares of the tasks in it: 1 for one task, 1 / k for k equal ones.
    """
    low = high = None
    if basis.sd is not None:
        wide = t_quantile(basis.measured - 1) * basis.sd * math.sqrt(1 / basis.measured + own)
        if wide <= math.log(WIDEST):
            low, high = seconds * math.exp(-wide), seconds * math.exp(wide)
    elif basis.range is not None:
        low, high = seconds * basis.range[0], seconds * basis.range[1]
    return Expected(seconds=seconds, low=low, high=high, basis=basis)


def together(parts: Iterable[Expected]) -> Expected:
    """The time of several tasks one after the other.

    Deviations of tasks from their common rate average out, that of the rate itself does not.
    Sources of one kind overlap and are wrong together, those of different kinds independently.
    """
    sums: dict[Basis | None, float] = defaultdict(float)
    squares: dict[Basis | None, float] = defaultdict(float)
    bare = 0.0
    for part in parts:
        sums[part.basis] += part.seconds
        squares[part.basis] += part.seconds**2
    halves: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for basis, seconds in sums.items():
        one = None
        if basis is not None and seconds > 0:
            one = _with_interval(seconds, basis, squares[basis] / seconds**2)
        half = halves["" if basis is None else basis.about or basis.of]
        if one is None or one.low is None or one.high is None:
            bare += seconds
            half[0] += seconds
            half[1] += seconds
        else:
            half[0] += seconds - one.low
            half[1] += one.high - seconds
    total = sum(sums.values())
    below, above = (math.hypot(*(half[end] for half in halves.values())) for end in (0, 1))
    if bare > LITTLE * total:
        return Expected(seconds=total, low=None, high=None)
    return Expected(seconds=total, low=max(total - below, 0.0), high=total + above)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hours:
    """The time of several tasks on one device.

    Attributes:
        hours: the expectation, of the tasks that something is known of.
        low, high: ends of its 95 % interval; None where it is not known.
        sources: where the expectations come from.
        unknown: tasks that nothing is known of, by kind.
    """

    hours: float
    low: float | None
    high: float | None
    sources: tuple[str, ...]
    unknown: Mapping[str, int]


def expected_hours(tasks: Iterable[Task], calibration: Calibration) -> Hours:
    """How long tasks take one after the other on one device."""
    parts, unknown = [], Counter[str]()
    bases: dict[str, set[int]] = {}
    for task in tasks:
        expected = calibration.expect(task.kind, task.cost)
        if expected is None:
            unknown[task.kind] += 1
            continue
        parts.append(expected)
        if expected.basis is not None:
            bases.setdefault(expected.basis.of, set()).add(expected.basis.measured)
    total = together(parts)
    return Hours(
        hours=total.seconds / 3600,
        low=None if total.low is None else total.low / 3600,
        high=None if total.high is None else total.high / 3600,
        sources=tuple(_in_words(of, counts) for of, counts in bases.items()),
        unknown=dict(unknown),
    )


def _in_words(of: str, counts: set[int]) -> str:
    """A source with how many finished tasks it rests on, "3 to 9 stage1 tasks on ..."."""
    least, most = min(counts), max(counts)
    if most == 0:
        return of
    return f"{most} {of}" if least == most else f"{least} to {most} {of}"

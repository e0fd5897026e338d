"""The forms of laws that a study can fit: one record per form, and everything else reads it.

A form is either linear in its parameters (a line, or a polynomial in log2 x: `degree`, with its
design matrix in `Powers`) or a curve `y = floor + a phi(v)` with v = ln x (`curve`). Its equation
and what its slope means in words are methods of the record. To add a form, add a record to `FORMS`:
the study file, its schema, fits, bands, texts and the command line take it from there. Importing
this module loads no numpy; the functions do when they are called.

Curves: phi of the four power laws, with their shape parameters.
    power          exp(-b v), one term per variable
    power-shifted  ((e^v + s) / (1 + s))^-b               the law starts late
    power-bounded  1 / (1 + exp(b (v - k)))               a ceiling floor + a besides the floor
    power-break    e^(-b v) (1 + exp((v - k)/f))^(-c f)   exponent b, then b + c; f: sharpness
Sources: Alabdulmohsin et al. 2022 (shifted, bounded: M3, M4), Caballero et al. 2023 (break).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]
    Derivatives = tuple[Array, list[Array], dict[tuple[int, int], Array]]

Scale = Literal["log2", "raw"]
"""How a law sees a number."""

Say = Callable[[float], str]
"""How a number is written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Number:
    """A number of a fitted curve that is reported, in units of x and y.

    Attributes:
        name: its name among the coefficients.
        owner: place in theta of the parameter without which it has no interval; 1 is the amplitude.
        of: the number (its natural logarithm when `positive`) from theta, the mean of ln x and the
            mean of ln y. theta is (floor, amplitude, shapes of the term), with x and y divided by
            their geometric means.
        positive: whether it is estimated on its logarithm.
        in_x: whether it is multiplied by the geometric mean of x.
    """

    name: str
    owner: int
    of: Callable[[Array, float, float], float]
    positive: bool = False
    in_x: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """A law that is not linear in its parameters: y = floor + a phi(v), fitted on ln y.

    Arrays of B laws at N points; v is ln x, centered.

    Attributes:
        shapes: names of the shape parameters of phi.
        bounds: their ranges, from the smallest and the largest v.
        starts: values of each shape from which the search starts, dense enough to find every
            valley; from the smallest v, the largest v and the number of variables.
        log_phi: ln phi, shape (B, N), its derivatives in each shape, and its second derivatives by
            pairs (q, r) with q <= r, left out where they are 0; from v, shape (1, N), and from each
            shape, (B, 1). Exact, so that Newton's method ends where the gradient is zero.
        numbers: what is reported besides the floor.
        equation: what is added to the floor, as people write it: from the reported numbers by name,
            the name of x, and how a number is written.
        kept: how many starts Newton's method is given.
    """

    shapes: tuple[str, ...]
    bounds: Callable[[float, float], Sequence[tuple[float, float]]]
    starts: Callable[[float, float, int], Sequence[Array]]
    log_phi: Callable[..., Derivatives]
    numbers: tuple[Number, ...]
    equation: Callable[[Mapping[str, float], str, Say], str]
    kept: int = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Powers:
    """A law that is linear in its parameters: y = sum of b_k u^k, u being x on its scale, centered.

    Attributes:
        degree: highest power.
    """

    degree: int

    @property
    def names(self) -> tuple[str, ...]:
        """Names of its coefficients."""
        return ("intercept", "slope" if self.degree == 1 else "linear", *_HIGHER[: self.degree - 1])

    @property
    def next(self) -> str:
        """The name of the term that it lacks first."""
        return _HIGHER[self.degree - 1]

    def rows(self, u: Array) -> Array:
        """Its design matrix, shape (n, degree + 1), at u, shape (n,)."""
        import numpy as np

        return np.vander(u, self.degree + 1, increasing=True)

    def from_zero(self, center: float) -> Array:
        """What turns coefficients of powers of x - center into those of powers of x."""
        import numpy as np

        matrix = np.zeros((self.degree + 1, self.degree + 1))
        for power in range(self.degree + 1):
            expanded = np.poly1d([1.0, -center]) ** power if power else np.poly1d([1.0])
            for exponent, coefficient in enumerate(expanded.coeffs[::-1]):
                matrix[exponent, power] = coefficient
        return matrix

    def factor(self, name: str, x: str) -> str | None:
        """What the coefficient of a name is multiplied with, None where it has none of that name.

        Args:
            name: of the coefficient.
            x: the variable as its scale has it, "log2 E".
        """
        if name not in self.names:
            return None
        power = self.names.index(name)
        return "" if power == 0 else x if power == 1 else f"({x})^{power}"


_HIGHER = ("quadratic", "cubic", "quartic")


@dataclass(frozen=True, slots=True, kw_only=True)
class LawForm:
    """One form of law.

    Attributes:
        name: its name in a study file.
        about: what is fitted, in a few words.
        y_scale: scale of y; None takes the study's `scale`, else the metric's own.
        x_scale: scale of x; None takes x as it is, and a metric on its own scale.
        degree: highest power of x in a law that is linear in its parameters; 0 for a curve.
        curve: what makes it a curve.
        several: whether it takes several variables.
        claims: keys of the claims about a fit that it supports.
    """

    name: str
    about: str
    y_scale: Scale | None = None
    x_scale: Scale | None = "log2"
    degree: int = 0
    curve: Curve | None = None
    several: bool = False
    claims: tuple[str, ...] = ("slope", "fits", "holdout")

    @property
    def is_line(self) -> bool:
        """Whether its slope is the same everywhere."""
        return self.degree == 1

    @property
    def powers(self) -> Powers:
        """The design of a form that is linear in its parameters."""
        return Powers(degree=self.degree)

    def equation(self, seen: Scales, numbers: Mapping[str, float], say: Say) -> str:
        """A law as people write it: "log2 rfid = 17.3 - 1.38 log2 E", "rfid = 0.1 + 2950 E^-0.91".

        Args:
            seen: the names and scales of metric and variables.
            numbers: name of each coefficient -> its estimate, in the order of the design.
            say: how a number is written.
        """
        if self.curve is not None:
            parts = []
            for x in seen.xs:  # one term per variable, whose name ends those of its numbers
                end = f" {x}" if len(seen.xs) > 1 else ""
                mine = [name for name in numbers if name.endswith(end)]
                named = {name.removesuffix(end): numbers[name] for name in mine}
                parts.append(self.curve.equation(named, x, say))
            return f"{seen.metric} = {say(numbers['floor'])} + {' + '.join(parts)}"
        text = f"{'log2 ' if seen.scale == 'log2' else ''}{seen.metric} ="
        for index, (name, value) in enumerate(numbers.items()):
            term, sign = self._term(seen, name), "-" if value < 0 else "+" if index else ""
            text += f" {sign}{' ' if index else ''}{say(abs(value))}"
            text += f" {term}" if term else ""
        return text

    def _term(self, seen: Scales, name: str) -> str:
        """What a coefficient is multiplied with; a level of a factor stands in brackets."""
        power, _, rest = name.partition(" ")
        scales = zip(seen.xs, seen.x_scales, strict=True)
        xs = {x: f"log2 {x}" if scale == "log2" else x for x, scale in scales}
        factor = self.powers.factor(power, xs.get(rest, xs[seen.xs[0]]))
        if factor is None:
            return f"[{name}]"
        return f"[{rest}] {factor}" if rest and rest not in xs else factor

    def slope_in_words(
        self,
        seen: Scales,
        slope: float,
        interval: tuple[float, float],
        center: float,
        say: Say,
        units: tuple[str, str] = ("", ""),
    ) -> str:
        """What a doubling of x, or one more of it, does to the metric.

        Args:
            seen: the names and scales of metric and variables.
            slope: dy/dx of the first variable at its center, both on their scales.
            interval: its ends.
            center: where that slope holds, on the scale of x.
            say: how a number is written.
            units: of the metric and of x, with a space before each.
        """
        metric, x = seen.metric, seen.xs[0]
        doubling = seen.x_scales[0] == "log2"
        where = "" if self.is_line else f"at {x} = {say(exp2(center) if doubling else center)}, "
        one = units[1].strip() or "1"
        step = f"each doubling of {x}" if doubling else f"each further {one} of {x}"
        others = f" at equal {', '.join(seen.xs[1:])}" if len(seen.xs) > 1 else ""
        if seen.scale == "log2":
            ends = [exp2(end) for end in interval]
            change = f"multiplies {metric} by {say(exp2(slope))} {between(ends, say)}"
        else:
            sign = 1 if slope >= 0 else -1
            ends = sorted(sign * end for end in interval)
            amount = f"{say(abs(slope))} {between(ends, say)}{units[0]}"
            change = f"adds {amount} to {metric}" if sign > 0 else f"takes {amount} from {metric}"
        return f"{where}{step}{others} {change}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scales:
    """How a fitted law sees its numbers: the metric and its scale, the variables and theirs."""

    metric: str
    scale: Scale
    xs: tuple[str, ...]
    x_scales: tuple[Scale, ...]


def between(ends: Sequence[float], say: Say) -> str:
    """An interval as people write it: "[1.3, 2.1]"."""
    return f"[{', '.join(map(say, ends))}]"


def exp2(value: float) -> float:
    """2**value, infinite instead of an error where floats end."""
    return math.inf if value >= 1024 else 2.0**value


# --- curves ---------------------------------------------------------------------------------------

_EXPONENTS = (1e-3, 12.0)
"""Range of exponents per factor e of x; an estimate on its edge is reported as being there."""

_REACH = 3.0
"""How far beyond the points, in ln x, a law may change its shape."""


def _power(v: Array, b: Array) -> Derivatives:
    import numpy as np

    log_phi = -b * v
    return log_phi, [np.broadcast_to(-v, log_phi.shape)], {}


def _power_starts(low: float, high: float, variables: int) -> list[Array]:
    import numpy as np

    return [np.geomspace(0.03, 6.0, {1: 32, 2: 14, 3: 8, 4: 6}.get(variables, 4))]


def _shifted(v: Array, b: Array, s: Array) -> Derivatives:
    import numpy as np

    inner = np.exp(v) + s
    log_ratio = np.log(inner) - np.log1p(s)
    slope = 1 / inner - 1 / (1 + s)
    bend = -1 / inner**2 + 1 / (1 + s) ** 2
    return -b * log_ratio, [-log_ratio, -b * slope], {(0, 1): -slope, (1, 1): -b * bend}


def _shifted_starts(low: float, high: float, variables: int) -> list[Array]:
    import numpy as np

    return [np.geomspace(0.05, 6.0, 20), np.exp(np.linspace(low - 2, high + 1, 10))]


def _sigmoid(z: Array) -> Array:
    import numpy as np

    half: Array = 0.5 * (1 + np.tanh(z / 2))
    return half


def _bounded(v: Array, b: Array, k: Array) -> Derivatives:
    import numpy as np

    z = b * (v - k)
    share = _sigmoid(z)
    bell = share * (1 - share)
    second = {
        (0, 0): -bell * (v - k) ** 2,
        (0, 1): bell * b * (v - k) + share,
        (1, 1): -bell * b**2,
    }
    return -np.logaddexp(0, z), [-share * (v - k), share * b], second


def _bounded_starts(low: float, high: float, variables: int) -> list[Array]:
    import numpy as np

    return [np.geomspace(0.1, 6.0, 16), np.linspace(low - 1, high + 1, 12)]


def _bounded_equation(number: Mapping[str, float], x: str, say: Say) -> str:
    span = say(number["ceiling"] - number["floor"])
    return f"{span} / (1 + ({x} / {say(number['midpoint'])})^{say(number['exponent'])})"


def _broken(v: Array, b: Array, c: Array, k: Array, g: Array) -> Derivatives:
    import numpy as np

    f = np.exp(g)
    z = (v - k) / f
    soft, share = np.logaddexp(0, z), _sigmoid(z)
    bell = share * (1 - share)
    rest = soft - z * share
    zero = np.zeros(np.broadcast_shapes(v.shape, b.shape))
    first = [zero - v, -f * soft, c * share, -c * f * rest]
    second = {
        (1, 2): share + zero,
        (1, 3): -f * rest,
        (2, 2): -c * bell / f,
        (2, 3): -c * bell * z,
        (3, 3): -c * f * (rest + z**2 * bell),
    }
    return -b * v - c * f * soft, first, second


def _broken_starts(low: float, high: float, variables: int) -> list[Array]:
    import numpy as np

    change = np.asarray([-1.5, -0.7, -0.3, 0.3, 0.7, 1.5, 3.0])
    inner = np.linspace(low, high, 9)[1:-1]
    return [np.geomspace(0.05, 3.0, 7), change, inner, np.asarray([-1.6, -0.4])]


def _broken_equation(number: Mapping[str, float], x: str, say: Say) -> str:
    first, after, sharpness = (number[name] for name in ("exponent", "exponent after", "sharpness"))
    bend = f"(1 + ({x} / {say(number['break'])})^{say(1 / sharpness)})"
    return f"{say(number['amplitude'])} {x}^-{say(first)} {bend}^{say((first - after) * sharpness)}"


_EXPONENT = Number(name="exponent", owner=2, of=lambda t, u, w: t[2])
_AMPLITUDE = Number(
    name="amplitude", owner=1, of=lambda t, u, w: math.log(t[1]) + t[2] * u + w, positive=True
)

# --- the forms ------------------------------------------------------------------------------------

_POLYNOMIAL = "y (log2 for distances) on powers of log2 x"
_WITH_OPTIMUM = ("slope", "fits", "holdout", "optimum")

FORMS: dict[str, LawForm] = {
    form.name: form
    for form in (
        LawForm(name="loglog", about="log2 y on log2 x", y_scale="log2", degree=1, several=True),
        LawForm(name="semilog", about="y on log2 x", y_scale="raw", degree=1, several=True),
        LawForm(
            name="linear",
            about="y on x, distances in log2",
            x_scale=None,
            degree=1,
            several=True,
        ),
        LawForm(name="quadratic", about=_POLYNOMIAL, degree=2, claims=_WITH_OPTIMUM),
        LawForm(name="cubic", about=_POLYNOMIAL, degree=3, claims=_WITH_OPTIMUM),
        LawForm(
            name="power",
            about="floor + a x^-b",
            y_scale="log2",
            several=True,
            curve=Curve(
                shapes=("exponent",),
                bounds=lambda low, high: [_EXPONENTS],
                starts=_power_starts,
                log_phi=_power,
                numbers=(_AMPLITUDE, _EXPONENT),
                equation=lambda number, x, say: (
                    f"{say(number['amplitude'])} {x}^-{say(number['exponent'])}"
                ),
                kept=12,
            ),
        ),
        LawForm(
            name="power-shifted",
            about="floor + a (x + s)^-b",
            y_scale="log2",
            curve=Curve(
                shapes=("exponent", "shift"),
                bounds=lambda low, high: [_EXPONENTS, (0.0, math.exp(high + _REACH))],
                starts=_shifted_starts,
                log_phi=_shifted,
                numbers=(
                    _EXPONENT,
                    Number(
                        name="amplitude",
                        owner=1,
                        of=lambda t, u, w: math.log(t[1]) + t[2] * (u + math.log1p(t[3])) + w,
                        positive=True,
                    ),
                    Number(name="shift", owner=3, of=lambda t, u, w: t[3], in_x=True),
                ),
                equation=lambda number, x, say: (
                    f"{say(number['amplitude'])} ({x} + {say(number['shift'])})"
                    f"^-{say(number['exponent'])}"
                ),
            ),
        ),
        LawForm(
            name="power-bounded",
            about="between a floor and a ceiling",
            y_scale="log2",
            curve=Curve(
                shapes=("exponent", "midpoint"),
                bounds=lambda low, high: [_EXPONENTS, (low - _REACH, high + _REACH)],
                starts=_bounded_starts,
                log_phi=_bounded,
                numbers=(
                    _EXPONENT,
                    Number(
                        name="ceiling",
                        owner=1,
                        of=lambda t, u, w: math.log(t[0] + t[1]) + w,
                        positive=True,
                    ),
                    Number(name="midpoint", owner=3, of=lambda t, u, w: t[3] + u, positive=True),
                ),
                equation=_bounded_equation,
            ),
        ),
        LawForm(
            name="power-break",
            about="an exponent that changes",
            y_scale="log2",
            curve=Curve(
                shapes=("exponent", "exponent after", "break", "sharpness"),
                # The exponent may fall (a law that flattens) as well as rise; b + c stays positive
                # in the data because phi must fall there to be chosen.
                bounds=lambda low, high: [_EXPONENTS, (-12.0, 12.0), (low, high), (-3.0, 1.0)],
                starts=_broken_starts,
                log_phi=_broken,
                numbers=(
                    _EXPONENT,
                    _AMPLITUDE,
                    Number(name="exponent after", owner=3, of=lambda t, u, w: t[2] + t[3]),
                    Number(name="break", owner=4, of=lambda t, u, w: t[4] + u, positive=True),
                    Number(name="sharpness", owner=5, of=lambda t, u, w: t[5], positive=True),
                ),
                equation=_broken_equation,
            ),
        ),
    )
}
"""Every form by its name, in the order in which help texts name them."""

"""The forms of laws that a study can fit: one record per form, and everything else reads it.

A form is either linear in its parameters (a line, or a polynomial in log2 x: `degree`) or a curve
`y = floor + a phi(v)` with v = ln x (`curve`). To add one, add a record to `FORMS`: the study file,
its schema, fits, bands, equations and the command line take it from there. Importing this module
loads no numpy; the functions of the curves do when they are called.

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
    equation: Callable[[Mapping[str, float], str, Callable[[float], str]], str]
    kept: int = 24


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


def _bounded_equation(number: Mapping[str, float], x: str, say: Callable[[float], str]) -> str:
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


def _broken_equation(number: Mapping[str, float], x: str, say: Callable[[float], str]) -> str:
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

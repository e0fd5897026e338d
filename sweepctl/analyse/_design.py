"""What does a law that is linear in its parameters look like as a matrix?

Columns: 1, powers of the first variable, the further variables, then one column a level of each
factor beyond the first (its difference to that base level) and, with interaction, that column times
every power of the first variable. Variables are centred, which keeps intercept and slope apart: an
uncentred quadratic loses half of its digits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sweepctl.analyse._results import FitResult
from sweepctl.analyse._scales import Scale

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Array = NDArray[np.float64]

DEGREES = {"loglog": 1, "semilog": 1, "linear": 1, "quadratic": 2, "cubic": 3}
"""Degree in the first variable of each form that is linear in its parameters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Design:
    """How configurations become rows of numbers.

    Attributes:
        xs: names of the variables.
        degree: highest power of the first variable.
        scales: how each variable is seen.
        centers: mean of each variable on its scale.
        levels: values of each factor by its column, the base first.
        interaction: whether the powers of the first variable differ by level.
    """

    xs: tuple[str, ...]
    degree: int
    scales: tuple[Scale, ...]
    centers: tuple[float, ...]
    levels: Mapping[str, tuple[Any, ...]]
    interaction: bool

    @property
    def base(self) -> int:
        """Number of columns without the factors'."""
        return self.degree + len(self.xs)

    @property
    def block(self) -> int:
        """Number of columns of one level of a factor."""
        return 1 + (self.degree if self.interaction else 0)

    @property
    def columns(self) -> int:
        """Number of columns."""
        return self.base + self.block * sum(len(values) - 1 for values in self.levels.values())

    def seen(self, xs: ArrayLike) -> Array:
        """Variables, shape (n, len(xs)), on their scales and centred."""
        values = np.asarray(xs, dtype=np.float64).reshape(-1, len(self.xs)).copy()
        for column, scale in enumerate(self.scales):
            if scale == "log2":
                values[:, column] = np.log2(values[:, column])
        centred: Array = values - np.asarray(self.centers)
        return centred

    def rows(self, xs: ArrayLike, settings: Sequence[Mapping[str, Any]] | None) -> Array:
        """The matrix, shape (n, columns); without settings every factor is at its average level."""
        u = self.seen(xs)
        powers = np.vander(u[:, 0], self.degree + 1, increasing=True)
        parts = [powers, u[:, 1:]]
        for name, values in self.levels.items():
            for level in values[1:]:
                if settings is None:
                    member = np.full(len(u), 1 / len(values))
                else:
                    member = np.asarray([float(one[name] == level) for one in settings])
                parts.append(member[:, None] * powers[:, : self.block])
        return np.hstack(parts)

    def names(self) -> tuple[str, ...]:
        """Names of the columns; the first variable's need none when it is the only one."""
        powers = ["intercept", "slope", "quadratic", "cubic"][: self.degree + 1]
        if self.degree > 1:
            powers[1] = "linear"
        if len(self.xs) > 1:
            powers[1] = f"slope {self.xs[0]}"
        names = [*powers, *(f"slope {x}" for x in self.xs[1:])]
        for factor, values in self.levels.items():
            for level in values[1:]:
                label = f"{factor.rsplit('.', 1)[-1]} {level}"
                names += [label, *(f"{name} {label}" for name in powers[1 : self.block])]
        return tuple(names)

    def terms(self) -> dict[str, list[int]]:
        """Columns of each term that can be left out: every factor, and all interactions."""
        found: dict[str, list[int]] = {}
        column = self.base
        for factor, values in self.levels.items():
            name = factor.rsplit(".", 1)[-1]
            for _ in values[1:]:
                found.setdefault(f"factor {name}", []).append(column)
                for power in range(1, self.block):
                    found.setdefault("interaction", []).append(column + power)
                column += self.block
        return found

    def from_zero(self) -> Array:
        """The matrix that turns centred coefficients into those of variables from 0."""
        shift = _shift(self.degree, self.centers[0])
        matrix = np.zeros((self.columns, self.columns))
        top = self.degree + 1
        matrix[:top, :top] = shift
        for offset, center in enumerate(self.centers[1:]):
            matrix[top + offset, top + offset] = 1
            matrix[0, top + offset] = -center
        for start in range(self.base, self.columns, self.block):
            end = start + self.block
            matrix[start:end, start:end] = shift[: self.block, : self.block]
        return matrix

    def slope(self) -> Array:
        """Weights of the coefficients in dy/dx of the first variable at its center.

        With interaction it is the mean over the levels of every factor.
        """
        weights = np.zeros(self.columns)
        weights[1] = 1
        if self.interaction:
            column = self.base
            for values in self.levels.values():
                for _ in values[1:]:
                    weights[column + 1] = 1 / len(values)
                    column += self.block
        return weights


def _shift(degree: int, center: float) -> Array:
    """Coefficients of powers of (x - center) -> coefficients of powers of x."""
    matrix = np.zeros((degree + 1, degree + 1))
    for power in range(degree + 1):
        expanded = np.poly1d([1.0, -center]) ** power if power else np.poly1d([1.0])
        for exponent, coefficient in enumerate(expanded.coeffs[::-1]):
            matrix[exponent, power] = coefficient
    return matrix


def design_of(fit: FitResult) -> Design:
    """The design of a fitted law."""
    return Design(
        xs=fit.xs,
        degree=DEGREES[fit.form],
        scales=fit.x_scales,
        centers=fit.centers,
        levels=fit.factors,
        interaction=fit.interaction,
    )


def order(value: Any) -> tuple[int, float, str]:
    """Sorts levels: numbers by size, then everything else by its text."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return (0, float(value), "")
    return (1, 0.0, str(value))

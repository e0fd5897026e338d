"""Where does a law run, and how far may a new configuration lie from it? Mean and prediction bands.

The dark band holds the law, the light one a new configuration. Beyond the points both are
extrapolations; beyond a decade outside of them they are not to be believed at all, and say so.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from sweepctl.analyse._families import Family
from sweepctl.analyse._regression import design_of
from sweepctl.analyse._results import Bands, FitResult
from sweepctl.analyse._scales import readable, unscaled
from sweepctl.errors import UsageError
from sweepctl.statistics import t_quantile

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Array = NDArray[np.float64]

_LN2 = float(np.log(2))


def bands(fit: FitResult, x_grid: ArrayLike, at: Mapping[str, Any] | None = None) -> Bands:
    """The law with its mean band and its prediction band on a grid of its (first) variable.

    Args:
        fit: the law.
        x_grid: values of the first variable; positive where the law takes its logarithm.
        at: further variables and levels of factors by name. A variable that is not named stands at
            its center, a factor at the average of its levels.

    Raises:
        UsageError: the fit was not made, a grid value is not positive, or a name or level is not
            the law's.
    """
    grid = np.asarray(x_grid, dtype=np.float64)
    if not fit.centered or fit.sigma is None:
        raise UsageError(f"fit {fit.name!r} has no bands: {fit.reason}")
    if fit.x_scale == "log2" and grid.size and not float(grid.min()) > 0:
        raise UsageError(f"bands need positive {fit.x}; given {readable(float(grid.min()))}")
    xs, level = _filled(fit, grid, dict(at or {}))
    mean, rows = law_at(fit, xs, level)
    variance = np.einsum("ij,jk,ik->i", rows, np.asarray(fit.covariance), rows)
    if fit.law.curve is not None:
        variance = variance / _LN2**2
    t = t_quantile(fit.df)
    half_mean = t * np.sqrt(np.maximum(variance, 0))
    half_new = t * np.sqrt(np.maximum(variance, 0) + fit.sigma**2)
    low, high = fit.points[0].x, fit.points[-1].x
    far = (grid < low / 10) | (grid > high * 10)
    if fit.x_scale == "raw":
        far = (grid < low - 10 * (high - low)) | (grid > high + 10 * (high - low))
    return Bands(
        x=grid,
        mean=unscaled(mean, fit.scale),
        mean_low=unscaled(mean - half_mean, fit.scale),
        mean_high=unscaled(mean + half_mean, fit.scale),
        low=unscaled(mean - half_new, fit.scale),
        high=unscaled(mean + half_new, fit.scale),
        outside=(grid < low) | (grid > high),
        far=far,
    )


def law_at(
    fit: FitResult, xs: Array, settings: list[Mapping[str, Any]] | None
) -> tuple[Array, Array]:
    """The law on its scale at variables of shape (n, m), and its derivatives in `centered`.

    For power laws the derivatives are those of ln y.
    """
    if fit.law.curve is None:
        rows = design_of(fit).rows(xs, settings)
        return rows @ np.asarray(fit.centered), rows
    family = Family(form=fit.form, v_NM=np.log(xs) - _LN2 * np.asarray(fit.centers))
    theta = np.asarray(fit.centered)[None]
    y = family.values(theta)[0]
    gradient = (family.gradient(theta)[0] / y).T
    gradient[:, np.asarray(fit.at_bound)] = 0
    return (np.log(y) + fit.y_center) / _LN2, gradient


def _filled(
    fit: FitResult, grid: Array, at: dict[str, Any]
) -> tuple[Array, list[Mapping[str, Any]] | None]:
    """All variables on the grid, and one mapping of factor levels a grid point."""
    xs = np.empty((grid.size, len(fit.xs)))
    xs[:, 0] = grid
    for column, (x, center, scale) in enumerate(
        zip(fit.xs[1:], fit.centers[1:], fit.x_scales[1:], strict=True), start=1
    ):
        xs[:, column] = at.pop(x, 2.0**center if scale == "log2" else center)
    levels: dict[str, Any] = {}
    for factor, values in fit.factors.items():
        short = factor.rsplit(".", 1)[-1]
        given = at.pop(factor, at.pop(short, None))
        if given is None:
            continue
        if given not in values:
            allowed = ", ".join(map(str, values))
            raise UsageError(
                f"{short} {given} is no level of fit {fit.name!r}; there are {allowed}"
            )
        levels[factor] = given
    if at:
        known = ", ".join([*fit.xs[1:], *fit.factors]) or "none"
        raise UsageError(f"fit {fit.name!r} knows no {', '.join(at)}; it takes: {known}")
    if levels and len(levels) < len(fit.factors):
        missing = ", ".join(factor for factor in fit.factors if factor not in levels)
        raise UsageError(f"give a level of {missing}, too, or of no factor at all")
    return xs, [levels] * grid.size if levels else None

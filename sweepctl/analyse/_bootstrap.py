"""What would repeated studies have given? Wild bootstrap of a law, thousands of draws at once.

Each draw keeps the configurations and flips the sign of every residual at random, scaled up by what
its leverage took from it, so uneven scatter stays where it is; resampling whole points instead
covers too rarely below 30 points. The draws show the law's spread. Their intervals are:
    lines   every slope for which the data are no rare case among sign flips of the residuals that
            this very slope would leave (restricted wild bootstrap-t, Davidson and MacKinnon 1999),
            all flips where there are no more than draws
    powers  bootstrap-t of exponents and the local slope, each draw in its own HC3 errors (for the
            slope never narrower than t with the HC3 error, which the draws alone fall short of);
            the floor keeps its profile likelihood
Draws are seeded by a hash of the data: the same data give the same draws, on every machine and in
every order of rows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from sweepctl.analyse._families import Family, influences
from sweepctl.analyse._power import local_slopes, slope_gradient
from sweepctl.analyse._projection import bend_of, polish
from sweepctl.analyse._regression import design_of, sizes
from sweepctl.analyse._results import Coefficient, Draws, FitResult
from sweepctl.errors import UsageError
from sweepctl.statistics import CONFIDENCE, t_quantile
from sweepctl.study import parse_loss

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

_LN2 = float(np.log(2))

_FEW = 6
"""Points up to which signs alone leave fewer than 40 different draws, too few for 95 %."""


def bootstrap(fit: FitResult, draws: int = 10_000) -> Draws:
    """Wild bootstrap of a fitted law.

    Args:
        fit: the law.
        draws: number of draws, at least 100.

    Raises:
        UsageError: the fit was not made, leaves nothing to draw from, or there are too few draws.
    """
    if not fit.fitted:
        raise UsageError(f"fit {fit.name!r} has nothing to draw from: {fit.reason}")
    if draws < 100:
        raise UsageError(f"{draws} draws give no interval; take 100 or more")
    leverage = np.asarray([point.leverage for point in fit.points])
    if float(leverage.max()) > 1 - 1e-9:
        raise UsageError(
            f"fit {fit.name!r} passes through a point by force: that point cannot be drawn anew",
            hint="leave the point out, or measure another configuration beside it",
        )
    seed = _seed(fit)
    signs = np.random.default_rng(seed).choice(
        np.asarray([-1.0, 1.0]), size=(draws, len(fit.points))
    )
    if fit.law.curve is not None:
        return _power_draws(fit, signs, leverage, seed)
    return _linear_draws(fit, signs, leverage, seed)


def _seed(fit: FitResult) -> int:
    """63 bits of a hash over the data and the form of the law."""
    digest = hashlib.sha256(f"{fit.form} {fit.loss} {fit.xs}".encode())
    for row in sorted((point.xs, point.y, point.weight) for point in fit.points):
        digest.update(repr(row).encode())
    return int.from_bytes(digest.digest()[:8], "big") >> 1


def _linear_draws(fit: FitResult, signs: Array, leverage: Array, seed: int) -> Draws:
    design = design_of(fit)
    rows = design.rows([point.xs for point in fit.points], [p.settings for p in fit.points])
    y = np.asarray([point.y for point in fit.points])
    weights = np.asarray([point.weight for point in fit.points])
    size = sizes(rows)
    scaled = rows / size
    inverse = np.linalg.inv((scaled * weights[:, None]).T @ scaled)
    solve = inverse @ (scaled * weights[:, None]).T / size[:, None]
    params = np.asarray(fit.centered)
    residuals = y - rows @ params
    errors = signs * (residuals / (1 - leverage))
    shifts = errors @ solve.T
    towards = design.slope() @ solve
    pulls = towards / (1 - leverage)
    shifted = rows @ (inverse / np.outer(size, size)) @ design.slope()
    return Draws(
        names=design.names(),
        values=params + shifts,
        slopes=float(design.slope() @ params) + shifts @ design.slope(),
        intervals={
            "slope": _restricted(
                float(design.slope() @ params),
                residuals,
                shifted / float(design.slope() @ (inverse / np.outer(size, size)) @ design.slope()),
                towards,
                pulls,
                np.eye(len(y)) - rows @ solve,
                _flips(signs, seed),
            )
        },
        seed=seed,
        failed=0,
    )


def _flips(signs: Array, seed: int) -> Array:
    """Every combination of signs where there are no more than draws; six values for few points."""
    draws, n = signs.shape
    if n <= _FEW:
        webb = np.sqrt(np.asarray([0.5, 1.0, 1.5], dtype=np.float64))  # Webb 2023
        values = np.asarray([*-webb, *webb], dtype=np.float64)
        drawn: Array = np.random.default_rng(seed + 1).choice(values, size=(draws, n))
        return drawn
    if 2**n > draws:
        # The data themselves are one of the flips, as they are among all of them.
        return np.concatenate([np.ones((1, n)), signs])
    bits = np.arange(2**n)[:, None] >> np.arange(n) & 1
    every: Array = np.where(bits == 1, 1.0, -1.0).astype(np.float64)
    return every


def _restricted(
    estimate: float,
    residuals: Array,
    forced: Array,
    towards: Array,
    pulls: Array,
    remainder: Array,
    flips: Array,
) -> Coefficient:
    """All slopes that the data do not speak against, by the sign flips of what they leave.

    A slope that differs from the estimate by d leaves the residuals r + d * forced. The statistic
    of a flip, its slope over its HC3 error, is then a ratio of quadratics in d, so that every d
    costs one pass over the draws.

    Args:
        estimate: the slope.
        residuals: r of the law, shape (n,).
        forced: what a slope lower by one adds to them, shape (n,).
        towards: weights of y in the slope, shape (n,).
        pulls: the same over what leverage leaves of a point, for HC3 errors.
        remainder: maps y to residuals, shape (n, n).
        flips: shape (draws, n).
    """
    own = float(np.sqrt(np.square(residuals) @ np.square(pulls)))
    if own == 0:
        return Coefficient(estimate=estimate, low=estimate, high=estimate, se=0.0, method="wild-t")
    moved = [(flips * part) @ towards for part in (residuals, forced)]
    left = [((flips * part) @ remainder.T) * pulls for part in (residuals, forced)]
    squares = (
        np.square(left[0]).sum(axis=1),
        2 * np.einsum("bn,bn->b", left[0], left[1]),
        np.square(left[1]).sum(axis=1),
    )

    def rare(distance: float) -> bool:
        reached = np.square(moved[0] + distance * moved[1])
        error = squares[0] + distance * (squares[1] + distance * squares[2])
        # Rounding must not lose the data themselves among the flips.
        as_far = reached * own**2 >= distance**2 * error * (1 - 1e-9)
        return float(as_far.mean()) <= 1 - CONFIDENCE

    return Coefficient(
        estimate=estimate,
        low=estimate - _reach(lambda d: rare(d), own),
        high=estimate + _reach(lambda d: rare(-d), own),
        se=own,
        method="wild-t",
    )


def _reach(rare: Callable[[float], bool], step: float) -> float:
    """The distance from which on a slope is rare; infinite when none is."""
    inside, outside = 0.0, step
    while not rare(outside):
        inside, outside = outside, 2 * outside
        if outside > 1e6 * step:
            return float("inf")
    for _ in range(40):
        middle = (inside + outside) / 2
        inside, outside = (inside, middle) if rare(middle) else (middle, outside)
    return outside


def _studentised(
    estimate: float, own: float, shifts: Array, se: Array, least: float
) -> Coefficient:
    """The symmetric bootstrap-t interval, with `least` standard errors to each side or more."""
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.abs(shifts) / se
    t = t[np.isfinite(t)]
    half = max(float(np.quantile(t, CONFIDENCE)) if len(t) else 0.0, least) * own
    return Coefficient(
        estimate=estimate, low=estimate - half, high=estimate + half, se=own, method="wild-t"
    )


def _power_draws(fit: FitResult, signs: Array, leverage: Array, seed: int) -> Draws:
    xs = np.asarray([point.xs for point in fit.points])
    family = Family(form=fit.form, v_NM=np.log(xs) - _LN2 * np.asarray(fit.centers))
    weights = np.asarray([point.weight for point in fit.points])
    theta = np.asarray(fit.centered)[None]
    log_y = np.asarray([point.y for point in fit.points]) * _LN2 - fit.y_center
    law = np.log(family.values(theta))[0]
    residuals = log_y - law
    data = law + signs * (residuals / np.sqrt(1 - leverage))
    loss = parse_loss(fit.loss)
    found = polish(
        family, np.repeat(theta, len(data), axis=0), data, weights, bend_of(loss.kind, loss.delta)
    )
    good = found.converged_B
    values = found.theta_BK[good]
    m = family.variables
    names = _names(fit)
    held = np.asarray(fit.at_bound)[None]
    # Parameters, then the local slope, as functions of the parameters: gradients (B, J, K).
    own = _errors(family, theta, residuals[None], weights, held)[0]
    left = data[good] - np.log(family.values(values))
    errors = _errors(family, values, left, weights, found.bound_BK[good])
    slopes = local_slopes(family, values)
    shifts = np.column_stack([values - theta, slopes - local_slopes(family, theta)])
    estimates = [*theta[0], float(local_slopes(family, theta)[0])]
    wanted = {
        name: k
        for k, name in enumerate(names)
        if k > m and name.startswith("exponent") and not fit.at_bound[k]
    } | {"slope": len(names)}
    intervals = {
        name: _studentised(
            float(estimates[k]),
            float(own[k]),
            shifts[:, k],
            errors[:, k],
            t_quantile(fit.df) if name == "slope" else 0.0,
        )
        for name, k in wanted.items()
    }
    # Near a floor of 0 the draws pile up on the bound: no quantile of theirs is an interval.
    intervals["floor"] = fit.coefficients["floor"]
    return Draws(
        names=names,
        values=values,
        slopes=slopes,
        intervals=intervals,
        seed=seed,
        failed=int((~good).sum()),
    )


def _names(fit: FitResult) -> tuple[str, ...]:
    ends = [f" {x}" for x in fit.xs] if len(fit.xs) > 1 else [""]
    assert fit.law.curve is not None
    shapes = [f"{shape}{end}" for end in ends for shape in fit.law.curve.shapes]
    return ("floor", *(f"amplitude{end}" for end in ends), *shapes)


def _errors(
    family: Family, theta_BK: Array, residuals_BN: Array, weights: Array, held: NDArray[np.bool_]
) -> Array:
    """HC3 standard errors of parameters and local slope of B laws, shape (B, K + 1).

    Infinite for parameters that are held.
    """
    pulls, plain = influences(family, theta_BK, residuals_BN, weights, held)
    sizes = np.square(pulls).sum(axis=2)
    gradient = slope_gradient(family, theta_BK)
    slope = np.square(np.einsum("bk,bkn->bn", gradient, pulls)).sum(axis=1)
    lacking = held | (plain <= 0)
    errors: Array = np.sqrt(np.column_stack([np.where(lacking, np.inf, sizes), slope]))
    return errors

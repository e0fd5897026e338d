"""What would repeated studies have given? Wild bootstrap of a law, thousands of draws at once.

Each draw keeps the configurations and flips the sign of every residual at random, scaled up by what
its leverage took from it, so uneven scatter stays where it is; resampling whole points instead
covers too rarely below 30 points. The interval is bootstrap-t: each draw is measured in its own
robust standard errors. In simulation it covers 92 to 95 % at 9 to 30 points, and HC3 with t 93 to
95 %, so verdicts rest on the latter. Draws are seeded by a hash of the data: the same data give the
same draws, on every machine and in every order of rows.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

from sweepctl.analyse._design import design_of
from sweepctl.analyse._families import SHAPES, Family
from sweepctl.analyse._intervals import CONFIDENCE
from sweepctl.analyse._power import local_slopes
from sweepctl.analyse._projection import bend_of, polish
from sweepctl.analyse._regression import sizes
from sweepctl.analyse._results import Coefficient, Draws, FitResult
from sweepctl.errors import UsageError
from sweepctl.study import POWERS, parse_loss

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

_LN2 = float(np.log(2))


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
    if fit.form in POWERS:
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
    left = (errors - shifts @ rows.T) / (1 - leverage)
    towards = design.slope() @ solve
    se = np.sqrt((left**2) @ (towards**2))
    own = float(np.sqrt((residuals / (1 - leverage)) ** 2 @ (towards**2)))
    slopes = shifts @ design.slope()
    estimate = float(design.slope() @ params)
    return Draws(
        names=design.names(),
        values=params + shifts,
        slopes=estimate + slopes,
        intervals={"slope": _studentised(estimate, own, slopes, se)},
        seed=seed,
        failed=0,
    )


def _studentised(estimate: float, own: float, shifts: Array, se: Array) -> Coefficient:
    """The symmetric bootstrap-t interval: at few points steadier than two quantiles."""
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.abs(shifts) / se
    t = t[np.isfinite(t)]
    half = float(np.quantile(t, CONFIDENCE)) * own if len(t) else 0.0
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
    own = _robust_errors(family, theta, residuals[None], weights, np.asarray(fit.at_bound)[None])[0]
    left = data[good] - np.log(family.values(values))
    errors = _robust_errors(family, values, left, weights, found.bound_BK[good])
    names = _names(fit)
    intervals = {
        names[k]: _studentised(
            float(theta[0, k]), float(own[k]), values[:, k] - theta[0, k], errors[:, k]
        )
        for k in range(1 + m, len(names))
        if names[k].startswith("exponent") and not fit.at_bound[k]
    }
    slopes = local_slopes(family, values)
    estimate = float(local_slopes(family, theta)[0])
    # The slope's error in a draw is not worth another derivative: its own draws serve.
    spread = float(slopes.std())
    half = float(np.quantile(np.abs(slopes - estimate), CONFIDENCE))
    intervals["slope"] = Coefficient(
        estimate=estimate, low=estimate - half, high=estimate + half, se=spread, method="wild"
    )
    floors = values[:, 0] * np.exp(fit.y_center)
    tail = (1 - CONFIDENCE) / 2
    intervals["floor"] = Coefficient(
        estimate=float(theta[0, 0] * np.exp(fit.y_center)),
        low=float(np.quantile(floors, tail)),
        high=float(np.quantile(floors, 1 - tail)),
        se=float(floors.std()),
        method="wild",
    )
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
    shapes = SHAPES.get(fit.form, tuple(f"exponent{end}" for end in ends))
    return ("floor", *(f"amplitude{end}" for end in ends), *shapes)


def _robust_errors(
    family: Family, theta_BK: Array, residuals_BN: Array, weights: Array, held: NDArray[np.bool_]
) -> Array:
    """HC3 standard errors of B laws, shape (B, K); infinite for parameters that are held."""
    y = family.values(theta_BK)
    slopes = family.gradient(theta_BK) / y[:, None]
    slopes[held] = 0
    white = slopes * np.sqrt(weights)
    gram = white @ white.transpose(0, 2, 1)
    size = np.einsum("bkk->bk", gram)
    lacking = held | (size <= 0)
    gram = gram + np.einsum(
        "bk,kj->bkj", np.where(lacking, 1.0, 1e-12 * size), np.eye(len(size[0]))
    )
    inverse = np.linalg.inv(gram)
    towards = inverse @ white
    leverage = np.einsum("bkn,bkn->bn", white, towards)
    pulled = residuals_BN * np.sqrt(weights) / np.maximum(1 - leverage, 1e-6)
    errors = np.sqrt(np.einsum("bkn,bn->bk", towards**2, pulled**2))
    return np.where(lacking, np.inf, errors)

"""How are laws fitted that are not linear in their parameters? Without a lottery of starts.

Given the shape (exponents), floor and amplitudes are a small non-negative least-squares problem, so
only the shape is searched: a grid over it, the linear part solved at every node, the best nodes
polished together. Residuals are in ln y, where scatter of distances is even; with log y - log floor
instead, the objective would have its least value at floor 0 or at the smallest y. x and y are
divided by their geometric means, so units change nothing, and points are sorted, so their order
changes nothing. Newton's method with exact second derivatives, bounds and damping polishes many
laws at once: the best nodes of the grid, or thousands of bootstrap draws.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sweepctl.analyse._families import Family

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

_TOLERANCE = 1e-10
"""Gradient that is left, as a share of the sum of its parts' sizes."""

_LAD_BEND = 1e-7
"""Absolute values are Huber's loss with this bend: in ln y, far below any measurement."""

_CHUNK = 250_000
"""Points times laws that are polished at once; more leaves the processor's cache."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bend:
    """A loss as Huber's with its bend at `delta`; infinite for squares."""

    delta: float

    def of(self, r: Array) -> Array:
        """The loss of each residual: r^2 / 2 inside the bend."""
        if not np.isfinite(self.delta):
            squares: Array = 0.5 * r * r
            return squares
        size = np.abs(r)
        return np.where(size <= self.delta, 0.5 * r * r, self.delta * (size - 0.5 * self.delta))

    def slopes(self, r: Array) -> tuple[Array, Array]:
        """First and second derivative."""
        if not np.isfinite(self.delta):
            return r, np.ones_like(r)
        return np.clip(r, -self.delta, self.delta), (np.abs(r) <= self.delta).astype(np.float64)


def bend_of(kind: str, delta: float) -> Bend:
    """The bend of a loss by its name: squares, huber, lad."""
    return Bend(delta={"squares": np.inf, "huber": delta, "lad": _LAD_BEND}[kind])


@dataclass(frozen=True, slots=True, kw_only=True)
class Polished:
    """B laws after Newton's method.

    Attributes:
        theta_BK: parameters.
        objective_B: weighted sum of losses.
        gradient_B: largest component of the gradient that is left, relative to its parts.
        converged_B: whether that is below tolerance.
        bound_BK: which parameters lie on a bound.
    """

    theta_BK: Array
    objective_B: Array
    gradient_B: Array
    converged_B: NDArray[np.bool_]
    bound_BK: NDArray[np.bool_]


def fit_family(family: Family, log_y_N: Array, weights_N: Array, bend: Bend) -> Polished:
    """The best law of a family; B = 1.

    Args:
        family: the family at the points.
        log_y_N: centred ln y.
        weights_N: weights, 1 on average.
        bend: the loss.
    """
    shapes = family.grid()
    starts = _linear_parts(family, shapes, np.exp(log_y_N), weights_N)
    with np.errstate(divide="ignore"):
        rough = _objective(family, starts, log_y_N, weights_N, bend)
    keep = np.argsort(rough, kind="stable")[: family.curve.kept]
    best = polish(family, starts[keep], log_y_N[None], weights_N, Bend(delta=np.inf))
    deltas = [bend.delta] if np.isfinite(bend.delta) else []
    if deltas:
        # A narrow bend is reached through wider ones: each step starts where the last one ended.
        scatter = float(np.sqrt(2 * best.objective_B.min() / weights_N.sum())) or bend.delta
        steps = int(np.ceil(np.log10(max(scatter / bend.delta, 1.0))))
        deltas = [bend.delta * 10.0**step for step in range(steps, 0, -1)] + deltas
    for delta in deltas:
        best = polish(family, best.theta_BK, log_y_N[None], weights_N, Bend(delta=delta))
    # Valleys of equal depth are the same law; the first one in the order of the grid is as good.
    order = np.lexsort((np.arange(len(keep)), best.objective_B))
    return _taken(best, order[:1])


def _linear_parts(family: Family, shapes_BQ: Array, y_N: Array, weights_N: Array) -> Array:
    """Floor and amplitudes for each shape: least squares of (law - y) / y, none of them negative.

    With this few unknowns every subset of them is tried; the best one without a negative part is
    what non-negative least squares gives.
    """
    phi = family.terms(shapes_BQ).phi_BMN
    columns = np.concatenate([np.ones_like(phi[:, :1]), phi], axis=1) / y_N
    white = columns * np.sqrt(weights_N)
    gram = white @ white.transpose(0, 2, 1)
    right = white @ np.sqrt(weights_N)
    count = columns.shape[1]
    best = np.zeros((len(shapes_BQ), count))
    least = np.full(len(shapes_BQ), np.inf)
    for size in range(1, count + 1):
        for subset in itertools.combinations(range(count), size):
            chosen = list(subset)
            part = gram[:, chosen][:, :, chosen]
            ridge = 1e-13 * np.trace(part, axis1=1, axis2=2)[:, None, None] * np.eye(size)
            found = np.linalg.solve(part + ridge, right[:, chosen, None])[..., 0]
            value = -np.einsum("bi,bi->b", found, right[:, chosen])
            better = (found >= 0).all(axis=1) & (value < least - 1e-12)
            best[better] = 0
            best[np.ix_(better, chosen)] = found[better]
            least[better] = value[better]
    return np.concatenate([best, shapes_BQ], axis=1)


def _objective(
    family: Family, theta_BK: Array, log_y_BN: Array, weights_N: Array, bend: Bend
) -> Array:
    y = family.values(theta_BK)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        loss = bend.of(log_y_BN - np.log(y)) @ weights_N
    total: Array = np.where(np.isfinite(loss), loss, np.inf)
    return total


def polish(
    family: Family,
    theta_BK: Array,
    log_y_BN: Array,
    weights_N: Array,
    bend: Bend,
    *,
    fixed: tuple[int, ...] = (),
    steps: int = 120,
) -> Polished:
    """Newton's method from B starts, each on its own data or all on the same.

    Args:
        family: the family at the points.
        theta_BK: starts.
        log_y_BN: centred ln y, shape (B, N) or (1, N).
        weights_N: weights of the points.
        bend: the loss.
        fixed: parameters that keep their start.
        steps: most steps of one law.
    """
    size = max(1, _CHUNK // family.v_NM.shape[0])
    parts = []
    for start in range(0, len(theta_BK), size):
        data = log_y_BN if len(log_y_BN) == 1 else log_y_BN[start : start + size]
        part = theta_BK[start : start + size]
        parts.append(_polish(family, part, data, weights_N, bend, fixed, steps))
    return Polished(
        theta_BK=np.concatenate([part.theta_BK for part in parts]),
        objective_B=np.concatenate([part.objective_B for part in parts]),
        gradient_B=np.concatenate([part.gradient_B for part in parts]),
        converged_B=np.concatenate([part.converged_B for part in parts]),
        bound_BK=np.concatenate([part.bound_BK for part in parts]),
    )


def _polish(
    family: Family,
    start_BK: Array,
    log_y_BN: Array,
    weights_N: Array,
    bend: Bend,
    fixed: tuple[int, ...],
    steps: int,
) -> Polished:
    low, high = family.bounds()
    theta = np.clip(start_BK, low, high)
    if fixed:
        theta[:, list(fixed)] = start_BK[:, list(fixed)]
    many = len(log_y_BN) > 1
    value = _objective(family, theta, log_y_BN, weights_N, bend)
    left = np.full(len(theta), np.inf)
    damping = np.full(len(theta), 1e-3)
    active = np.flatnonzero(np.isfinite(value))
    for _ in range(steps):
        if not len(active):
            break
        data = log_y_BN[active] if many else log_y_BN
        now = theta[active]
        gradient, hessian, sizes = _derivatives(family, now, data, weights_N, bend)
        held = ((now <= low) & (gradient > 0)) | ((now >= high) & (gradient < 0))
        if fixed:
            held[:, list(fixed)] = True
        gradient = np.where(held, 0.0, gradient)
        left[active] = (np.abs(gradient) / np.maximum(sizes, 1e-300)).max(axis=1)
        going = (left[active] > _TOLERANCE) & (damping[active] < 1e12)
        active, now, held = active[going], now[going], held[going]
        if not len(active):
            break
        data = log_y_BN[active] if many else log_y_BN
        step = _step(gradient[going], hessian[going], held, damping[active])
        trial = np.clip(now + step, low, high)
        if fixed:
            trial[:, list(fixed)] = now[:, list(fixed)]
        tried = _objective(family, trial, data, weights_N, bend)
        # Equal up to rounding counts as better: the gradient decides about the end.
        good = tried <= value[active] * (1 + 1e-14)
        theta[active[good]] = trial[good]
        value[active[good]] = tried[good]
        damping[active] = np.where(
            good, np.maximum(damping[active] / 8, 1e-14), damping[active] * 6
        )
    exact = value <= 1e-24 * float(weights_N.sum())
    return Polished(
        theta_BK=theta,
        objective_B=value,
        gradient_B=left,
        converged_B=(left <= 1e-7) | exact,
        bound_BK=(theta <= low) | (theta >= high),
    )


def _derivatives(
    family: Family, theta: Array, log_y: Array, weights: Array, bend: Bend
) -> tuple[Array, Array, Array]:
    """Gradient (B, K), Hessian (B, K, K), and the size of the gradient's parts (B, K)."""
    m = family.variables
    terms = family.terms(theta[:, 1 + m :])
    owner = list(family.owner)
    scaled = theta[:, 1 : 1 + m, None] * terms.phi_BMN
    y = theta[:, :1] + scaled.sum(axis=1)
    shapes = scaled[:, owner, :] * terms.d_BQN
    slopes = np.concatenate([np.ones_like(y)[:, None], terms.phi_BMN, shapes], axis=1) / y[:, None]
    first, second = bend.slopes(log_y - np.log(y))
    pull = weights * first
    gradient = -np.einsum("bkn,bn->bk", slopes, pull)
    # Residuals far below anything measurable count as some, or a perfect law would never be done.
    least = 1e-6 * min(bend.delta, 1.0)
    sizes = np.einsum("bkn,bn->bk", np.abs(slopes), np.abs(pull) + least * weights)
    curved = (slopes * (weights * second + pull)[:, None]) @ slopes.transpose(0, 2, 1)
    # What is left is the law's own second derivative: amplitude by shape, and shape by shape.
    share = pull / y
    for q, term in enumerate(owner):
        row, cross = 1 + m + q, 1 + term
        mixed = np.einsum("bn,bn->b", share, terms.phi_BMN[:, term] * terms.d_BQN[:, q])
        curved[:, row, cross] -= mixed
        curved[:, cross, row] -= mixed
        for r in range(q, len(owner)):
            if owner[r] != term:
                continue
            twice = terms.d_BQN[:, q] * terms.d_BQN[:, r]
            if (q, r) in terms.dd:
                twice = twice + terms.dd[q, r]
            both = np.einsum("bn,bn->b", share * scaled[:, term], twice)
            curved[:, row, 1 + m + r] -= both
            if r != q:
                curved[:, 1 + m + r, row] -= both
    return gradient, curved, sizes


def _step(gradient: Array, hessian: Array, held: NDArray[np.bool_], damping: Array) -> Array:
    """Damped Newton steps; a parameter that is held does not move."""
    size = gradient.shape[1]
    free = ~held
    matrix = np.where(free[:, :, None] & free[:, None, :], hessian, 0.0)
    diagonal = np.abs(np.einsum("bkk->bk", matrix))
    scale = np.maximum(diagonal, 1e-12 * np.maximum(diagonal.max(axis=1, keepdims=True), 1e-300))
    root = np.sqrt(np.where(held, 1.0, scale))
    # Scaled to a unit diagonal, so that one damping suits an amplitude and an exponent.
    matrix = matrix / (root[:, :, None] * root[:, None, :])
    values, vectors = np.linalg.eigh(matrix)
    # A direction of negative curvature is walked down as far as if it were positive.
    inverse = 1 / (np.maximum(np.abs(values), 1e-13) + damping[:, None])
    target = np.einsum("bkj,bk->bj", vectors, gradient / root)
    step = -np.einsum("bkj,bj->bk", vectors, inverse * target) / root
    assert step.shape[1] == size
    return np.where(held, 0.0, step)


def _taken(polished: Polished, rows: NDArray[np.int_]) -> Polished:
    return Polished(
        theta_BK=polished.theta_BK[rows],
        objective_B=polished.objective_B[rows],
        gradient_B=polished.gradient_B[rows],
        converged_B=polished.converged_B[rows],
        bound_BK=polished.bound_BK[rows],
    )

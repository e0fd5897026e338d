"""Curves at given points: values and derivatives of many laws at once, by the record of the form.

Every curve is `y = e0 + sum_i a_i phi(v_i)` with v = ln x, centered: linear in the floor e0 and the
amplitudes a_i, which are not negative, and curved only in the few shape parameters of phi
(`sweepctl.laws.Curve`). Shapes: B laws (starts or bootstrap draws), N points, M variables,
K = 1 + M + Q parameters in the order e0, a_1..a_M, then the shapes of each term.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sweepctl.laws import FORMS, Curve

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """phi of B laws at N points, with derivatives in the shape parameters.

    Attributes:
        phi_BMN: the terms.
        d_BQN: first derivatives of ln phi; parameter q belongs to term `owner[q]`.
        dd: second derivatives of ln phi by pairs (q, r) with q <= r, shape (B, N); absent where 0.
    """

    phi_BMN: Array
    d_BQN: Array
    dd: dict[tuple[int, int], Array]


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """One family for given points.

    Attributes:
        form: power, power-shifted, power-bounded or power-break.
        v_NM: centred ln x.
    """

    form: str
    v_NM: Array

    @property
    def curve(self) -> Curve:
        """What the form's record says of phi."""
        curve = FORMS[self.form].curve
        assert curve is not None, self.form
        return curve

    @property
    def variables(self) -> int:
        """M."""
        return int(self.v_NM.shape[1])

    @property
    def owner(self) -> tuple[int, ...]:
        """The term that each shape parameter belongs to."""
        return tuple(term for term in range(self.variables) for _ in self.curve.shapes)

    @property
    def parameters(self) -> int:
        """K."""
        return 1 + self.variables + len(self.owner)

    def bounds(self) -> tuple[Array, Array]:
        """Lower and upper bound of each parameter, with y divided by its geometric mean."""
        pairs = [(0.0, np.inf)] * (1 + self.variables)
        for v_N in self.v_NM.T:
            pairs += self.curve.bounds(float(v_N.min()), float(v_N.max()))
        return np.asarray([p[0] for p in pairs]), np.asarray([p[1] for p in pairs])

    def grid(self) -> Array:
        """Shapes from which the search starts, shape (B, Q); dense enough to find every valley."""
        axes: list[Array] = []
        for v_N in self.v_NM.T:
            axes += self.curve.starts(float(v_N.min()), float(v_N.max()), self.variables)
        return np.stack([part.ravel() for part in np.meshgrid(*axes, indexing="ij")], axis=1)

    def terms(self, shapes_BQ: Array) -> Terms:
        """phi and its derivatives."""
        count = len(self.curve.shapes)
        logs: list[Array] = []
        first: list[Array] = []
        second: dict[tuple[int, int], Array] = {}
        for term in range(self.variables):
            places = range(term * count, (term + 1) * count)
            shapes = [shapes_BQ[:, q, None] for q in places]
            log_phi, d, dd = self.curve.log_phi(self.v_NM[None, :, term], *shapes)
            logs.append(log_phi)
            first += d
            second |= {(places[q], places[r]): value for (q, r), value in dd.items()}
        with np.errstate(over="ignore"):
            phi = np.exp(np.stack(logs, axis=1))
        return Terms(phi_BMN=phi, d_BQN=np.stack(first, axis=1), dd=second)

    def values(self, theta_BK: Array) -> Array:
        """y of B laws at the points, shape (B, N)."""
        m = self.variables
        phi = self.terms(theta_BK[:, 1 + m :]).phi_BMN
        total: Array = theta_BK[:, :1] + np.einsum("bm,bmn->bn", theta_BK[:, 1 : 1 + m], phi)
        return total

    def gradient(self, theta_BK: Array) -> Array:
        """dy/dtheta of B laws at the points, shape (B, K, N)."""
        m = self.variables
        terms = self.terms(theta_BK[:, 1 + m :])
        scaled = theta_BK[:, 1 : 1 + m, None] * terms.phi_BMN
        shapes = scaled[:, list(self.owner), :] * terms.d_BQN
        ones = np.ones((len(theta_BK), 1, self.v_NM.shape[0]))
        return np.concatenate([ones, terms.phi_BMN, shapes], axis=1)


def influences(
    family: Family, theta_BK: Array, residuals_BN: Array, weights_N: Array, held: NDArray[np.bool_]
) -> tuple[Array, Array]:
    """What each point does to each parameter, shape (B, K, N), and plain variances, (B, K).

    Args:
        family: the family at the points.
        theta_BK: B laws.
        residuals_BN: in ln y.
        weights_N: weights of the points, 1 on average.
        held: parameters that do not move, shape (B, K): their influences and variances are 0.

    Returns:
        influences, and the diagonal of the inverse normal matrix: variances for scatter of 1.
    """
    y = family.values(theta_BK)
    slopes = family.gradient(theta_BK) / y[:, None]
    slopes[held] = 0
    root = np.sqrt(weights_N)
    white = slopes * root
    gram = white @ white.transpose(0, 2, 1)
    size = np.einsum("bkk->bk", gram)
    lacking = held | (size <= 0)
    # A law that is close to singular still gets numbers; they are large, as they should be.
    unit = 1 / np.sqrt(np.where(lacking, 1.0, size))
    scaled = gram * unit[:, :, None] * unit[:, None, :]
    ridge = np.where(lacking, 1.0, 1e-12)
    scaled = scaled + np.einsum("bk,kj->bkj", ridge, np.eye(size.shape[1]))
    inverse = np.linalg.inv(scaled) * unit[:, :, None] * unit[:, None, :]
    towards = inverse @ white
    leverage = np.einsum("bkn,bkn->bn", white, towards)
    pulled = residuals_BN * root / np.maximum(1 - leverage, 1e-6)
    plain = np.where(lacking, 0.0, np.einsum("bkk->bk", inverse))
    return towards * pulled[:, None], plain


def unevenness(
    family: Family,
    theta_BK: Array,
    residuals_BN: Array,
    weights_N: Array,
    held: NDArray[np.bool_],
    df: int,
) -> Array:
    """HC3 variance of the floor over its plain variance, 1 where it is smaller; shape (B,)."""
    pulls, plain = influences(family, theta_BK, residuals_BN, weights_N, held)
    variance = plain[:, 0] * (np.square(residuals_BN) @ weights_N) / df
    robust = np.square(pulls[:, 0]).sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = robust / variance
    found: Array = np.where(np.isfinite(ratio), np.maximum(ratio, 1.0), 1.0)
    return found

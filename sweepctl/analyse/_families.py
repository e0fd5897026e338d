"""Which power laws are there, and what are their derivatives? Functions of many laws at once.

Every family is `y = e0 + sum_i a_i phi_i(v)` with v = ln x, centred: linear in the floor e0 and the
amplitudes a_i, which are not negative, and curved only in the few shape parameters of phi.
    power          phi_i = exp(-b_i v_i)                       any number of variables
    power-shifted  phi = ((e^v + s) / (1 + s))^-b              the law starts late
    power-bounded  phi = 1 / (1 + exp(b (v - k)))              a ceiling e0 + a besides the floor
    power-break    phi = e^(-b v) (1 + exp((v - k)/f))^(-c f)  exponent b, then b + c; f: sharpness
Derivatives are exact up to second order, so that Newton's method ends where the gradient is zero to
rounding, whatever the loss. Shapes: B laws (starts or bootstrap draws), N points, M
variables, K = 1 + M + Q parameters in the order e0, a_1..a_M, shape_1..shape_Q. Sources:
Alabdulmohsin et al. 2022 (shifted, bounded: M3, M4), Caballero et al. 2023 (break).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

_EXPONENTS = (1e-3, 12.0)
"""Range of exponents per factor e of x; an estimate on its edge is reported as being there."""

SHAPES = {
    "power-shifted": ("exponent", "shift"),
    "power-bounded": ("exponent", "midpoint"),
    "power-break": ("exponent", "exponent after", "break", "sharpness"),
}


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
    def variables(self) -> int:
        """M."""
        return int(self.v_NM.shape[1])

    @property
    def owner(self) -> tuple[int, ...]:
        """The term that each shape parameter belongs to."""
        if self.form == "power":
            return tuple(range(self.variables))
        return (0,) * len(SHAPES[self.form])

    @property
    def parameters(self) -> int:
        """K."""
        return 1 + self.variables + len(self.owner)

    def bounds(self) -> tuple[Array, Array]:
        """Lower and upper bound of each parameter, with y divided by its geometric mean."""
        reach = 3.0
        low, high = self.v_NM.min(axis=0), self.v_NM.max(axis=0)
        linear = [(0.0, np.inf)] * (1 + self.variables)
        shapes = {
            "power": [_EXPONENTS] * self.variables,
            "power-shifted": [_EXPONENTS, (0.0, float(np.exp(high[0] + reach)))],
            "power-bounded": [_EXPONENTS, (low[0] - reach, high[0] + reach)],
            # The exponent may fall (a law that flattens) as well as rise; b + c stays positive in
            # the data because phi must fall there to be chosen.
            "power-break": [_EXPONENTS, (-12.0, 12.0), (low[0], high[0]), (-3.0, 1.0)],
        }[self.form]
        pairs = [*linear, *shapes]
        return np.asarray([p[0] for p in pairs]), np.asarray([p[1] for p in pairs])

    def grid(self) -> Array:
        """Shapes from which the search starts, shape (B, Q); dense enough to find every valley."""
        low, high = self.v_NM.min(axis=0), self.v_NM.max(axis=0)
        if self.form == "power":
            steps = {1: 32, 2: 14, 3: 8, 4: 6}.get(self.variables, 4)
            axes = [np.geomspace(0.03, 6.0, steps)] * self.variables
        elif self.form == "power-shifted":
            axes = [np.geomspace(0.05, 6.0, 20), np.exp(np.linspace(low[0] - 2, high[0] + 1, 10))]
        elif self.form == "power-bounded":
            axes = [np.geomspace(0.1, 6.0, 16), np.linspace(low[0] - 1, high[0] + 1, 12)]
        else:
            inner = np.linspace(low[0], high[0], 9)[1:-1]
            change = np.asarray([-1.5, -0.7, -0.3, 0.3, 0.7, 1.5, 3.0])
            axes = [np.geomspace(0.05, 3.0, 7), change, inner, np.asarray([-1.6, -0.4])]
        return np.stack([part.ravel() for part in np.meshgrid(*axes, indexing="ij")], axis=1)

    def terms(self, shapes_BQ: Array) -> Terms:
        """phi and its derivatives."""
        if self.form == "power":
            v_MN = self.v_NM.T
            phi = np.exp(-shapes_BQ[:, :, None] * v_MN)
            return Terms(phi_BMN=phi, d_BQN=np.broadcast_to(-v_MN, phi.shape), dd={})
        v = self.v_NM[None, :, 0]
        columns = [shapes_BQ[:, q, None] for q in range(shapes_BQ.shape[1])]
        if self.form == "power-shifted":
            log_phi, first, second = _shifted(v, *columns)
        elif self.form == "power-bounded":
            log_phi, first, second = _bounded(v, *columns)
        else:
            log_phi, first, second = _broken(v, *columns)
        with np.errstate(over="ignore"):
            phi = np.exp(log_phi)
        return Terms(phi_BMN=phi[:, None, :], d_BQN=np.stack(first, axis=1), dd=second)

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


_Parts = tuple["Array", list["Array"], dict[tuple[int, int], "Array"]]


def _sigmoid(z: Array) -> Array:
    half: Array = 0.5 * (1 + np.tanh(z / 2))
    return half


def _shifted(v: Array, b: Array, s: Array) -> _Parts:
    inner = np.exp(v) + s
    log_ratio = np.log(inner) - np.log1p(s)
    slope = 1 / inner - 1 / (1 + s)
    bend = -1 / inner**2 + 1 / (1 + s) ** 2
    return -b * log_ratio, [-log_ratio, -b * slope], {(0, 1): -slope, (1, 1): -b * bend}


def _bounded(v: Array, b: Array, k: Array) -> _Parts:
    z = b * (v - k)
    share = _sigmoid(z)
    bell = share * (1 - share)
    second = {
        (0, 0): -bell * (v - k) ** 2,
        (0, 1): bell * b * (v - k) + share,
        (1, 1): -bell * b**2,
    }
    return -np.logaddexp(0, z), [-share * (v - k), share * b], second


def _broken(v: Array, b: Array, c: Array, k: Array, g: Array) -> _Parts:
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

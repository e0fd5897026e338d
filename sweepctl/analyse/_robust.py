"""How far may a power law's numbers lie off, if its scatter is uneven? HC3 for B laws at once.

A law is linearised at its parameters; what each point does to each of them is its influence, with
the residual divided by what the point's leverage left of it. Sums of squared influences are the HC3
variances (MacKinnon and White 1985), of one parameter or of any function of them by its gradient.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sweepctl.analyse._families import Family

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]


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

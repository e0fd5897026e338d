"""How posteriors are stored: float32, or bfloat16 in half the bytes.

NumPy has no bfloat16, so its 16 bits are stored as unsigned integers, in an .npy file whose dtype
has one field named "bfloat16": the file itself says what it holds, and is mapped like any other.
A bfloat16 is the upper half of a float32, so reading it back is exact.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vitok_core.settings import StoredType
from vitok_core.tokenizer import Posterior

DTYPES: dict[StoredType, np.dtype[Any]] = {
    "float32": np.dtype("<f4"),
    "bfloat16": np.dtype([("bfloat16", "<u2")]),
}
"""Of the arrays on disk."""


def rounded(posterior: Posterior, dtype: StoredType) -> Posterior:
    """What will be read again: float32 whose values `dtype` can hold, rounded to nearest even."""
    held = getattr(torch, dtype)
    logvar = posterior.logvar
    return Posterior(
        mean=posterior.mean.to(held).float(),
        logvar=None if logvar is None else logvar.to(held).float(),
    )


def as_stored(values: Tensor, dtype: StoredType) -> NDArray[Any]:
    """A contiguous array of `DTYPES`; `values` are of `rounded`."""
    held = values.to(getattr(torch, dtype)).cpu().contiguous()
    array = held.numpy() if dtype == "float32" else held.view(torch.int16).numpy()
    return array.view(DTYPES[dtype])


def as_float32(stored: NDArray[Any]) -> NDArray[np.float32]:
    """The numbers of an array of `DTYPES`; float32 stays as it is."""
    if stored.dtype == DTYPES["float32"]:
        return stored
    bits = stored["bfloat16"].astype(np.uint32)
    numbers: NDArray[np.float32] = (bits << np.uint32(16)).view(np.float32)
    return numbers

"""Plain data, strict JSON and counts in words: what is printed, stored or sent to a browser."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any


def finite(value: Any) -> Any:
    """Plain data in which every number that is not finite is None, at any depth.

    JSON has no words for NaN and infinity. Records become mappings, tuples and arrays lists, keys
    texts.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            entry.name: finite(getattr(value, entry.name)) for entry in dataclasses.fields(value)
        }
    if hasattr(value, "dtype"):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [finite(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def many(count: int, what: str) -> str:
    """A count with its noun: "1 cell", "2,000 cells"."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def to_json(value: Any, *, indent: int | None = None) -> str:
    """Strict JSON; records become mappings, times ISO texts, paths texts.

    Args:
        value: plain data and records.
        indent: of each level; None for one compact line.

    Raises:
        ValueError: it holds NaN or infinity; `finite` turns them into null.
        TypeError: it holds something that is not plain data.
    """
    return _COMPACT.encode(value) if indent is None else _encoder(indent).encode(value)


def _encoder(indent: int | None) -> json.JSONEncoder:
    separators = (",", ":") if indent is None else None
    return json.JSONEncoder(
        allow_nan=False, indent=indent, separators=separators, default=_converted
    )


def _converted(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {entry.name: getattr(value, entry.name) for entry in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return dict(value)
    if hasattr(value, "isoformat"):
        return value.isoformat()
    if isinstance(value, PurePath):
        return str(value)
    raise TypeError(f"not plain data: {type(value).__name__}")


_COMPACT = _encoder(None)
"""Kept, because a ledger encodes ten thousand cells with it."""

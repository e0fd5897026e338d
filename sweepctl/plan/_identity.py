"""What makes two tasks the same? Canonical JSON of what changes their numbers, and its hash.

The hash is tagged with its version ("s1:"), so that a later rule can never be mistaken for this
one. Paths, hosts, device counts, priorities and names never enter; whatever is not plain data
raises, because a value that prints differently tomorrow would silently rerun a month of work.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

HASH_TAG = "s1:"


def canonical(value: object) -> str:
    """Plain data as the one JSON text that stands for it: sorted keys, no spaces, finite numbers.

    Raises:
        TypeError: a key that is not text, or a value that is not plain data.
        ValueError: NaN or infinity.
    """
    if not _is_stable(value):
        _refuse_unstable(value, "")
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _is_stable(value: Any) -> bool:
    """Whether a value is plain data of the exact built-in types; the quick way to say yes."""
    kind = type(value)
    if kind is dict:
        return all(type(key) is str and _is_stable(below) for key, below in value.items())
    if kind is list or kind is tuple:
        return all(_is_stable(below) for below in value)
    return kind in _PLAIN or (kind is float and math.isfinite(value))


_PLAIN = frozenset({str, int, bool, type(None)})


def _refuse_unstable(value: object, path: str) -> None:
    if value is None or isinstance(value, str | bool | int):
        return
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{path or 'value'}: {value} has no place in an identity")
        return
    if isinstance(value, Mapping):
        for key, below in value.items():
            if not isinstance(key, str):
                raise TypeError(f"{path}: the key {key!r} is not text")
            _refuse_unstable(below, f"{path}.{key}")
        return
    if isinstance(value, list | tuple):
        for index, below in enumerate(value):
            _refuse_unstable(below, f"{path}.{index}")
        return
    raise TypeError(f"{path or 'value'}: {type(value).__name__} is not plain data")


def fingerprint(identity: str) -> str:
    """The tagged hash of a canonical JSON text: "s1:" and 32 hex digits (128 bits of SHA-256)."""
    return HASH_TAG + hashlib.sha256(identity.encode()).hexdigest()[:32]


def flat(value: object, path: str = "") -> Iterator[tuple[str, object]]:
    """Every leaf of plain data with its dotted path; lists are leaves."""
    if isinstance(value, Mapping):
        for key, below in value.items():
            yield from flat(below, f"{path}.{key}" if path else str(key))
    else:
        yield path, value


def differences(before: str, after: str) -> list[str]:
    """What changed between two identities, as "path: old -> new", in the order of the paths."""
    old, new = dict(flat(json.loads(before))), dict(flat(json.loads(after)))
    changed = []
    for path in sorted(old.keys() | new.keys()):
        if old.get(path, _ABSENT) != new.get(path, _ABSENT):
            changed.append(f"{path}: {_shown(old, path)} -> {_shown(new, path)}")
    return changed


_ABSENT = object()


def _shown(leaves: Mapping[str, object], path: str) -> str:
    return json.dumps(leaves[path]) if path in leaves else "absent"

"""What makes two tasks the same? Canonical JSON of what changes their numbers, and its hash.

The hash is tagged with its version ("s1:"), so that a later rule can never be mistaken for this
one. Paths, hosts, device counts, priorities and names never enter; whatever is not plain data
raises, because a value that prints differently tomorrow would silently rerun a month of work.

A setting that was added later (`ADDED_LATER`) is left out while it has the value that was in force
before it existed: giving the tool one more setting must not rerun what was computed without it.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from sweepctl import paths
from sweepctl.kinds import optional_groups
from sweepctl.study import added_later
from vitok_core.settings import from_plain, hints

HASH_TAG = "s1:"

Settings = TypeVar("Settings")

ADDED_LATER = added_later()
"""Config path of each setting that was added to the format -> the value in force before, as the
setting itself says by `vitok_core.settings.AddedLater`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSet:
    """What a plan has to know about a data set.

    Attributes:
        identity: what decides its pixels, plain data.
        video: whether its samples are clips.
        refuses: of a video set, why it has no clips of so many frames at so many a second (None: as
            they come), or None where it has; the same answer every time.
        samples: how many images it has at most; None for as many as one likes.
        streams: samples of one pass over it where it can be read without being prepared (a set of
            the user's); None where it cannot.
        classes: number of labels; 0 for a set without, whose generators are unconditional.
        problem: why it cannot be used now, or None.
        shares: how many samples of another data set are in it, by the name of that one; the same
            answer every time.
    """

    identity: Mapping[str, Any]
    video: bool
    refuses: Callable[[int, float | None], str | None] = lambda frames, fps: None
    samples: int | None = None
    streams: int | None = None
    classes: int = 0
    problem: str | None = None
    shares: Callable[[str], int] = lambda other: 0


ALLOW_OVERLAP = "evaluate.allow_overlap"
"""The setting that admits a cell and changes none of its numbers."""

_ADDED = paths.nested(ADDED_LATER.items())


def lasting(config: dict[str, Any]) -> dict[str, Any]:
    """A config without groups that are off and later settings that have their earlier value.

    That is what is identified.

    Args:
        config: a cell's whole config; stays as it is.
    """
    kept = _without(config, _ADDED)
    if "allow_overlap" in kept.get("evaluate", ()):
        kept["evaluate"] = {**kept["evaluate"]}
        del kept["evaluate"]["allow_overlap"]
    for group in groups_off(config):
        lead, name = group.split(".")
        if name in kept.get(lead, ()):
            kept[lead] = {key: value for key, value in kept[lead].items() if key != name}
    return kept


def groups_off(config: Mapping[str, Any]) -> tuple[str, ...]:
    """The optional groups that a cell is without."""
    # Asked several times a cell, of ten thousand cells.
    return _without_switches(tuple(_is_set(config, *parts) for parts in _SWITCHES))


def group_of(path: str) -> str | None:
    """The optional group that a setting belongs to, or None."""
    group = ".".join(path.split(".")[:2])
    return group if group in _OPTIONAL else None


_OPTIONAL = {group: kind.switches for group, kind in optional_groups().items()}
_SWITCHES = tuple(
    sorted({tuple(switch.split(".")) for switches in _OPTIONAL.values() for switch in switches})
)


def _is_set(config: Mapping[str, Any], section: str, group: str, name: str) -> bool:
    try:
        return config[section][group][name] is not None
    except KeyError:  # a lasting config
        return False


@functools.cache
def _without_switches(are_set: tuple[bool, ...]) -> tuple[str, ...]:
    known = {".".join(parts): is_set for parts, is_set in zip(_SWITCHES, are_set, strict=True)}
    return tuple(
        group
        for group, switches in _OPTIONAL.items()
        if not all(known[switch] for switch in switches)
    )


def _without(config: dict[str, Any], added: Mapping[str, Any]) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for key, value in config.items():
        if key not in added:
            kept[key] = value
        elif isinstance(value, dict):
            kept[key] = _without(value, added[key])
        # 0 == False and 1 == True, but they are not one value.
        elif value != added[key] or (type(value) is bool) is not (type(added[key]) is bool):
            kept[key] = value
    return kept


def completed(part: Mapping[str, Any], path: str) -> dict[str, Any]:
    """A part of a lasting config with the settings that were left out; the reverse of `lasting`.

    Args:
        part: what stands below `path`, for example a task's "tokenizer".
        path: dotted config path of the part.
    """
    return _filled(part, paths.get(_ADDED, path, {}))


def settings_of(kind: type[Settings], part: Mapping[str, Any], **elsewhere: Any) -> Settings:
    """The settings that a part of a lasting config, or of an identity, holds.

    Args:
        kind: a class of `vitok_core.settings`, which knows its place in the config.
        part: what stands at that place; other settings of the place are left aside.
        elsewhere: settings that the config has at another place, such as the seed.
    """
    place: str = kind.PLACE  # type: ignore[attr-defined]  # those of a place
    known = hints(kind)
    whole = completed(part, place)
    own = {name: value for name, value in whole.items() if name in known}
    return from_plain(kind, own | elsewhere)


def _filled(part: Mapping[str, Any], added: Mapping[str, Any]) -> dict[str, Any]:
    whole = dict(part)
    for key, value in added.items():
        if isinstance(value, Mapping):
            whole[key] = _filled(part.get(key, {}), value)
        else:
            whole.setdefault(key, value)
    return whole


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
    if kind in _PLAIN:
        return True
    # Plain loops: plans come here a million times, and a generator a level is half of the time.
    if kind is dict:
        for key, below in value.items():
            if type(key) is not str or not _is_stable(below):
                return False
        return True
    if kind is list or kind is tuple:
        for below in value:  # noqa: SIM110
            if not _is_stable(below):
                return False
        return True
    return kind is float and math.isfinite(value)


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


def differences(before: str, after: str) -> list[str]:
    """What changed between two identities, as "path: old -> new", in the order of the paths."""
    old, new = paths.flat(json.loads(before)), paths.flat(json.loads(after))
    changed = []
    for path in sorted(old.keys() | new.keys()):
        if old.get(path, _ABSENT) != new.get(path, _ABSENT):
            changed.append(f"{path}: {_shown(old, path)} -> {_shown(new, path)}")
    return changed


_ABSENT = object()


def _shown(leaves: Mapping[str, object], path: str) -> str:
    if path in leaves:
        return json.dumps(leaves[path])
    # A task's config names its parts by their ends: config.stage1.ema is stages.stage1.ema.
    end = "." + path.removeprefix("config.")
    for added, value in ADDED_LATER.items():
        if f".{added}".endswith(end):
            return json.dumps(value)
    return "absent"

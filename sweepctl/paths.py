"""Values of nested mappings by their dotted path, such as `stages.stage1.steps`.

Where a key itself may hold a dot, a path is given as the tuple of its keys.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

Path = str | tuple[str, ...]
"""A dotted path, or its keys one by one."""


def keys_of(path: Path) -> tuple[str, ...]:
    """The keys that lead to a value."""
    return tuple(path.split(".")) if isinstance(path, str) else path


def get(tree: Any, path: Path, default: Any = None) -> Any:
    """The value at a path, or the default where the path leads nowhere."""
    here = tree
    for key in keys_of(path):
        if not isinstance(here, Mapping) or key not in here:
            return default
        here = here[key]
    return here


def put(tree: dict[str, Any], path: Path, value: object) -> bool:
    """Set the value at a path, in place, with the mappings that are missing on the way.

    The mappings on the way are copied, so a tree that shares them stays as it is.

    Returns:
        False, and nothing was changed, if the path leads through a value that is not a mapping.
    """
    *lead, last = keys_of(path)
    below: Any = tree
    for key in lead:
        below = below.get(key, {})
        if not isinstance(below, Mapping):
            return False
    here = tree
    for key in lead:
        here[key] = dict(here.get(key, {}))
        here = here[key]
    here[last] = value
    return True


def remove(tree: dict[str, Any], path: Path) -> None:
    """Remove the value at a path, in place, if there is one."""
    *lead, last = keys_of(path)
    here = get(tree, tuple(lead))
    if isinstance(here, dict):
        here.pop(last, None)


def flat(tree: Mapping[str, Any], *, lists: bool = False) -> dict[str, Any]:
    """Every leaf under its dotted path, in the order of the tree.

    Args:
        tree: plain data.
        lists: whether the entries of a list are leaves, at their index; else the list is one.
    """
    return dict(_leaves(tree, "", lists)) if tree else {}


def nested(leaves: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """The tree of leaves with their dotted paths; the reverse of `flat`."""
    tree: dict[str, Any] = {}
    for path, value in leaves:
        put(tree, path, value)
    return tree


def _leaves(value: Any, path: str, lists: bool) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        below: Iterable[tuple[Any, Any]] = value.items()
    elif lists and isinstance(value, list) and value:
        below = enumerate(value)
    else:  # an empty mapping is a leaf: it is something else than no value
        yield path, value
        return
    for key, entry in below:
        yield from _leaves(entry, f"{path}.{key}" if path else str(key), lists)

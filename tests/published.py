"""Records of published files of weights, for tests that put another file in their place."""

from __future__ import annotations

from vitok_core.protocols import FILES, Download


def published(name: str) -> Download:
    """The record of a file that its publisher offers for download."""
    file = FILES[name]
    assert isinstance(file, Download)
    return file

"""Figures that commands draw: what `--figures` and `--out` mean, and where files go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sweepctl.cli._output import say
from sweepctl.cli._session import check_alone, run_folder


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """What a command draws.

    Attributes:
        folder: where figures are written; None when none is drawn.
        kinds: kinds of figures, of a command that has several.
        formats: of "png", "svg", "pdf".
    """

    folder: Path | None
    kinds: tuple[str, ...]
    formats: tuple[str, ...]

    def place(self, name: str) -> Path | None:
        """Where the figure of a name is written, without its suffix; None when none is drawn."""
        return None if self.folder is None else self.folder / name.replace("/", "-")


def drawing(figures: str | None, out: Path | None, *, kinds: bool = False) -> Drawing:
    """What the options ask for.

    Args:
        figures: what --figures says: "none", or kinds and formats, comma-separated.
        out: what --out says.
        kinds: whether the command has several kinds of figures.

    Raises:
        UsageError: a word is neither a kind nor a format, or --out is given for no figures.
    """
    from sweepctl.figures import FORMATS, formats_of
    from sweepctl.report import kinds_of

    if figures == "none":
        check_alone("--figures none", {"--out": out})
        return Drawing(folder=None, kinds=(), formats=())
    words = [] if figures is None else [word.strip() for word in figures.split(",")]
    of_kind = [word for word in words if word not in FORMATS] if kinds else []
    of_format = [word for word in words if word not in of_kind]
    return Drawing(
        folder=out or run_folder() / "figures",
        kinds=kinds_of(",".join(of_kind) or None),
        formats=formats_of(",".join(of_format) or None),
    )


def say_figures(files: Sequence[Path]) -> None:
    """Name the figures that were written."""
    for file in files:
        say(f"figure: {file}")

"""Which options do several commands share? Their types and what the help says about them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

File = Annotated[Path, typer.Argument(metavar="FILE", help="A study file.")]
Name = Annotated[str, typer.Argument(metavar="STUDY", help="Name of a study that was run.")]
FileOrName = Annotated[
    str, typer.Argument(metavar="STUDY", help="Name of a study, or its file as it is now.")
]
TaskPrefix = Annotated[
    str, typer.Argument(metavar="TASK", help="A task's id, or the beginning of it.")
]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", "-s", metavar="PATH=VALUE", help="Override a value; can be repeated."),
]
Db = Annotated[
    str | None,
    typer.Option("--db", metavar="URL", help="Results database: a path or URL. [SWEEPCTL_DB]"),
]
Runs = Annotated[
    Path | None, typer.Option("--runs", metavar="FOLDER", help="Run folder; by default runs/.")
]
Json = Annotated[bool, typer.Option("--json", help="One JSON document.")]
Format = Annotated[str, typer.Option("--format", "-f", help="table, csv or json.")]
FigureFormats = Annotated[
    str | None,
    typer.Option("--format", help="Of figures: png, svg, pdf, comma-separated; png,svg."),
]

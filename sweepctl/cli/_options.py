"""The arguments and options that several commands share, each declared once."""

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
What = Annotated[
    str, typer.Argument(metavar="STUDY", help="A study that was run, or paper/figure-3 and so on.")
]
Metric = Annotated[str, typer.Option("--metric", "-m", help="The metric.")]
On = Annotated[
    str | None, typer.Option("--on", help="Its data set, where it was measured on several.")
]
Where = Annotated[
    str | None, typer.Option("--where", help="Only these cells: SQL, as `results` takes it.")
]
Out = Annotated[
    Path | None, typer.Option("--out", help="Folder of the figure; runs/figures by default.")
]
NoFigures = Annotated[bool, typer.Option("--no-figures", help="Numbers only.")]

"""The arguments and options that several commands share, each declared once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

File = Annotated[Path, typer.Argument(metavar="FILE", help="A study file.")]
Name = Annotated[str, typer.Argument(metavar="STUDY", help="Name of a study that was run.")]
NameOrPaper = Annotated[
    str, typer.Argument(metavar="STUDY", help="A study that was run, or paper/figure-3 and so on.")
]
TaskPrefix = Annotated[
    str, typer.Argument(metavar="TASK", help="A task's id, or the beginning of it.")
]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", "-s", metavar="PATH=VALUE", help="Override a value; can be repeated."),
]
Devices = Annotated[
    str | None,
    typer.Option(
        "--on",
        metavar="[COUNTx]DEVICE[@SHARE]",
        help="Hours for such devices (H100, RTX 4090, cpu, '200 TFLOP/s'), at a share of their "
        "peak if you state one.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Format = Annotated[str, typer.Option("--format", "-f", help="table, csv or json.")]
Where = Annotated[
    str | None, typer.Option("--where", help='SQL condition, as in "p = 8 and psnr > 30".')
]
Columns = Annotated[
    str | None, typer.Option("--columns", help="Columns to print, comma-separated.")
]
Sort = Annotated[
    str | None, typer.Option("--sort", help="Columns to sort by; a minus for descending.")
]
Metric = Annotated[
    str,
    typer.Option(
        "--metric", "-m", help="The metric; METRIC@DATASET where there are several data sets."
    ),
]

FIGURES = "Figures"
"""Title of the panel of options about figures."""
Figures = Annotated[
    str | None,
    typer.Option(
        "--figures",
        metavar="none|KIND,FORMAT,...",
        help="none, or formats (png, svg, pdf) and, where there are several, kinds or all.",
        rich_help_panel=FIGURES,
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(
        "--out",
        "-o",
        metavar="FOLDER",
        help="Folder of the figures; runs/figures by default.",
        rich_help_panel=FIGURES,
    ),
]
Save = Annotated[
    Path | None,
    typer.Option(
        "--save", metavar="FOLDER", help="Keep each fit in a folder of its own below this one."
    ),
]

# Options of every command: `sweepctl --help` shows them, and they may follow the command, too.
Db = Annotated[
    str | None,
    typer.Option("--db", metavar="URL", help="Results database: a path or URL. [SWEEPCTL_DB]"),
]
Runs = Annotated[
    Path | None, typer.Option("--runs", metavar="FOLDER", help="Run folder; by default runs/.")
]
GLOBAL = ("--db", "--runs")
"""Their names; each takes a value."""

"""Which numbers did the ViTok paper publish? Every plotted and printed one, ready to be fitted.

`points.csv` next to this file holds them in long form with their provenance: figure points
were read from the vector figures of the authors' project page (4 to 5 digits are real), the rest is
printed in the paper (arXiv 2501.09755) or in its first version. They are facts, not results of
this program; their protocol is called "paper", so that they never meet measured values in a fit.
Metrics bear the names of this program: rFID is rfid, rPSNR is psnr, rSSIM is ssim.
"""

from __future__ import annotations

import hashlib
from importlib.resources import files
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

PROTOCOL = "paper"
"""Protocol of all reference points."""

PARAMETERS = {"S": 43.3e6, "B": 85.8e6, "L": 383.7e6}
"""Parameters of an encoder or decoder by its size, as printed in table 1 of the paper."""

_FILE = "points.csv"
_GENERATION_SAMPLES = 50_000
_TEXTS = (
    *("source", "figure_or_table", "kind", "dataset", "variant", "encoder", "decoder"),
    *("setting", "metric", "note"),
)
_WHOLE = ("id", "resolution", "frames", "q", "p", "c", "tokens", "E")
_ROW = {
    "id": "id",
    "source": "source",
    "place": "figure_or_table",
    **{
        name: name
        for name in (
            *("figure", "kind", "dataset", "variant", "encoder", "decoder", "encoder_parameters"),
            *("decoder_parameters", "resolution", "frames", "q", "p", "c", "tokens", "E"),
            *("setting", "generator", "cfg"),
        )
    },
    "name": "metric",
    **{name: name for name in ("value", "value_high", "n", "protocol", "note")},
}


def reference_edition() -> str:
    """Which numbers `reference_rows` gives: a hash of their file."""
    return hashlib.sha256((files("sweepctl.paper") / _FILE).read_bytes()).hexdigest()[:16]


def reference_rows() -> list[dict[str, Any]]:
    """The published numbers by the column names of the ledger's `v_reference`, plain data."""
    frame = reference_points()
    whole = {*_WHOLE, "n", "encoder_parameters", "decoder_parameters"}

    def plain(name: str, value: Any) -> Any:
        if value is None or value != value or str(value) == "<NA>":
            return None
        return int(value) if name in whole else value

    records = frame[list(_ROW.values())].astype("object").to_dict("records")
    return [
        {column: plain(name, record[name]) for column, name in _ROW.items()} for record in records
    ]


def reference_points(figure: str | None = None) -> pd.DataFrame:
    """The published numbers as a long frame that `fit_study` takes.

    Columns: cell, task, metric, dataset, protocol, n, value, value_high, the settings (variant,
    encoder, decoder, encoder_parameters, decoder_parameters, parameters, resolution,
    frames, q, p, c, tokens, E, setting, generator, cfg, seed), and where each number comes from:
    id, source, kind, figure_or_table, figure, note. What the paper does not state is missing.
    A cell is one marker of a figure or one row of a table with all its metrics; markers with one
    value and one setting are the same measurement plotted again and share a task. `value_high` is
    the upper end of the few values that are printed as ranges.

    Args:
        figure: only the numbers of one figure, by its number: "3", "5/6"; all numbers when None.

    Raises:
        ValueError: no number is from that figure.
    """
    import pandas as pd

    types: dict[str, Any] = dict.fromkeys(_TEXTS, "object") | dict.fromkeys(_WHOLE, "Int64")
    with (files("sweepctl.paper") / _FILE).open(encoding="utf-8") as lines:
        frame = pd.read_csv(lines, dtype=types | {"value": float, "value_high": float})
    frame["figure"] = frame["figure_or_table"].str.extract(r"^Fig (\S+)", expand=False)
    # A generator is no setting of the tokenizer, though the figures name both in one place.
    generated = frame["kind"] == "generation"
    frame["generator"] = frame["setting"].where(generated).astype("object")
    frame["setting"] = frame["setting"].mask(generated).astype("object")
    frame["n"] = pd.Series(pd.NA, index=frame.index, dtype="Int64").mask(
        generated, _GENERATION_SAMPLES
    )
    frame["protocol"] = PROTOCOL
    frame["seed"] = 0
    for side in ("encoder", "decoder"):
        frame[f"{side}_parameters"] = frame[side].map(PARAMETERS)
    frame["parameters"] = frame["encoder_parameters"] + frame["decoder_parameters"]
    settings = ["kind", "dataset", "variant", "encoder", "decoder", "resolution", "frames", "q"]
    settings += ["p", "c", "tokens", "E", "setting", "generator", "cfg"]
    marker = frame.groupby(["figure_or_table", *settings], dropna=False, sort=False)
    frame["cell"] = marker["id"].transform("min").astype(int)
    same = frame.groupby([*settings, "metric", "value"], dropna=False, sort=False)
    frame["task"] = "paper-" + same["id"].transform("min").astype(str)
    if figure is None:
        return frame
    chosen = frame[frame["figure"] == figure]
    if not len(chosen):
        known = ", ".join(sorted(set(frame["figure"].dropna())))
        raise ValueError(f"there are no numbers of figure {figure!r}; figures: {known}")
    return chosen.reset_index(drop=True)

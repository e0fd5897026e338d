"""Files, pages and terminal draw one model: the same points, law, bands, axes and legend."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest

from sweepctl.analyse import bands
from sweepctl.claims import Analysis, fit_study
from sweepctl.figures import (
    Figure,
    curves,
    draw,
    hold_outs,
    laws,
    optima,
    paper_series,
    pareto,
    plotly,
    residuals,
    scatter,
    terminal,
)
from sweepctl.paper import compared_with_paper
from sweepctl.study import Fit

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MARKS = {"circle": "o", "square": "s", "triangle-up": "^", "diamond": "D"}
LETTERS = {"circle": "o", "square": "x", "triangle-up": "+", "diamond": "*"}


@pytest.fixture(scope="module")
def analysis() -> Analysis:
    rng = np.random.default_rng(0)
    rows = []
    for p in (2, 4, 8):
        for c in (4, 16, 64):
            e = 1024 // p**2 * c
            for seed in range(2):
                row = {"cell": len(rows) // 2, "task": f"t{len(rows) // 2}", "p": p, "c": c}
                row |= {"seed": seed, "E": e, "n": 1024, "dataset": "photos-eval"}
                row |= {"protocol": "lite0"}
                distance = 2 ** (9 - 0.71 * math.log2(e) + 0.1 * rng.normal())
                rows.append(row | {"metric": "rfid", "value": distance})
                quality = 8 + 1.6 * math.log2(e) + 0.3 * rng.normal()
                rows.append(row | {"metric": "psnr", "value": quality})
    fits = {
        "law": Fit(metric="rfid", on="photos-eval", form="loglog"),
        "fidelity": Fit(metric="psnr", on="photos-eval", form="semilog"),
        "bent": Fit(metric="psnr", on="photos-eval", form="quadratic"),
    }
    return fit_study(pd.DataFrame(rows), fits, ())


@pytest.fixture(scope="module", params=["law", "fidelity"])
def figure(request: pytest.FixtureRequest, analysis: Analysis) -> Figure:
    return laws([analysis.fit(request.param)], title="nine")


@pytest.fixture(scope="module")
def axes(figure: Figure) -> Axes:
    return draw(figure).axes[0]


def dots_of(figure: Figure) -> set[tuple[float, float, str, str]]:
    """x, y, marker and color of every visible point."""
    return {
        (rounded(dot.x), rounded(dot.y), dot.marker, series.color)
        for series in figure.panels[0].series
        if not series.hidden
        for dot in series.dots
    }


def rounded(value: float) -> float:
    return float(f"{value:.6g}")


def rounded_all(values: Any) -> list[float]:
    return [rounded(float(value)) for value in values]


# --------------------------------------------------------------------------------------- the model


def test_a_figure_holds_every_configuration_the_law_and_both_bands(analysis: Analysis) -> None:
    for fit in analysis.fits[:2]:
        (panel,) = laws([fit]).panels
        dots = [dot for series in panel.series for dot in series.dots]
        assert {dot.cells for dot in dots} == {point.cells for point in fit.points}
        assert len(dots) == fit.n == 9
        unit = (lambda y: 2.0**y) if fit.scale == "log2" else float
        ys = {point.cells: unit(point.y) for point in fit.points}
        assert all(dot.y == ys[dot.cells] for dot in dots)
        assert all(dot.low is not None and dot.low <= dot.y <= (dot.high or 0) for dot in dots)
        expected = bands(fit, panel.bands[0].x)
        assert panel.bands[0].low == tuple(expected.low)
        assert panel.bands[1].high == tuple(expected.mean_high)
        law = next(line for line in panel.lines if line.label == "law")
        assert law.y == tuple(bands(fit, law.x).mean)
        ends = [point.x for point in fit.points]
        assert min(law.x) >= min(ends) and max(law.x) <= max(ends)


def test_points_at_equal_x_do_not_hide_each_other(analysis: Analysis) -> None:
    (panel,) = laws([analysis.fit("law")]).panels
    dots = [dot for series in panel.series for dot in series.dots]
    xs = [dot.x for dot in dots]
    assert len(set(xs)) == len(xs)
    truth = {point.cells: point.x for point in analysis.fit("law").points}
    assert all(abs(math.log2(dot.x / truth[dot.cells])) < 0.2 for dot in dots)


def test_a_setting_has_one_marker_or_color_in_all_panels(analysis: Analysis) -> None:
    whole = laws(analysis.fits)
    assert [key.label for key in whole.points] == ["p 2", "p 4", "p 8", "c 4", "c 16", "c 64"]
    assert len({key.marker for key in whole.points[:3]}) == 3
    assert len({key.color for key in whole.points[3:]}) == 3
    for panel in whole.panels:
        assert [one.label for one in panel.series] == ["c 4", "c 16", "c 64"]
        assert [one.color for one in panel.series] == [key.color for key in whole.points[3:]]


# ----------------------------------------------------------------------------------- the renderers


def test_matplotlib_draws_the_points_of_the_model(figure: Figure, axes: Axes) -> None:
    from matplotlib.colors import to_hex

    marks = {mark: name for name, mark in MARKS.items()}
    drawn = {
        (
            rounded(line.get_xdata()[0]),
            rounded(line.get_ydata()[0]),
            marks[line.get_marker()],
            to_hex(line.get_color()),
        )
        for line in axes.lines
        if line.get_marker() in marks
    }
    assert drawn == dots_of(figure) and len(drawn) == 9
    bars = [
        line for line in axes.lines if line.get_marker() == "None" and len(line.get_xdata()) == 2
    ]
    assert len(bars) == 9


def test_plotly_draws_the_points_of_the_model(figure: Figure) -> None:
    made = plotly(figure, "nine")
    traces = [trace for trace in made["data"] if "customdata" in trace]
    drawn = set()
    for trace in traces:
        symbols = trace["marker"]["symbol"]
        every = [symbols] * len(trace["x"]) if isinstance(symbols, str) else symbols
        for x, y, symbol in zip(trace["x"], trace["y"], every, strict=True):
            drawn.add((rounded(x), rounded(y), symbol, trace["marker"]["color"]))
        assert all(size > 0 for size in trace["error_y"]["array"])
    assert drawn == dots_of(figure)
    cells = sorted(cell for trace in traces for cell in trace["customdata"])
    dots = [dot for series in figure.panels[0].series for dot in series.dots]
    assert cells == sorted(dot.cells[0] for dot in dots)


def test_the_terminal_draws_the_points_of_the_model(figure: Figure) -> None:
    """Each letter stands in the row and the column of its point."""
    columns, lines = 160, 60
    text = terminal(figure, columns=columns, lines=lines)
    body = [
        line.partition("| ")[2] for line in text.splitlines() if re.match(r" +[\d.]+ \| ", line)
    ]
    panel = figure.panels[0]
    width, height = len(body[0]), len(body)
    assert panel.x.limits is not None and panel.y.limits is not None

    def share(value: float, limits: tuple[float, float], log: bool) -> float:
        low, high = (math.log2(end) for end in limits) if log else limits
        return ((math.log2(value) if log else value) - low) / (high - low)

    for x, y, marker, _ in dots_of(figure):
        column = share(x, panel.x.limits, panel.x.log) * width
        row = height - 1 - share(y, panel.y.limits, panel.y.log) * height
        near = {
            body[i][j]
            for i in range(max(0, round(row) - 1), min(height, round(row) + 2))
            for j in range(max(0, round(column) - 1), min(width, round(column) + 2))
        }
        assert LETTERS[marker] in near, (x, y, marker)


def test_the_law_and_its_band_are_the_same_in_all_three(figure: Figure, axes: Axes) -> None:
    panel = figure.panels[0]
    law = next(line for line in panel.lines if line.label == "law")
    new, mean = panel.bands
    drawn = [rounded_all(line.get_ydata()) for line in axes.lines]
    assert rounded_all(law.y) in drawn
    edges = [set(map(rounded, area.get_paths()[0].vertices[:, 1])) for area in axes.collections]
    assert [set(rounded_all((*band.low, *band.high))) <= edge for band, edge in
            zip((new, mean), edges, strict=True)] == [True, True]  # fmt: skip
    traces = plotly(figure, "nine")["data"]
    named = {trace.get("name"): trace for trace in traces}
    assert named["law"]["x"] == rounded_all(law.x) and named["law"]["y"] == rounded_all(law.y)
    for band in (new, mean):
        upper = named[band.label]
        lower = traces[traces.index(upper) - 1]
        assert upper["fill"] == "tonexty" and upper["y"] == rounded_all(band.high)
        assert lower["y"] == rounded_all(band.low)
    # In characters: dots where the law runs, between the two edges of the inner band.
    bare = terminal(figure, columns=160, lines=60)
    assert sum("\u2801" <= sign <= "\u28ff" for sign in bare) > 100


def test_axes_have_one_scale_and_one_title_in_all_three(figure: Figure, axes: Axes) -> None:
    panel, layout = figure.panels[0], plotly(figure, "nine")["layout"]
    for name, axis in (("x", panel.x), ("y", panel.y)):
        assert (getattr(axes, f"get_{name}scale")() == "log") is axis.log
        assert (layout[f"{name}axis"]["type"] == "log") is axis.log
        assert getattr(axes, f"get_{name}label")() == axis.title
        assert layout[f"{name}axis"]["title"]["text"] == axis.title
        assert getattr(axes, f"get_{name}lim")() == pytest.approx(axis.limits)
    assert panel.x.log and panel.y.log is (panel.title == "rfid on photos-eval")
    ticks = re.findall(r"\d+", terminal(figure, columns=160).splitlines()[-3])
    low, high = panel.x.limits or (0, 0)
    assert float(ticks[0]) == pytest.approx(low, rel=0.02) and float(ticks[-1]) <= high
    steps = np.diff(np.log2([float(tick) for tick in ticks]))
    assert steps == pytest.approx(steps.mean(), rel=0.05)


def test_the_legend_has_the_same_entries_in_all_three(
    figure: Figure, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    labels = {key.label for key in figure.keys}
    assert labels >= {"p 2", "c 64", "law", "law, 95 %", "new configuration, 95 %"}
    written = {text.get_text() for legend in draw(figure).legends for text in legend.get_texts()}
    assert written == labels
    traces = plotly(figure, "nine")["data"]
    shown = {trace["name"] for trace in traces if trace.get("showlegend", True)}
    assert shown == labels
    last = re.sub(r"\x1b\[[\d;]*m", "", terminal(figure, color=True).splitlines()[-1])
    # The wider band would cover the points in characters, so it is left out there.
    entries = {part[2:] for part in last.split("   ")}
    assert entries == labels - {"new configuration, 95 %"}
    plain = terminal(figure).splitlines()[-1]
    assert "o p 2" in plain and "x p 4" in plain and "+ p 8" in plain and "\x1b" not in plain


# ------------------------------------------------------------------------------- several panels


def test_every_renderer_draws_every_panel(analysis: Analysis) -> None:
    figure = laws(analysis.fits, title="nine")
    assert len(figure.panels) == 3
    assert [axes.get_title(loc="left") for axes in draw(figure).axes] == [
        panel.title for panel in figure.panels
    ]
    made = plotly(figure, "nine")
    layout = made["layout"]
    assert layout["grid"] == {**layout["grid"], "rows": 1, "columns": 3, "pattern": "independent"}
    for number, panel in zip(("", "2", "3"), figure.panels, strict=True):
        mine = [one for one in made["data"] if one.get("xaxis", "x") == f"x{number}"]
        assert all(one.get("yaxis", "y") == f"y{number}" for one in mine)
        placed = {y for one in mine if "customdata" in one for y in one["y"]}
        assert placed == {dot.y for series in panel.series for dot in series.dots}
        assert layout[f"yaxis{number}"]["title"]["text"] == panel.y.title
        told = [one for one in layout["annotations"] if one["xref"] == f"x{number} domain"]
        assert panel.title in [one["text"] for one in told]
    text = terminal(figure, columns=100)
    assert all(panel.sentence[:60] in text for panel in figure.panels)
    assert text.count("(psnr)") == 2 and text.count("(rfid)") == 1
    assert text.startswith("nine   9 configurations")


def test_panels_share_one_legend(analysis: Analysis) -> None:
    figure = laws(analysis.fits)
    labels = [key.label for key in figure.keys]
    shown = [one for one in plotly(figure, "x")["data"] if one.get("showlegend", True)]
    assert sorted(shown, key=lambda one: one["legendrank"]) and len(shown) == len(labels)
    assert [one["name"] for one in sorted(shown, key=lambda one: one["legendrank"])] == labels
    # One entry switches what it names in all panels.
    groups = [one["legendgroup"] for one in plotly(figure, "x")["data"] if "customdata" in one]
    assert groups.count("c 4") == len(figure.panels)
    assert terminal(figure).count("o p 2") == 1


def test_a_wide_terminal_has_panels_side_by_side(analysis: Analysis) -> None:
    figure = laws(analysis.fits)
    for columns, row in ((80, 1), (130, 2), (200, 3)):
        lines = terminal(figure, columns=columns).splitlines()
        axes = [line.count("-> (E)") for line in lines if "-> (E)" in line]
        assert axes == [row] * (3 // row) + [3 % row] * (3 % row > 0)
        assert max(map(len, lines)) <= columns


def test_ticks_are_the_same_in_files_and_pages(figure: Figure, axes: Axes) -> None:
    layout = plotly(figure, "nine")["layout"]
    for name, axis in (("x", figure.panels[0].x), ("y", figure.panels[0].y)):
        made = layout[f"{name}axis"]
        ends = (
            [math.log10(end) for end in axis.limits or ()] if axis.log else list(axis.limits or ())
        )
        assert made["range"] == pytest.approx(ends)
        if axis.log:
            drawn = getattr(axes, f"{name}axis")
            assert made["tickvals"] == list(drawn.get_majorticklocs())
            format_tick = drawn.get_major_formatter()
            assert made["ticktext"] == [format_tick(at, 0) for at in made["tickvals"]]


def test_a_law_that_was_not_fitted_says_why_in_all_three(analysis: Analysis) -> None:
    row = {"cell": 1, "task": "t", "p": 2, "c": 4, "seed": 0, "E": 64, "n": 8, "value": 20.0}
    row |= {"metric": "psnr", "dataset": "photos-eval", "protocol": "lite0"}
    fit = Fit(metric="psnr", on="photos-eval", form="semilog", where={"p": 9})
    (refused,) = fit_study(pd.DataFrame([row]), {"refused": fit}, ()).fits
    figure = laws([refused, analysis.fit("law")])
    first = refused.reason[:20]
    assert not refused.points and len(first) == 20
    assert any(first in text.get_text() for text in draw(figure).axes[0].texts)
    told = [one["text"] for one in plotly(figure, "x")["layout"]["annotations"]]
    assert any(one.startswith(f"not fitted: {first}") for one in told)
    assert f"not fitted: {first}" in terminal(figure)


# --------------------------------------------------------------------------------- other figures


def figures_of(analysis: Analysis) -> Iterator[Figure]:
    rows = [
        {"cell": i, "p": 2, "c": c, "psnr": 20.0 + i, "E": 64 * c, "macs": 10.0 ** (i + 2)}
        for i, c in enumerate((4, 8, 16))
    ]
    yield residuals(analysis.fits[:1])
    yield hold_outs(analysis.fits[:1])
    yield optima(analysis.fits)
    yield laws([analysis.fit("law")], comparisons=compared_with_paper([analysis.fit("law")]))
    yield scatter(rows, ["p", "c"], "psnr", "E")
    yield pareto(rows, ["p", "c"], "psnr", "macs", better="higher")
    yield curves([("one", (1, 2, 3), (3.0, 2.0, 1.0))], "loss")


def test_every_figure_can_be_drawn_by_every_renderer(analysis: Analysis) -> None:
    for made in figures_of(analysis):
        drawn = draw(made)
        titles = [axes.get_title(loc="left") for axes in drawn.axes]
        assert titles[: len(made.panels)] == [panel.title for panel in made.panels]
        assert plotly(made, "x")["data"]
        assert terminal(made)


def test_the_papers_points_are_hollow_and_may_be_hidden(analysis: Analysis) -> None:
    paper = paper_series("rfid", "E", video=False)
    assert paper and all(one.hidden and one.label.startswith("paper: ") for one in paper)
    shown = paper_series("rfid", "E", video=False, resolution=256)
    assert any(not one.hidden for one in shown)
    assert all(dot.hollow for one in paper for dot in one.dots)
    figure = laws([analysis.fit("law")], paper=paper)
    marked = [line for line in draw(figure).axes[0].lines if line.get_marker() in MARKS.values()]
    assert len(marked) == 9  # a file has no switch
    traces = [trace for trace in plotly(figure, "x")["data"] if "paper" in trace.get("name", "")]
    assert len(traces) == len(paper)
    assert all(trace["visible"] == "legendonly" for trace in traces)
    assert all(trace["marker"]["symbol"].endswith("-open") for trace in traces)


def test_names_of_a_study_never_become_html() -> None:
    rows = [{"cell": i, "<b>a</b>": i, "psnr": 2.0 + i, "E": 64.0 * 2**i} for i in range(3)]
    made = plotly(scatter(rows, ["<b>a</b>"], "psnr", "E"), "x")
    texts = [
        text for trace in made["data"] for text in [trace.get("name", ""), *trace.get("text", ())]
    ]
    assert any("&lt;b&gt;" in text for text in texts) and not any("<b>" in text for text in texts)

"""A form of law costs one record: two are added here, from outside, and `sweepctl` takes them.

This file is its own toy: run as a script it adds the records and becomes the command line.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sweepctl.laws import FORMS, Curve, LawForm, Number, Scales

Array = NDArray[np.float64]

# --- the records ----------------------------------------------------------------------------------


def decay(v: Array, r: Array) -> tuple[Array, list[Array], dict[tuple[int, int], Array]]:
    """ln phi of phi = exp(-r (e^v - 1)), with v = ln x, and its derivative in r."""
    rise = np.exp(v) - 1
    log_phi = -r * rise
    return log_phi, [np.broadcast_to(-rise, log_phi.shape)], {}


def starts(low: float, high: float, variables: int) -> Sequence[Array]:
    return [np.geomspace(1e-3, 10.0, 24)]


def equation(number: Mapping[str, float], x: str, say: Callable[[float], str]) -> str:
    return f"{say(number['amplitude'])} exp(-{x} / {say(number['range'])})"


LINE = LawForm(
    name="exponential", about="log2 y on x", y_scale="log2", x_scale=None, degree=1, several=True
)
CURVE = LawForm(
    name="decay",
    about="floor + a exp(-x / r)",
    y_scale="log2",
    curve=Curve(
        shapes=("rate",),
        bounds=lambda low, high: [(1e-4, 100.0)],
        starts=starts,
        log_phi=decay,
        numbers=(
            Number(
                name="amplitude",
                owner=1,
                of=lambda t, u, w: math.log(t[1]) + t[2] + w,
                positive=True,
            ),
            Number(name="range", owner=2, of=lambda t, u, w: u - math.log(t[2]), positive=True),
        ),
        equation=equation,
    ),
)

if __name__ == "__main__":
    FORMS[LINE.name] = LINE
    FORMS[CURVE.name] = CURVE
    from sweepctl.cli import main

    main()

# --- the test -------------------------------------------------------------------------------------


def sweepctl(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, __file__, *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parent.parent)},
        capture_output=True,
        text=True,
    )


def test_a_form_of_law_is_one_record(tmp_path: Path) -> None:
    from test_fit_cli import STUDY, filled

    filled(tmp_path)
    laws = """fits:
  fast: {metric: ssim, on: photos-eval, x: [p, c], form: exponential}
  slow: {metric: rfd_lite0, on: photos-eval, form: decay}
"""
    claims = """claims:
  - {name: E lowers the distance, fit: slow, slope: negative}
"""
    (tmp_path / "nine.yaml").write_text(STUDY.partition("fits:")[0] + laws + claims)
    done = sweepctl(tmp_path, "fit", "nine.yaml", "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    fast, slow = said["fits"]
    assert fast["form"] == "exponential" and fast["x_scales"] == ["raw", "raw"]
    assert fast["meaning"].startswith("each further 1 of p at equal c multiplies ssim by ")
    assert slow["coefficients"].keys() == {"floor", "amplitude", "range"}
    assert slow["slope"]["estimate"] < 0 and slow["points"][0]["fitted"] is not None
    assert said["claims"][0]["verdict"] == "supported"
    # Words, bands and pictures come from the record, too.
    told = sweepctl(tmp_path, "fit", "nine.yaml", "--figures", "none").stdout
    assert "decay" in told and " exp(-E / " in told
    assert any((tmp_path / "runs").rglob("*slow*.png")) or done.stderr.count(".png")
    schema = json.loads(sweepctl(tmp_path, "schema").stdout)
    assert "decay" in json.dumps(schema) and "floor + a exp(-x / r)" in json.dumps(schema)


def test_without_its_record_the_form_is_unknown(tmp_path: Path) -> None:
    assert {LINE.name, CURVE.name}.isdisjoint(FORMS)
    assert sweepctl(tmp_path, "--version").returncode == 0
    assert {LINE.name, CURVE.name}.isdisjoint(FORMS)


def test_a_record_holds_its_design_its_equation_and_the_meaning_of_its_slope() -> None:
    cubic = FORMS["cubic"].powers
    u = np.asarray([-1.0, 0.5, 2.0])
    coefficients = np.asarray([3.0, -2.0, 0.5, 0.25])
    np.testing.assert_allclose(cubic.rows(u) @ coefficients, np.polyval(coefficients[::-1], u))
    from_zero = cubic.from_zero(4.0) @ coefficients  # of powers of x = u + 4
    np.testing.assert_allclose(np.polyval(from_zero[::-1], u + 4.0), cubic.rows(u) @ coefficients)
    seen = Scales(metric="ssim", scale="log2", xs=("p", "c"), x_scales=("raw", "raw"))
    numbers = {"intercept": 1.5, "slope p": -0.25, "slope c": 0.5, "q 4": 0.1, "slope q 4": -2.0}
    assert LINE.equation(seen, numbers, repr) == (
        "log2 ssim = 1.5 - 0.25 p + 0.5 c + 0.1 [q 4] - 2.0 [q 4] p"
    )
    assert LINE.slope_in_words(seen, 1.0, (0.0, 2.0), 3.0, repr) == (
        "each further 1 of p at equal c multiplies ssim by 2.0 [1.0, 4.0]"
    )
    seen = Scales(metric="psnr", scale="raw", xs=("E",), x_scales=("log2",))
    numbers = {"intercept": 20.0, "linear": 3.0, "quadratic": -0.5}
    assert FORMS["quadratic"].equation(seen, numbers, repr) == (
        "psnr = 20.0 + 3.0 log2 E - 0.5 (log2 E)^2"
    )
    assert FORMS["quadratic"].slope_in_words(seen, -1.0, (-2.0, 0.5), 8.0, repr, (" dB", "")) == (
        "at E = 256.0, each doubling of E takes 1.0 [-0.5, 2.0] dB from psnr"
    )


def test_the_derivatives_of_every_curve_are_exact() -> None:
    """Newton's method needs them; a toy's are held to the same."""
    v = np.linspace(-2, 2, 7)[None]
    for form in (*FORMS.values(), CURVE):
        if form.curve is None:
            continue
        middle = [np.mean(values) for values in form.curve.starts(-2.0, 2.0, 1)]
        shapes = [np.asarray([[value]]) for value in middle]
        _, first, second = form.curve.log_phi(v, *shapes)
        for q, step in enumerate([1e-6] * len(shapes)):
            up, down = list(shapes), list(shapes)
            up[q], down[q] = shapes[q] + step, shapes[q] - step
            rise, fall = form.curve.log_phi(v, *up), form.curve.log_phi(v, *down)
            slope = (rise[0] - fall[0]) / (2 * step)
            np.testing.assert_allclose(first[q], slope, rtol=1e-5, atol=1e-7)
            for r in range(q, len(shapes)):
                bend = (rise[1][r] - fall[1][r]) / (2 * step)
                given = second.get((q, r), np.zeros_like(bend))
                np.testing.assert_allclose(
                    np.broadcast_to(given, bend.shape), bend, rtol=1e-4, atol=1e-6
                )

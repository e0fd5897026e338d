"""Fitted laws as people write them."""

from __future__ import annotations

from sweepctl.analyse._results import FitResult
from sweepctl.analyse._scales import readable


def equation(fit: FitResult) -> str:
    """The law as people write it: "log2 rfid = 17.3 - 1.38 log2 E"; empty when not fitted."""
    if not fit.coefficients:
        return ""
    if fit.y_center or "floor" in fit.coefficients:
        return _power_equation(fit)
    left = f"log2 {fit.metric}" if fit.scale == "log2" else fit.metric
    text = f"{left} ="
    for index, (name, coefficient) in enumerate(fit.coefficients.items()):
        value, term = coefficient.estimate, _term(fit, name)
        sign = "-" if value < 0 else "+" if index else ""
        text += f" {sign}{' ' if index else ''}{readable(abs(value))}"
        text += f" {term}" if term else ""
    return text


def _term(fit: FitResult, name: str) -> str:
    """What a coefficient is multiplied with; a level of a factor stands in brackets."""
    power, _, rest = name.partition(" ")
    scales = dict(zip(fit.xs, fit.x_scales, strict=True))
    first = f"log2 {fit.x}" if fit.x_scale == "log2" else fit.x
    terms = {"intercept": "", "slope": first, "linear": first}
    terms |= {"quadratic": f"({first})^2", "cubic": f"({first})^3"}
    if power not in terms:
        return f"[{name}]"
    if rest in scales:
        return f"log2 {rest}" if scales[rest] == "log2" else rest
    return f"[{rest}] {terms[power]}" if rest else terms[power]


def _power_equation(fit: FitResult) -> str:
    """ "rfid = 0.1 + 2950 E^-0.91", with the shape written out where it has more numbers."""
    number = {name: readable(one.estimate) for name, one in fit.coefficients.items()}
    text = f"{fit.metric} = {number['floor']} + "
    if fit.form == "power":
        ends = [f" {x}" for x in fit.xs] if len(fit.xs) > 1 else [""]
        parts = zip(fit.xs, ends, strict=True)
        return text + " + ".join(
            f"{number[f'amplitude{end}']} {x}^-{number[f'exponent{end}']}" for x, end in parts
        )
    if fit.form == "power-shifted":
        return f"{text}{number['amplitude']} ({fit.x} + {number['shift']})^-{number['exponent']}"
    if fit.form == "power-bounded":
        span = readable(fit.coefficients["ceiling"].estimate - fit.coefficients["floor"].estimate)
        return f"{text}{span} / (1 + ({fit.x} / {number['midpoint']})^{number['exponent']})"
    first, after = (
        fit.coefficients["exponent"].estimate,
        fit.coefficients["exponent after"].estimate,
    )
    sharpness = fit.coefficients["sharpness"].estimate
    return (
        f"{text}{number['amplitude']} {fit.x}^-{number['exponent']} "
        f"(1 + ({fit.x} / {number['break']})^{readable(1 / sharpness)})"
        f"^{readable((first - after) * sharpness)}"
    )

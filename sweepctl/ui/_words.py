"""How is a value written on a page? Numbers, times, sizes and templates, the same everywhere.

Templates escape everything they are given; the only markup is their own. A number in a table has
four digits that mean something, and the whole number in its title.
"""

from __future__ import annotations

import datetime as dt
import functools
import json
import math
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from sweepctl.analyse import readable, unit_of
from sweepctl.plain import many, to_json


@functools.cache
def environment() -> Environment:
    """The templates of the pages and of the report; everything is escaped."""
    made = Environment(
        loader=PackageLoader("sweepctl.ui", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "brief": brief,
        "error": error,
        "exact": exact,
        "large": large,
        "size": size,
        "span": span,
        "moment": moment,
        "counted": many,
        "readable": readable,
        "unit": unit_of,
        "scalar": scalar,
    }
    return made


def brief(value: object) -> str:
    """A value in a table: four significant digits, thousands set apart, nothing for None."""
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return scalar(value)
    if isinstance(value, int):
        return f"{value:,}".replace(",", "\u2009") if abs(value) >= 10_000 else str(value)
    if not math.isfinite(value):
        return str(value)
    if value.is_integer() and abs(value) < 1e15:
        return brief(int(value))
    digits = max(0, 3 - math.floor(math.log10(abs(value))))
    return f"{value:.{digits}f}" if digits <= 7 else f"{value:.3e}"


def error(value: float) -> str:
    """A standard error: two digits say all that it knows."""
    return f"{value:.2g}"


def exact(value: object) -> str:
    """A value with all its digits."""
    return "" if value is None else repr(value) if isinstance(value, float) else scalar(value)


def scalar(value: object) -> str:
    """Plain data as text: texts as they are, everything else as JSON."""
    if isinstance(value, str):
        return value
    try:
        return json.dumps(value)
    except (TypeError, ValueError):
        return str(value)


def large(value: float | None) -> str:
    """A count with three digits and k, M, G or T: 454 k, 43.1 M, 33.2 G."""
    number = float(value or 0)
    for unit, scale in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(number) >= scale:
            return f"{number / scale:.3g}\u2009{unit}"
    return f"{number:.3g}"


def size(count: float | None) -> str:
    """A number of bytes for people."""
    value = float(count or 0)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def span(seconds: float | None) -> str:
    """A time span for people: 4.2 s, 3 min 12 s, 5 h 2 min, 3 d 4 h."""
    value = float(seconds or 0)
    if not math.isfinite(value):
        return ""
    if value < 60:
        return f"{value:.1f} s"
    whole = round(value)
    for unit, below, size_s in (("min", "s", 60), ("h", "min", 3600), ("d", "h", 86_400)):
        following = {"min": 3600, "h": 86_400, "d": math.inf}[unit]
        if whole < following:
            rest = (whole % size_s) // {"s": 1, "min": 60, "h": 3600}[below]
            return f"{whole // size_s} {unit} {rest} {below}"
    return ""


def moment(when: dt.datetime | str | None) -> str:
    """A time in UTC, to the minute."""
    if when is None or when == "":
        return ""
    if isinstance(when, str):
        when = dt.datetime.fromisoformat(when)
    if when.tzinfo is not None:
        when = when.astimezone(dt.UTC)
    return f"{when:%Y-%m-%d %H:%M}"


def plain_json(value: Any) -> str:
    """Strict JSON that may stand inside a script element: no <, > or & in it."""
    text = to_json(value)
    for letter in "<>&":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return text


@functools.cache
def static_bytes(name: str) -> bytes:
    """One of the files in static/."""
    return (files("sweepctl.ui") / "static" / name).read_bytes()

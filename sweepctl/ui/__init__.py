"""A live dashboard, a report in one file, and a plot in the terminal.

All three are made from the same reading of the ledger and the run folders, and nothing here writes
to either: a running study is not slowed, and a dashboard can be started and ended at any time. The
dashboard needs the extra `ui` (Starlette, uvicorn); report and plot do not.

    _folders    what lies in a task's folder       _records    the parts of pages
    _reading    what is read, and kept fresh       _words      how values are written; templates
    _plots      which plots a study has            _report     one file for people without a server
    _pages      one function per page              _serve      addresses and sockets
    _server     the routes                         _guard      who may look

Templates and static files lie beside the code; the scripts of others are listed with version,
licence and SHA-256 in static/vendor.toml. No page asks another host for anything.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sweepctl.ui._guard import Guard, new_token
    from sweepctl.ui._plots import terminal_plot
    from sweepctl.ui._reading import Reader
    from sweepctl.ui._report import FORMATS, write_report
    from sweepctl.ui._serve import PORT, address, listen, listen_at, names_of, serve
    from sweepctl.ui._server import application

__all__ = [
    "FORMATS",
    "PORT",
    "Guard",
    "Reader",
    "address",
    "application",
    "listen",
    "listen_at",
    "names_of",
    "new_token",
    "serve",
    "terminal_plot",
    "write_report",
]

_HOMES = {
    "FORMATS": "_report",
    "PORT": "_serve",
    "Guard": "_guard",
    "Reader": "_reading",
    "address": "_serve",
    "application": "_server",
    "listen": "_serve",
    "listen_at": "_serve",
    "names_of": "_serve",
    "new_token": "_guard",
    "serve": "_serve",
    "terminal_plot": "_plots",
    "write_report": "_report",
}
"""Where the names are; loaded when they are asked for, since the report needs no web server."""


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)

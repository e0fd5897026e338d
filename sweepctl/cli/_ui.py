"""`ui`: studies in a browser, live."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from sweepctl.cli._output import give, say
from sweepctl.cli._session import check_alone, open_for_reading, run_folder
from sweepctl.errors import UsageError
from sweepctl.secrets import hidden

HOST = "127.0.0.1"
PORT = 8799  # as sweepctl.ui.PORT, which is not imported for a help text


def ui(
    host: Annotated[
        str | None,
        typer.Option(
            "--host", help=f"Address to listen on, {HOST}; others than loopback get a token."
        ),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option("--port", min=0, max=65535, help=f"Port, {PORT}; 0 takes a free one."),
    ] = None,
    socket: Annotated[
        Path | None,
        typer.Option("--socket", help="A unix socket instead: only you can reach it."),
    ] = None,
    token: Annotated[
        bool, typer.Option("--token", help="Require a token on loopback, too.")
    ] = False,
    name: Annotated[
        list[str] | None,
        typer.Option("--name", help="Another host name of the server; can be repeated."),
    ] = None,
    root: Annotated[
        str, typer.Option("--root", help="Path before every address, behind a proxy.")
    ] = "",
) -> None:
    """Look at studies in a browser, live; nothing can be changed there.

    Listens on this machine only. The address and the ssh command that brings it to
    another machine are printed. SWEEPCTL_UI_TOKEN sets a token of your own.

    Example: sweepctl ui --port 8799
    """
    if socket is not None:
        check_alone("--socket", {"--host": host, "--port": port, "--name": name})
    at_host, at_port = host or HOST, PORT if port is None else port
    missing = [package for package in ("starlette", "uvicorn") if find_spec(package) is None]
    if missing:
        raise UsageError(
            f"the dashboard needs {' and '.join(missing)}, which are not installed",
            hint="pip install 'sweepctl[ui]'; sweepctl report and sweepctl plot need nothing more",
        )
    from sweepctl.ui import address, application, listen, listen_at, names_of, new_token, serve

    base = root.strip("/")
    base = f"/{base}" if base else ""
    kept = os.environ.get("SWEEPCTL_UI_TOKEN")  # its owner knows it: it is not printed
    own = kept or (new_token() if token else None)
    with open_for_reading() as ledger:
        listening = listen_at(socket) if socket else listen(at_host, at_port)
        bound = at_port if socket else listening.getsockname()[1]
        at = address(host=at_host, port=bound, path=socket, token=own, root=base)
        names = () if socket else names_of(at_host, name or ())
        app = application(ledger, run_folder(), hosts=names, token=at.token, root=base, warm=True)
        give(hidden(at.url) if kept else at.url)
        sys.stdout.flush()
        there = hidden(at.there) if kept else at.there
        say(f"from your own machine: {at.tunnel}\n  and there open {there}")
        if not at.token and not socket:
            say("note: other users of this machine can look, too; --socket or --token forbids it")
        say("Ctrl-C ends it; studies go on")
        serve(app, listening)

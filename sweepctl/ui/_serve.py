"""Where are the pages served? Addresses, sockets, and the ssh command that brings them home."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from sweepctl.errors import UsageError
from sweepctl.ui._guard import LOOPBACK, Guard, new_token

PORT = 8799
"""Port of the pages, and of the near end of a tunnel to a unix socket."""

_EVERYWHERE = ("0.0.0.0", "::", "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where the pages are served.

    Attributes:
        token: what a browser must know; empty when it need not.
        url: what is opened in a browser on this machine; the path of a unix socket.
        tunnel: the ssh command that brings the pages to another machine.
        there: what is opened in a browser at the other end of the tunnel.
    """

    token: str
    url: str
    tunnel: str
    there: str


def address(
    *, host: str, port: int, path: Path | None = None, token: str | None = None, root: str = ""
) -> Address:
    """Where the pages will be, with a token where there has to be one.

    Args:
        host: address that is listened on.
        port: TCP port that is listened on.
        path: a unix socket instead of both.
        token: the token; None makes one unless only this machine can reach the pages.
        root: path before every address.
    """
    here = socket.gethostname()
    if token is None:
        token = "" if path is not None or host in LOOPBACK else new_token()
    tail = f"{root}/{f'?token={token}' if token else ''}"
    if path is not None:
        return Address(
            token=token,
            url=str(path.absolute()),
            tunnel=f"ssh -L {PORT}:{path.absolute()} {here}",
            there=f"http://localhost:{PORT}{tail}",
        )
    shown = here if host in _EVERYWHERE else f"[{host}]" if ":" in host else host
    far = "localhost" if host in LOOPBACK or host in _EVERYWHERE else shown
    return Address(
        token=token,
        url=f"http://{shown}:{port}{tail}",
        tunnel=f"ssh -L {port}:{far}:{port} {here}",
        there=f"http://localhost:{port}{tail}",
    )


def names_of(host: str, more: Collection[str] = ()) -> frozenset[str]:
    """The host names under which a server on this address may be asked for."""
    names = {*LOOPBACK, *more}
    if host not in LOOPBACK:
        names |= {host, socket.gethostname(), socket.getfqdn()} - set(_EVERYWHERE)
    return frozenset(name.lower() for name in names)


def listen(host: str, port: int) -> socket.socket:
    """A TCP socket that listens.

    Raises:
        UsageError: the address cannot be had.
    """
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM)[0]
        made = socket.socket(found[0], socket.SOCK_STREAM)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            made.bind(found[4])
            made.listen(128)
        except OSError:
            made.close()
            raise
    except OSError as error:
        raise UsageError(
            f"cannot listen on {host} port {port}: {error.strerror or error}",
            hint="take another one with --port; --port 0 takes any that is free",
        ) from error
    return made


def listen_at(path: Path) -> socket.socket:
    """A unix socket that listens and that only its owner can reach.

    Raises:
        UsageError: something else is there, somebody listens there, or it cannot be made.
    """
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)  # the file has its rights from the beginning: no moment to slip in
    try:
        _clear(path)
        made.bind(str(path))
        made.listen(128)
    except OSError as error:
        made.close()
        raise UsageError(f"cannot listen at {path}: {error.strerror or error}") from error
    except UsageError:
        made.close()
        raise
    finally:
        os.umask(before)
    return made


def _clear(path: Path) -> None:
    """Take away the socket of a server that has ended."""
    if not path.exists():
        return
    if not stat.S_ISSOCK(path.stat().st_mode):
        raise UsageError(f"{path} is a file and no socket", hint="name another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
    raise UsageError(f"another server listens at {path}", hint="name another path")


def serve(app: Guard, listening: socket.socket) -> None:
    """Answer requests until Ctrl-C; a unix socket is taken away at the end."""
    import uvicorn

    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=2,
        lifespan="off",
        ws="none",
    )
    name = listening.getsockname()
    try:
        uvicorn.Server(config).run(sockets=[listening])
    except KeyboardInterrupt:
        pass  # uvicorn has ended in order and raises the signal again
    finally:
        if isinstance(name, str):
            with suppress(OSError):
                Path(name).unlink()

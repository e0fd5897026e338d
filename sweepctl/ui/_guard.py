"""Who may look? Host names, the token, and what a browser is forbidden to do with a page.

The pages are read-only, so what has to be kept is that only the person who started the server reads
them: a web site that points its own name at this machine (DNS rebinding) is stopped by the check of
the host name, other people of the network by the token, and a name in the results that looks like
markup by the policy that runs no script but ours. Loopback of a shared login node is open to all
its users: there a unix socket or a token keeps them out.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Collection
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qsl, urlencode

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})

_EMPTY = "'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='"
"""Hash of an empty style element: Plotly makes one and fills it rule by rule."""

POLICY = (
    f"default-src 'none'; script-src 'self'; style-src 'self' {_EMPTY}; "
    "img-src 'self' data: blob:; connect-src 'self'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'"
)

_COOKIE = "sweepctl_token"


def new_token() -> str:
    """A random token that cannot be guessed: 256 bits, safe in a URL."""
    return secrets.token_urlsafe(32)


@dataclass(frozen=True, slots=True)
class Guard:
    """Lets requests through to an application, or answers them itself.

    Attributes:
        app: what stands behind.
        hosts: host names that a request may name, without port; empty on a unix socket, where
            there is no name to be trusted.
        token: what a request must know; empty when everybody who reaches the server may look.
        root: path before every address, without a slash at its end.
    """

    app: ASGIApp
    hosts: Collection[str]
    token: str
    root: str = ""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, with the headers that every answer carries."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                _protect(MutableHeaders(scope=message))
            await send(message)

        scope = {**scope, "root_path": self.root}
        refusal = self._refusal(scope)
        await (refusal or self.app)(scope, receive, with_headers)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        if self.hosts and host_of(headers.get("host", "")) not in self.hosts:
            return PlainTextResponse("this server does not go by that name\n", status_code=400)
        if scope["method"] not in ("GET", "HEAD"):
            return PlainTextResponse("the pages can only be read\n", status_code=405)
        if not self.token:
            return None
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        given = dict(query).get("token")
        if given is not None and self._is_right(given):
            # Out of the address bar and the history, into a cookie that scripts cannot read.
            rest = urlencode([(name, value) for name, value in query if name != "token"])
            path = scope.get("root_path", "") + _path(scope)
            answer = RedirectResponse(f"{path}?{rest}" if rest else path, status_code=303)
            answer.set_cookie(_COOKIE, self.token, httponly=True, samesite="strict")
            return answer
        bearer = headers.get("authorization", "").removeprefix("Bearer ")
        if self._is_right(bearer) or self._is_right(_cookie(headers.get("cookie", ""))):
            return None
        return PlainTextResponse(
            "this dashboard needs the token that `sweepctl ui` printed: open the address with "
            "?token=... once\n",
            status_code=401,
            headers={"WWW-Authenticate": "Bearer"},
        )

    def _is_right(self, given: str) -> bool:
        return hmac.compare_digest(given.encode("utf-8", "replace"), self.token.encode())


def _path(scope: Scope) -> str:
    path: str = scope["path"].removeprefix(scope.get("root_path", ""))
    # A path that begins with two slashes would be another host to a browser.
    return "/" + path.lstrip("/")


def _cookie(header: str) -> str:
    jar: SimpleCookie = SimpleCookie()
    try:
        jar.load(header)
    except CookieError:
        return ""
    return jar[_COOKIE].value if _COOKIE in jar else ""


def host_of(header: str) -> str:
    """The host name of a Host header, in lower case, without port and brackets."""
    name = header.strip().lower()
    if name.startswith("["):
        return name[1:].partition("]")[0]
    return name.rpartition(":")[0] if name.count(":") == 1 else name


def _protect(headers: Any) -> None:
    headers["Content-Security-Policy"] = POLICY
    headers["X-Content-Type-Options"] = "nosniff"
    headers["Referrer-Policy"] = "no-referrer"
    headers["Cross-Origin-Opener-Policy"] = "same-origin"
    headers["Cross-Origin-Resource-Policy"] = "same-origin"
    headers.setdefault("Cache-Control", "no-store")

"""The routes of the dashboard, and what every answer has in common.

Requests are answered by threads, each with one page function; nothing is written and nothing waits
for the driver. A live part carries an ETag made of the ledger's mark: when nothing was recorded
since, the answer is 304 and costs one small question to the database.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections.abc import Callable, Collection
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route

from sweepctl.errors import SweepctlError, UnreachableError, UsageError
from sweepctl.ledger import Ledger
from sweepctl.plain import finite, to_json
from sweepctl.ui import _folders, _pages
from sweepctl.ui._guard import LOOPBACK, Guard
from sweepctl.ui._pages import Asking
from sweepctl.ui._reading import Reader
from sweepctl.ui._words import static_bytes

STATIC: dict[str, str] = {
    "look.css": "text/css; charset=utf-8",
    "app.js": "text/javascript; charset=utf-8",
    "htmx.min.js": "text/javascript; charset=utf-8",
    "plotly-cartesian.min.js": "text/javascript; charset=utf-8",
    "mark.svg": "image/svg+xml",
}
"""The files that are served as they are, and nothing else."""

_FOREVER = "private, max-age=31536000, immutable"
_CELLS_ASKED = 64


def application(
    ledger: Ledger,
    runs: Path,
    *,
    hosts: Collection[str] = LOOPBACK,
    token: str = "",
    root: str = "",
    warm: bool = False,
) -> Guard:
    """The pages over one ledger and one run folder, as an ASGI application.

    Args:
        ledger: an open ledger; it is only read.
        runs: the run folder.
        hosts: host names that requests may name; empty takes all (on a unix socket).
        token: what a request must know; empty for no token.
        root: path before every address, behind a proxy; the proxy may take it away or not.
        warm: read the newest study before anybody asks.
    """
    reader = Reader(ledger, runs)
    if warm:
        reader.warm()
    routes = [
        *(Route(path, partial(_page, reader, make)) for path, make in _PAGES.items()),
        *(
            Route(f"{path}/live".replace("//", "/"), partial(_live, reader, make, mark))
            for path, (make, mark) in _LIVE.items()
        ),
        *(
            Route(f"{path}.json", partial(_figure, reader, make, mark))
            for path, (make, mark) in _FIGURES.items()
        ),
        Route(f"{_TASK}/picture/{{kind}}/{{index}}", partial(_picture, reader)),
        Route(f"{_TASK}/sheet/{{index}}", partial(_sheet, reader)),
        Route("/static/{name}", _static),
    ]
    app = Starlette(routes=routes, exception_handlers={404: _missing})
    return Guard(app=app, hosts=frozenset(hosts), token=token, root=root.rstrip("/"))


# --- the routes --------------------------------------------------------------------------------

_STUDY, _POINT, _TASK = "/study/{study}", "/study/{study}/point/{cell}", "/task/{task}"

Html = Callable[[Reader, Request], str]
Drawing = Callable[[Reader, Request], Any]
Mark = Callable[[Reader, Request], str]


def _all_mark(reader: Reader, _: Request) -> str:
    return reader.mark()


def _study_mark(reader: Reader, request: Request) -> str:
    return reader.mark(_study(request))


def _task_mark(reader: Reader, request: Request) -> str:
    return reader.task_mark(_task(request))


def _point_mark(reader: Reader, request: Request) -> str:
    return reader.point_mark(_study(request), _cell(request))


_PAGES: dict[str, Html] = {
    "/": lambda r, q: _pages.studies(r, _root(q)),
    "/cluster": lambda r, q: _pages.cluster(r, _root(q)),
    _STUDY: lambda r, q: _pages.study(r, _root(q), _study(q), _asking(q)),
    f"{_STUDY}/fits": lambda r, q: _pages.fits(r, _root(q), _study(q)),
    f"{_STUDY}/compare": lambda r, q: _pages.compare(r, _root(q), _study(q), _cells(q)),
    _POINT: lambda r, q: _pages.point(r, _root(q), _study(q), _cell(q), _other(q)),
    _TASK: lambda r, q: _pages.task(r, _root(q), _task(q)),
}
"""Whole pages."""

_LIVE: dict[str, tuple[Html, Mark]] = {
    "/": (lambda r, q: _pages.studies_live(r, _root(q)), _all_mark),
    "/cluster": (lambda r, q: _pages.cluster_live(r, _root(q)), _all_mark),
    _STUDY: (
        lambda r, q: _pages.study_live(r, _root(q), _study(q), _asking(q)),
        _study_mark,
    ),
    f"{_STUDY}/fits": (lambda r, q: _pages.fits_live(r, _root(q), _study(q)), _study_mark),
    _POINT: (
        lambda r, q: _pages.point_live(r, _root(q), _study(q), _cell(q), _other(q)),
        _point_mark,
    ),
    _TASK: (lambda r, q: _pages.task_live(r, _root(q), _task(q)), _task_mark),
}
"""The part of a page that is requested every two seconds, and what changes when it does."""

_FIGURES: dict[str, tuple[Drawing, Mark]] = {
    f"{_STUDY}/figure": (
        lambda r, q: _pages.figure(r, _study(q), _given(q, "show")),
        _study_mark,
    ),
    f"{_STUDY}/fits/figure": (
        lambda r, q: _pages.fit_figure(r, _study(q), _given(q, "fit"), _given(q, "kind")),
        _study_mark,
    ),
    f"{_STUDY}/pareto": (
        lambda r, q: _pages.pareto(r, _study(q), _given(q, "metric"), _given(q, "cost")),
        _study_mark,
    ),
    f"{_STUDY}/compare/curve": (
        lambda r, q: _pages.compare_curve(r, _study(q), _cells(q), _given(q, "name", "loss")),
        _study_mark,
    ),
    f"{_TASK}/curve": (
        lambda r, q: _pages.task_curve(r, _task(q), _given(q, "name", "loss")),
        _task_mark,
    ),
}
"""Figures as JSON."""


def _page(reader: Reader, make: Html, request: Request) -> Response:
    return _answered(request, lambda: HTMLResponse(make(reader, request)))


def _live(reader: Reader, make: Html, mark: Mark, request: Request) -> Response:
    return _if_changed(request, reader, mark, lambda: HTMLResponse(make(reader, request)))


def _figure(reader: Reader, make: Drawing, mark: Mark, request: Request) -> Response:
    def respond() -> Response:
        text = to_json(finite(make(reader, request)))
        return Response(text, media_type="application/json")

    return _if_changed(request, reader, mark, respond)


def _if_changed(
    request: Request, reader: Reader, mark: Mark, respond: Callable[[], Response]
) -> Response:
    """An answer with an ETag, or 304 when the browser has it already."""

    def tagged() -> Response:
        # The tag is made first: what changes while the answer is made is found by the next poll.
        headers = {"ETag": _tag(mark(reader, request), str(request.url))}
        if request.headers.get("if-none-match") == headers["ETag"]:
            return Response(status_code=304, headers=headers)
        answer = respond()
        answer.headers.update(headers)
        return answer

    return _answered(request, tagged)


def _missing(request: Request, _: Exception) -> Response:
    return HTMLResponse(_pages.problem(_root(request), 404, "there is no such page"), 404)


def _answered(request: Request, respond: Callable[[], Response]) -> Response:
    """An answer, or a page that says why there is none; never a traceback."""
    try:
        return respond()
    except UsageError as error:
        status, message = 404, error.message
    except (UnreachableError, SweepctlError) as error:
        status, message = 503, str(error)
    if request.url.path.endswith(".json"):
        text = json.dumps({"error": message})
        return Response(text, status, media_type="application/json")
    return HTMLResponse(_pages.problem(_root(request), status, message), status)


def _root(request: Request) -> str:
    root: str = request.scope.get("root_path", "")
    return root.rstrip("/")


def _tag(mark: str, url: str) -> str:
    return f'"{hashlib.sha256(f"{mark} {url} {_edition()}".encode()).hexdigest()[:20]}"'


@functools.cache
def _edition() -> str:
    """Changes with the program: pages of an older one are not taken for new."""
    from sweepctl import __version__

    return __version__


def _study(request: Request) -> str:
    return str(request.path_params["study"])


def _task(request: Request) -> str:
    return str(request.path_params["task"])


def _cell(request: Request) -> int:
    text = request.path_params["cell"]
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise UsageError(f"{text!r} is not a number")
    return int(text)


def _given(request: Request, name: str, default: str = "") -> str:
    return request.query_params.get(name, default)


def _other(request: Request) -> int | None:
    text = request.query_params.get("with", "")
    return int(text) if re.fullmatch(r"[0-9]{1,9}", text) else None


def _cells(request: Request) -> list[int]:
    texts = [part for text in request.query_params.getlist("cell") for part in text.split(",")]
    return [int(text) for text in texts[:_CELLS_ASKED] if re.fullmatch(r"[0-9]{1,9}", text)]


def _asking(request: Request) -> Asking:
    given = request.query_params
    page = given.get("page", "1")
    return Asking(
        where=given.get("where", "")[:2000],
        sort=given.get("sort", "")[:200],
        show=given.get("show", "")[:200],
        page=int(page) if re.fullmatch(r"[0-9]{1,6}", page) else 1,
        chosen={
            name.removeprefix("axis."): value
            for name, value in given.items()
            if name.startswith("axis.") and value
        },
    )


def _picture(reader: Reader, request: Request) -> Response:
    """One picture of a task, by its kind and number."""
    task, kind = request.path_params["task"], request.path_params["kind"]
    folder = _folders.task_folder(reader.runs, task)
    text = request.path_params["index"]
    data = None
    if folder is not None and re.fullmatch(r"[0-9]{1,4}", text):
        data = _folders.picture(folder, kind, int(text))
    if data is None:
        return PlainTextResponse("there is no such picture\n", 404)
    return Response(data, media_type=_folders.media_type(data), headers={"Cache-Control": _FOREVER})


def _sheet(reader: Reader, request: Request) -> Response:
    """One sheet of samples of a training, by its number."""
    folder = _folders.task_folder(reader.runs, request.path_params["task"])
    text = request.path_params["index"]
    if folder is not None and re.fullmatch(r"[0-9]{1,4}", text):
        sheets = _folders.sheets(folder)
        if int(text) < len(sheets):
            with suppress(OSError):
                data = sheets[int(text)].read_bytes()
                return Response(data, media_type="image/png")
    return PlainTextResponse("there is no such sheet\n", 404)


def _static(request: Request) -> Response:
    name = request.path_params["name"]
    if name not in STATIC:
        return PlainTextResponse("there is no such file\n", 404)
    return Response(
        static_bytes(name),
        media_type=STATIC[name],
        headers={"Cache-Control": "private, max-age=60"},
    )

"""What does a browser get for an address? The routes, and what every answer has in common.

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
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route

from sweepctl.errors import SweepctlError, UnreachableError, UsageError
from sweepctl.ledger import Ledger
from sweepctl.plain import to_json
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

    def page(make: Callable[..., str]) -> Callable[[Request], Response]:
        """A whole page."""

        @functools.wraps(make)
        def answer(request: Request) -> Response:
            return _answered(request, lambda: HTMLResponse(make(reader, _root(request), request)))

        return answer

    def live(
        make: Callable[..., str], mark: Callable[[Reader, Request], str]
    ) -> Callable[[Request], Response]:
        """The part of a page that is asked for again and again."""

        def answer(request: Request) -> Response:
            def respond() -> Response:
                tag = _tag(mark(reader, request), str(request.url))
                if request.headers.get("if-none-match") == tag:
                    return Response(status_code=304, headers={"ETag": tag})
                html = make(reader, _root(request), request)
                # Made anew: what was made beside the request may have come in meanwhile.
                return HTMLResponse(html, headers={"ETag": tag})

            return _answered(request, respond)

        return answer

    def drawn(
        make: Callable[..., Any], mark: Callable[[Reader, Request], str]
    ) -> Callable[[Request], Response]:
        """A figure as JSON."""

        def answer(request: Request) -> Response:
            def respond() -> Response:
                tag = _tag(mark(reader, request), str(request.url))
                if request.headers.get("if-none-match") == tag:
                    return Response(status_code=304, headers={"ETag": tag})
                text = to_json(make(reader, request))
                return Response(text, media_type="application/json", headers={"ETag": tag})

            return _answered(request, respond)

        return answer

    def of_study(reader: Reader, request: Request) -> str:
        return reader.mark(_study(request))

    def of_all(reader: Reader, request: Request) -> str:
        return reader.mark()

    def of_task(reader: Reader, request: Request) -> str:
        return reader.task_mark(request.path_params["task"])

    def of_point(reader: Reader, request: Request) -> str:
        return reader.point_mark(_study(request), _whole(request, "cell"))

    study, point = "/study/{study}", "/study/{study}/point/{cell}"
    routes = [
        Route("/", page(lambda r, root, _: _pages.studies(r, root))),
        Route("/live", live(lambda r, root, _: _pages.studies_live(r, root), of_all)),
        Route("/cluster", page(lambda r, root, _: _pages.cluster(r, root))),
        Route("/cluster/live", live(lambda r, root, _: _pages.cluster_live(r, root), of_all)),
        Route(
            study,
            page(lambda r, root, q: _pages.study(r, root, _study(q), _asking(q))),
        ),
        Route(
            f"{study}/live",
            live(lambda r, root, q: _pages.study_live(r, root, _study(q), _asking(q)), of_study),
        ),
        Route(
            f"{study}/figure.json",
            drawn(
                lambda r, q: _pages.figure(r, _study(q), q.query_params.get("show", "")), of_study
            ),
        ),
        Route(f"{study}/fits", page(lambda r, root, q: _pages.fits(r, root, _study(q)))),
        Route(
            f"{study}/fits/live",
            live(lambda r, root, q: _pages.fits_live(r, root, _study(q)), of_study),
        ),
        Route(
            f"{study}/fits/figure.json",
            drawn(
                lambda r, q: _pages.fit_figure(
                    r, _study(q), q.query_params.get("fit", ""), q.query_params.get("kind", "")
                ),
                of_study,
            ),
        ),
        Route(
            f"{study}/pareto.json",
            drawn(
                lambda r, q: _pages.pareto(
                    r, _study(q), q.query_params.get("metric", ""), q.query_params.get("cost", "")
                ),
                of_study,
            ),
        ),
        Route(
            f"{study}/compare",
            page(lambda r, root, q: _pages.compare(r, root, _study(q), _cells(q))),
        ),
        Route(
            f"{study}/compare/curve.json",
            drawn(
                lambda r, q: _pages.compare_curve(
                    r, _study(q), _cells(q), q.query_params.get("name", "loss")
                ),
                of_study,
            ),
        ),
        Route(
            point,
            page(lambda r, root, q: _pages.point(r, root, _study(q), _whole(q, "cell"), _other(q))),
        ),
        Route(
            f"{point}/live",
            live(
                lambda r, root, q: _pages.point_live(
                    r, root, _study(q), _whole(q, "cell"), _other(q)
                ),
                of_point,
            ),
        ),
        Route(
            "/task/{task}",
            page(lambda r, root, q: _pages.task(r, root, q.path_params["task"])),
        ),
        Route(
            "/task/{task}/live",
            live(lambda r, root, q: _pages.task_live(r, root, q.path_params["task"]), of_task),
        ),
        Route(
            "/task/{task}/curve.json",
            drawn(
                lambda r, q: _pages.task_curve(
                    r, q.path_params["task"], q.query_params.get("name", "loss")
                ),
                of_task,
            ),
        ),
        Route("/task/{task}/picture/{kind}/{index}", lambda q: _picture(reader, q)),
        Route("/task/{task}/sheet/{index}", lambda q: _sheet(reader, q)),
        Route("/static/{name}", _static),
    ]
    app = Starlette(routes=routes, exception_handlers={404: _missing})
    return Guard(app=app, hosts=frozenset(hosts), token=token, root=root.rstrip("/"))


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


def _whole(request: Request, name: str) -> int:
    text = request.path_params[name]
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise UsageError(f"{text!r} is no number")
    return int(text)


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

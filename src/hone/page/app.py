"""The routes of the page: its own files, which say nothing; and runs as JSON and work, both for who has the token.

>>> app = application(Watched(Path("runs")), token="…")                                         # doctest: +SKIP
"""

import asyncio
import hmac
import http.client
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from importlib import resources
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from hone.config.explain import explain
from hone.errors import HoneError, said
from hone.page import work
from hone.page.views import compare_view, run_view
from hone.page.watch import Watched, log_tail, metrics_from
from hone.runs import Run
from hone.serve.guard import json_bytes
from hone.serve.refusal import JsonObject

FILES = {  # what the page is made of, by path
    "": ("index.html", "text/html"),
    "page.css": ("page.css", "text/css"),
    "report.css": ("report.css", "text/css"),
    "icon.svg": ("icon.svg", "image/svg+xml"),
    **{
        f"{name}.js": (f"{name}.js", "text/javascript")
        for name in ("main", "ask", "runs", "run", "compare", "play", "chart", "data")
    },
    "vendor/uPlot.iife.min.js": ("vendor/uPlot.iife.min.js", "text/javascript"),
    "vendor/uPlot.min.css": ("vendor/uPlot.min.css", "text/css"),
}
HEADERS = {
    "content-security-policy": "default-src 'self'; style-src 'self' 'unsafe-inline'; frame-ancestors 'none'; "
    "base-uri 'none'; form-action 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}
MOST_BYTES = 256 << 10  # of a request
PLAYED = ("chat/completions", "completions", "models")  # of OpenAI's API
PIECE = 1 << 16
SHOWN_ROWS = 20
READ_S = 600.0
TOKEN = "x-hone-token"
Endpoint = Callable[[Request], Awaitable[Response]]


def application(watched: Watched, token: str) -> Starlette:
    """All of it. Answers about runs are made in a thread, so that a slow disk holds up nobody."""
    playground = work.Playground()

    def run(request: Request) -> Run:
        return watched.run(request.query_params.get("run", ""))

    def word(request: Request) -> JsonObject:
        return {"text": explain(request.query_params.get("name", ""))}

    told: dict[str, Callable[[Request], Any]] = {
        "runs": lambda request: {"folder": str(watched.folder), "runs": watched.rows()},
        "run": lambda request: run_view(run(request)),
        "log": lambda request: {"lines": log_tail(run(request).folder / "train.log")},
        "metrics": lambda request: _metrics(run(request), request),
        "compare": lambda request: _compared(watched, request),
        "data": lambda request: work.prepared(run(request), SHOWN_ROWS),
        "word": word,
    }
    done: dict[str, Callable[[Request], Any]] = {
        "stop": lambda request: work.stop(run(request)),
        "resume": lambda request: work.resume(run(request)),
    }

    @asynccontextmanager
    async def running(app: Starlette) -> AsyncIterator[None]:
        looking = asyncio.create_task(_let_go(playground))
        try:
            yield
        finally:
            looking.cancel()
            playground.end()

    routes = [
        *(Route(f"/{path}", _file(file, kind)) for path, (file, kind) in FILES.items()),
        *(Route(f"/api/{path}", _endpoint(make, token, 404)) for path, make in told.items()),
        *(Route(f"/api/{path}", _endpoint(act, token, 409), methods=["POST"]) for path, act in done.items()),
        Route("/api/play/{rest:path}", _play(run, playground, token), methods=["GET", "POST"]),
    ]
    return Starlette(routes=routes, lifespan=running)


def _endpoint(make: Callable[[Request], Any], token: str, refused: int) -> Endpoint:
    """What `make` gives, as JSON; a mistake in its own words."""

    async def endpoint(request: Request) -> Response:
        if (refusal := _refused(request, token)) is not None:
            return refusal
        try:
            found = await asyncio.to_thread(make, request)
            return _json({"done": True} if found is None else found)
        except HoneError as error:
            return _json({"error": said(str(error))}, refused)

    return endpoint


def _play(run: Callable[[Request], Run], playground: work.Playground, token: str) -> Endpoint:
    """Hand a request to the models of a run, which answer in a process of their own."""
    lock = asyncio.Lock()  # two pages must not start two of them

    async def endpoint(request: Request) -> Response:
        if (refusal := _refused(request, token)) is not None:
            return refusal
        path = request.path_params["rest"]
        if path not in PLAYED:
            return _json({"error": "no such path"}, 404)
        try:
            folder = (await asyncio.to_thread(run, request)).folder
            async with lock:
                address = await asyncio.to_thread(playground.address, folder)
        except HoneError as error:
            return _json({"error": said(str(error))}, 409)
        return await _passed_on(request, address, f"/v1/{path}")

    return endpoint


async def _let_go(playground: work.Playground) -> None:
    while True:
        await asyncio.sleep(30)
        playground.end_if_idle()


def _metrics(run: Run, request: Request) -> JsonObject:
    given = request.query_params.get("from", "0")
    offset = int(given) if given.isascii() and given.isdigit() else 0
    return metrics_from(run.folder / "metrics.jsonl", offset)


def _compared(watched: Watched, request: Request) -> JsonObject:
    a, b = (watched.run(request.query_params.get(side, "")) for side in ("a", "b"))
    return compare_view(a, b)


def _refused(request: Request, token: str) -> Response | None:
    """Why nothing is told or done; the guard has looked at Host, Origin and Sec-Fetch-Site before."""
    given = request.headers.get(TOKEN, "")
    if not hmac.compare_digest(given.encode("utf-8", "replace"), token.encode()):
        return _json({"error": "open the address that hone ui has printed: it carries a token"}, 401)
    if request.method == "POST" and request.headers.get("content-type", "").partition(";")[0] != "application/json":
        return _json({"error": "the body must be JSON"}, 415)
    return None


async def _passed_on(request: Request, address: str, path: str) -> Response:
    """The answer of another server, piece by piece as it comes; a reader that goes away ends it there as well."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > MOST_BYTES:
            return _json({"error": "the request is too large"}, 413)
    connection = http.client.HTTPConnection(address.removeprefix("http://"), timeout=READ_S)

    def ask() -> http.client.HTTPResponse:
        connection.request(request.method, path, body, {"content-type": "application/json"})
        return connection.getresponse()

    try:
        answer = await asyncio.to_thread(ask)
    except OSError as error:
        connection.close()
        return _json({"error": f"the models do not answer: {error}"}, 502)

    async def pieces() -> AsyncIterator[bytes]:
        try:
            while piece := await asyncio.to_thread(answer.read1, PIECE):
                yield piece
        finally:
            connection.close()

    return StreamingResponse(pieces(), answer.status, media_type=answer.getheader("content-type"))


def _file(name: str, kind: str) -> Endpoint:
    if name == "report.css":
        text = resources.files("hone.report").joinpath("page.css").read_bytes()
    else:
        text = resources.files("hone").joinpath("assets", "page", name).read_bytes()

    async def endpoint(request: Request) -> Response:
        return Response(text, media_type=f"{kind}; charset=utf-8")

    return endpoint


def _json(value: Any, status: int = 200) -> Response:
    return Response(json_bytes(value), status, media_type="application/json")

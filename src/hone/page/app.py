"""The routes of the page: its own files, which say nothing; and runs as JSON and work, both for who has the token.

>>> app = application(Watched(Path("runs")), token="…")                                         # doctest: +SKIP
"""

import asyncio
import hmac
import http.client
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from importlib import resources
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from hone.config.explain import explain
from hone.errors import HoneError, said
from hone.page import items, learn, new, work
from hone.page.views import LETTERS, compare_view, run_view
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
        for name in (
            "main",
            "ask",
            "runs",
            "run",
            "compare",
            "play",
            "chart",
            "data",
            "learn",
            "new",
            "editor",
            "differences",
        )
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
Given = Mapping[str, str]  # behind ? in the address
View = Callable[[Given], JsonObject]
Action = Callable[[Given, Mapping[str, str]], JsonObject | None]


def application(watched: Watched, token: str) -> Starlette:
    """All of it. Answers about runs are made in a thread, so that a slow disk holds up nobody."""
    playground, trainings = work.Playground(), work.Trainings(watched.folder)

    @asynccontextmanager
    async def running(app: Starlette) -> AsyncIterator[None]:
        looking = asyncio.create_task(_look_after(playground, trainings))
        try:
            yield
        finally:
            looking.cancel()
            playground.end()
            trainings.end()

    routes = [
        *(Route(f"/{path}", _file(file, kind)) for path, (file, kind) in FILES.items()),
        *(Route(f"/api/{path}", _told(make, token)) for path, make in _views(watched, trainings).items()),
        *(
            Route(f"/api/{path}", _done(act, token), methods=["POST"])
            for path, act in _actions(watched, trainings).items()
        ),
        Route("/api/play/{rest:path}", _play(watched, playground, token), methods=["GET", "POST"]),
    ]
    return Starlette(routes=routes, lifespan=running)


def _views(watched: Watched, trainings: work.Trainings) -> dict[str, View]:
    """What is told, by path."""
    folder = watched.folder

    def run(given: Given) -> Run:
        return watched.run(given.get("run", ""))

    def runs(given: Given) -> JsonObject:
        trainings.look()
        return {"folder": str(folder), "runs": watched.rows(), "groups": watched.groups()}

    return {
        "runs": runs,
        "run": lambda given: run_view(run(given)),
        "log": lambda given: {"lines": log_tail(run(given).folder / "train.log")},
        "metrics": lambda given: _metrics(run(given), given),
        "compare": lambda given: compare_view([watched.run(given[one]) for one in LETTERS.lower() if one in given]),
        "data": lambda given: work.prepared(run(given), SHOWN_ROWS),
        "word": lambda given: {"text": explain(given.get("name", ""))},
        "words": lambda given: learn.words(),
        "recipes": lambda given: {"recipes": new.recipes(), "files": new.data_files(folder), "folder": str(folder)},
        "name": lambda given: {"name": new.free_name(folder, given.get("wanted", "run"))},
        "started": lambda given: trainings.state(given.get("run", "")),
    }


def _actions(watched: Watched, trainings: work.Trainings) -> dict[str, Action]:
    """What is done, by path: of what stands in the address, and of the texts in the body."""
    folder = watched.folder
    return {
        "stop": lambda given, body: work.stop(watched.run(given.get("run", ""))),
        "resume": lambda given, body: work.resume(given.get("run", ""), watched.run(given.get("run", "")), trainings),
        "draft": lambda given, body: new.draft(
            folder, *(body.get(one, "") for one in ("recipe", "name", "train", "held_out"))
        ),
        "check": lambda given, body: new.checked(folder, body.get("name", ""), body.get("text", "")),
        "plan": lambda given, body: new.planned(folder, body.get("name", ""), body.get("text", "")),
        "train": lambda given, body: new.begin(folder, trainings, body.get("name", ""), body.get("text", "")),
        "item": lambda given, body: items.save(folder, body.get("prompt", ""), body.get("wanted", "")),
    }


def _told(make: View, token: str) -> Endpoint:
    """What `make` gives, as JSON; a mistake in its own words."""

    async def endpoint(request: Request) -> Response:
        if (refusal := _refused(request, token)) is not None:
            return refusal
        try:
            return _json(await asyncio.to_thread(make, dict(request.query_params)))
        except HoneError as error:
            return _json({"error": said(str(error))}, 404)

    return endpoint


def _done(act: Action, token: str) -> Endpoint:
    async def endpoint(request: Request) -> Response:
        if (refusal := _refused(request, token)) is not None:
            return refusal
        try:
            body = json.loads(await _body(request))
            if not isinstance(body, dict) or not all(isinstance(one, str) for one in body.values()):
                raise ValueError
        except (ValueError, RecursionError):
            return _json({"error": "the body must be a JSON object of texts"}, 400)
        except TooLarge:
            return _json({"error": "the request is too large"}, 413)
        try:
            found = await asyncio.to_thread(act, dict(request.query_params), body)
            return _json({"done": True} if found is None else found)
        except HoneError as error:
            return _json({"error": said(str(error))}, 409)

    return endpoint


class TooLarge(Exception):
    """More bytes came than a request may have."""


async def _body(request: Request) -> bytes:
    """All of it; that its length was not said before changes nothing."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > MOST_BYTES:
            raise TooLarge
    return body


def _play(watched: Watched, playground: work.Playground, token: str) -> Endpoint:
    """Hand a request to the models of a run, which answer in a process of their own."""
    lock = asyncio.Lock()  # two pages must not start two of them

    async def endpoint(request: Request) -> Response:
        if (refusal := _refused(request, token)) is not None:
            return refusal
        path = request.path_params["rest"]
        if path not in PLAYED:
            return _json({"error": "no such path"}, 404)
        try:
            folder = (await asyncio.to_thread(watched.run, request.query_params.get("run", ""))).folder
            async with lock:
                address = await asyncio.to_thread(playground.address, folder)
        except HoneError as error:
            return _json({"error": said(str(error))}, 409)
        return await _passed_on(request, address, f"/v1/{path}")

    return endpoint


async def _look_after(playground: work.Playground, trainings: work.Trainings) -> None:
    while True:
        await asyncio.sleep(30)
        playground.end_if_idle()
        trainings.look()


def _metrics(run: Run, given: Given) -> JsonObject:
    offset = given.get("from", "0")
    return metrics_from(run.folder / "metrics.jsonl", int(offset) if offset.isascii() and offset.isdigit() else 0)


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
    try:
        body = await _body(request)
    except TooLarge:
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

"""The routes: OpenAI's models, chat completions and completions, and the server's own health, figures and schema.

>>> app = application(Server(models, limits, default_seed=None))                                # doctest: +SKIP
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from hone.serve.answering import CLIENT_GONE, Answering, Case, Gone, Stream, whole_answer
from hone.serve.fields import Asked, read_chat, read_completion, read_json
from hone.serve.figures import Figures
from hone.serve.guard import json_bytes, too_large
from hone.serve.models import Served
from hone.serve.prompts import Prepared, engine_requests
from hone.serve.refusal import CODES, JsonObject, Refusal
from hone.serve.schema import openapi
from hone.serve.worker import Job, Worker


@dataclass(frozen=True)
class Limits:
    """What one client may ask of the server.

    seconds: for a request, its wait and its reading included. rows: of each model that grow side by side. cache_bytes:
    of keys and values of all models together.
    """

    body_bytes: int = 2 << 20
    open_requests: int = 256
    seconds: float = 600.0
    body_seconds: float = 30.0
    rows: int = 64
    cache_bytes: int = 1 << 30


class Server:
    """What the routes share: the models by name, the thread that decodes, one that reads prompts, and figures."""

    def __init__(self, models: Sequence[Served], limits: Limits, default_seed: int | None = None) -> None:
        self.models, self.limits, self.default_seed = list(models), limits, default_seed
        self.by_name = {name: one for one in models for name in (one.name, *one.aliases)}
        self.figures = Figures()
        self.worker = Worker(
            models, cache_bytes=limits.cache_bytes // len(models), max_rows=limits.rows, most_jobs=limits.open_requests
        )
        # A tokenizer is not to be used by two threads at once, and a long prompt must not hold up the loop.
        self.reader = ThreadPoolExecutor(1, thread_name_prefix="hone-prompts")
        self.closing = False

    def model(self, name: str) -> Served:
        if (found := self.by_name.get(name)) is None:
            names = ", ".join(self.by_name)
            raise Refusal(404, f"no model '{name[:80]}'; there are {names}", param="model", code="model_not_found")
        return found


def application(server: Server) -> Starlette:
    """The routes over a server whose worker runs as long as the application does."""

    @asynccontextmanager
    async def running(app: Starlette) -> AsyncIterator[None]:
        server.worker.start()
        try:
            yield
        finally:
            server.worker.stop()
            server.reader.shutdown(wait=False, cancel_futures=True)

    def answering(chat: bool) -> Callable[[Request], Any]:
        async def endpoint(request: Request) -> Response:
            return await _answer(server, request, chat=chat)

        return endpoint

    def page(make: Callable[[], Any]) -> Callable[[Request], Any]:
        async def endpoint(request: Request) -> Response:
            return Json(make())

        return endpoint

    async def one_model(request: Request) -> Response:
        try:
            return Json(about(server.model(request.path_params["name"])))
        except Refusal as refusal:
            return refused(refusal)

    async def health(request: Request) -> Response:
        return Json({"status": "closing"}, 503) if server.closing else Json({"status": "ok"})

    async def figures(request: Request) -> Response:
        text = server.figures.text(server.worker.load, server.worker.n_jobs)
        return Response(text, media_type="text/plain; version=0.0.4")

    routes = [
        Route("/v1/chat/completions", answering(chat=True), methods=["POST"]),
        Route("/v1/completions", answering(chat=False), methods=["POST"]),
        Route("/v1/models", page(lambda: {"object": "list", "data": [about(one) for one in server.models]})),
        Route("/v1/models/{name:path}", one_model),
        Route("/health", health),
        Route("/metrics", figures),
        Route("/openapi.json", page(lambda: openapi(list(server.by_name)))),
    ]
    handlers: Mapping[Any, Any] = {HTTPException: _http_error}
    return Starlette(routes=routes, lifespan=running, exception_handlers=handlers)


class Json(Response):
    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return json_bytes(content)


def refused(refusal: Refusal) -> Response:
    return Json(refusal.body(), refusal.status, refusal.headers)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    what = {404: f"there is nothing at {request.url.path[:200]}", 405: f"{request.method} is not answered here"}
    message = what.get(error.status_code, str(error.detail))
    return refused(Refusal(error.status_code, message, code=CODES.get(error.status_code), headers=error.headers))


def about(served: Served) -> JsonObject:
    """A model as /v1/models has it: OpenAI's four fields, and what proves which one it is."""
    return {
        "id": served.name,
        "object": "model",
        "created": served.created,
        "owned_by": "hone",
        "aliases": list(served.aliases),
        "fingerprint": served.fingerprint,
        "folder": served.folder,
        "weights_sha256": dict(served.weights),
        "adapter_sha256": dict(served.adapter),
        "template": served.template,
        "template_sha256": served.template_sha256,
        "context_length": served.window,
    }


async def _answer(server: Server, request: Request, *, chat: bool) -> Response:
    """Read, check, queue, and answer whole or in a stream; whatever is wrong before the first byte is plain JSON."""
    began, endpoint = time.perf_counter(), "chat" if chat else "completions"
    name = ""

    def count(status: int) -> None:
        server.figures.request(endpoint, name, status, time.perf_counter() - began)

    try:
        if server.closing:
            raise Refusal(503, "the server is shutting down", headers={"retry-after": "5", "connection": "close"})
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":  # what a form on another's page can send is not
            raise Refusal(415, "the body must be JSON, with content-type: application/json")
        fields = read_json(await _body(server, request))
        asked = read_chat(fields) if chat else read_completion(fields)
        served = server.model(asked.body.model)
        name = served.name
        loop = asyncio.get_running_loop()
        prepared = await loop.run_in_executor(server.reader, engine_requests, served, asked, server.default_seed)
        case = Case(asked, served, prepared, Job(name, prepared.requests, loop), began, server.limits.seconds)
        server.worker.submit(case.job)
    except Refusal as refusal:
        count(refusal.status)
        return refused(refusal)
    except ClientDisconnect:
        count(CLIENT_GONE)
        return Response(status_code=CLIENT_GONE)
    answering = Answering(case, server.worker, server.figures)
    headers = _headers(asked, prepared)
    try:
        if asked.body.stream:
            stream = Stream(answering, headers, count)
            await stream.begin(request.receive)
            return stream
        response = Json(await whole_answer(answering, request.receive), headers=headers)
        count(200)
        return response
    except Refusal as refusal:
        count(refusal.status)
        return refused(refusal)
    except Gone:
        count(CLIENT_GONE)
        return Response(status_code=CLIENT_GONE)


def _headers(asked: Asked, prepared: Prepared) -> dict[str, str]:
    """What OpenAI's form has no field for: what was ignored, and the seed with which the answer comes again."""
    ignored = {"x-hone-ignored": ", ".join(asked.ignored)} if asked.ignored else {}
    return {**ignored, "x-hone-seed": str(prepared.seed)}


async def _body(server: Server, request: Request) -> bytes:
    """The body, if it comes in time and is not larger than it may be, whatever its header says."""
    parts, size = [], 0
    try:
        async with asyncio.timeout(server.limits.body_seconds):
            async for part in request.stream():
                size += len(part)
                if size > server.limits.body_bytes:
                    raise too_large(server.limits.body_bytes)
                parts.append(part)
    except TimeoutError:
        message = f"the body did not arrive within {server.limits.body_seconds:g} s"
        raise Refusal(408, message, headers={"connection": "close"}) from None
    return b"".join(parts)

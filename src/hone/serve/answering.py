"""One request from its first token to its last: whole, or as a stream of server-sent events; its client may be slow,
may hang up, and may have to be told that it took too long."""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from starlette.responses import Response

from hone.models.inspect import reads_source
from hone.serve.answers import Frame, Written, usage
from hone.serve.fields import Asked
from hone.serve.figures import Figures
from hone.serve.guard import Receive, Scope, Send, json_bytes
from hone.serve.logprobs import Speech, Spoken, chat_form, completion_form
from hone.serve.models import Served
from hone.serve.prompts import Prepared
from hone.serve.refusal import JsonObject, Refusal
from hone.serve.worker import Job, Piece, Worker

PING_S = 10.0  # a stream that has had nothing to say for so long says that it is still there
CLIENT_GONE = 499  # as nginx counts those who hang up before their answer


class Gone(Exception):
    """The client has hung up: there is nobody to answer."""


@dataclass(frozen=True)
class Case:
    """A request that was let in: what it asks, of whom, its job, and when it came."""

    asked: Asked
    served: Served
    prepared: Prepared
    job: Job
    began: float
    seconds: float

    @property
    def chat(self) -> bool:
        return self.asked.chat


class Answering:
    """The answers of one job as they grow."""

    def __init__(self, case: Case, worker: Worker, figures: Figures) -> None:
        self.case, self._worker, self._figures = case, worker, figures
        prefix = "chatcmpl-" if case.chat else "cmpl-"
        self.frame = Frame(f"{prefix}{secrets.token_hex(12)}", int(time.time()), case.served.name, case.chat)
        self.fingerprint = ""
        self.written = [Written() for _ in case.prepared.requests]
        self._speeches = _speeches(case)
        self._first = True
        self._over = False

    @property
    def seconds_left(self) -> float:
        return self.case.began + self.case.seconds - time.perf_counter()

    async def batches(self) -> AsyncIterator[list[Piece]]:
        """What has come since the last time, so that a slow reader gets more at once; [] after PING_S of nothing.

        Raises:
            Refusal: the engine failed, or the time is over. Gone: the client is.
        """
        while any(one.finish is None for one in self.written):
            pieces: list[Piece] = []
            try:
                async with asyncio.timeout(min(PING_S, self.seconds_left)):
                    event = await self.case.job.events.get()
            except TimeoutError:
                if self.seconds_left <= 0:
                    raise self._too_late() from None
                yield pieces
                continue
            while isinstance(event, Piece):
                pieces.append(event)
                if self.case.job.events.empty():
                    break
                event = self.case.job.events.get_nowait()
            if pieces:
                yield pieces
            if isinstance(event, Exception):
                raise event

    def _too_late(self) -> Refusal:
        message = f"the answer was not finished within {self.case.seconds:g} s; ask for fewer tokens"
        return Refusal(504, message, headers={"x-should-retry": "false"})

    def take(self, piece: Piece) -> list[Spoken]:
        """Add a piece to its answer; the tokens whose text is certain by it, where log-probabilities are wanted."""
        if self._first:
            self._first = False
            self._figures.first_token(time.perf_counter() - self.case.began)
        self.fingerprint = piece.fingerprint
        written = self.written[piece.index]
        written.add(piece)
        return self._speeches[piece.index].hear(piece, len(written.text)) if self._speeches else []

    def echo(self, index: int) -> str:
        """The prompt of an answer, where it is wanted before it."""
        prepared = self.case.prepared
        return prepared.texts[index // prepared.n] if self.case.asked.echo else ""

    def usage(self) -> dict[str, int]:
        return usage(self.case.prepared.n_prompt_tokens, sum(one.n_tokens for one in self.written))

    def logprobs(self, spoken: Sequence[Spoken], offset: int) -> JsonObject | None:
        if self._speeches is None:
            return None
        return chat_form(spoken) if self.case.chat else completion_form(spoken, offset)

    def end(self) -> None:
        """Free its places, if any are left, and count what was written."""
        if not self._over:
            self._over = True
            self._worker.cancel(self.case.job)
            done = self.usage()
            self._figures.tokens(self.frame.model, done["prompt_tokens"], done["completion_tokens"])

    @asynccontextmanager
    async def listening(self, receive: Receive) -> AsyncIterator[None]:
        """Within it a client that hangs up ends the job at once."""

        async def until_gone() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            self._figures.hung_up()
            self._worker.cancel(self.case.job)
            self.case.job.events.put_nowait(Gone())

        listener = asyncio.create_task(until_gone())
        try:
            yield
        finally:
            listener.cancel()


def _speeches(case: Case) -> list[Speech] | None:
    if case.asked.logprobs is None:
        return None
    trim, source = case.chat and case.served.template == "chat", reads_source(case.served.model)
    requests = case.prepared.requests
    return [Speech(case.served.decoder, [] if source else request.prompt, trim=trim) for request in requests]


async def whole_answer(answering: Answering, receive: Receive) -> JsonObject:
    """The response once all answers have ended.

    Raises:
        Refusal, Gone: as `Answering.batches`.
    """
    a = answering
    spoken: list[list[Spoken]] = [[] for _ in a.written]
    try:
        async with a.listening(receive):
            async for pieces in a.batches():
                for piece in pieces:
                    spoken[piece.index] += a.take(piece)
    finally:
        a.end()
    choices = [
        a.frame.choice(i, a.echo(i) + one.text, one.finish, a.logprobs(spoken[i], 0)) for i, one in enumerate(a.written)
    ]
    return a.frame.response(choices, a.fingerprint, a.usage())


class Stream(Response):
    """Server-sent events. `begin` comes first, so that what fails before the first piece is an ordinary error.

    on_end: is told the status, 200 also where a fault had to be written into the stream.
    """

    def __init__(self, answering: Answering, headers: dict[str, str], on_end: Callable[[int], None]) -> None:
        super().__init__(headers=headers, media_type="text/event-stream")
        del self.headers["content-length"]
        self.headers["x-accel-buffering"] = "no"
        self._answering, self._on_end = answering, on_end
        self._batches = answering.batches()
        self._early: list[Piece] = []
        self._offsets = [0] * len(answering.written)
        self._opened: set[int] = set()

    async def begin(self, receive: Receive) -> None:
        """Wait for the first piece, or for so long that a sign of life is better.

        Raises:
            Refusal, Gone: as `Answering.batches`.
        """
        try:
            async with self._answering.listening(receive):
                self._early = await anext(self._batches)
        except BaseException:
            self._answering.end()
            raise

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        a, status = self._answering, 200
        try:
            # Sending waits while the client does not read: one that never does is cut off by the same limit of time.
            async with a.listening(receive), asyncio.timeout(max(1.0, a.seconds_left + 1)):
                await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
                await self._send_all(send)
        except Gone:
            status = CLIENT_GONE
        except TimeoutError:
            status = 504
            raise ConnectionAbortedError("a client did not read its answer in time") from None
        finally:
            a.end()
            self._on_end(status)

    async def _send_all(self, send: Send) -> None:
        a = self._answering

        async def write(lines: list[bytes], *, more: bool = True) -> None:
            await send({"type": "http.response.body", "body": b"".join(lines), "more_body": more})

        try:
            await write(self._lines(self._early))
            async for pieces in self._batches:
                await write(self._lines(pieces))
        except Refusal as refusal:  # the status has gone out: OpenAI's clients raise what they find under "error"
            await write([_data(refusal.body())], more=False)
            return
        last = [b"data: [DONE]\n\n"]
        if a.case.asked.include_usage:
            last.insert(0, _data(a.frame.chunk([], a.fingerprint, a.usage(), with_usage=True)))
        await write(last, more=False)

    def _lines(self, pieces: list[Piece]) -> list[bytes]:
        return [line for piece in pieces for line in self._of_piece(piece)] or [b": ping\n\n"]

    def _of_piece(self, piece: Piece) -> list[bytes]:
        """The chunks of one step: whose turn it is, the text, and why it ended; none while nothing is certain."""
        a, i = self._answering, piece.index
        spoken = a.take(piece)
        found, text = [], piece.text
        if i not in self._opened:
            self._opened.add(i)
            if a.case.chat:
                found.append(a.frame.part(i, "", None, None, first=True))
            text = a.echo(i) + text
        if text or spoken:
            found.append(a.frame.part(i, text, None, a.logprobs(spoken, self._offsets[i])))
            self._offsets[i] += sum(len(one.text) for one in spoken)
        if (finish := a.written[i].finish) is not None:
            found.append(a.frame.part(i, None, finish, None))
        with_usage = a.case.asked.include_usage
        return [_data(a.frame.chunk([one], a.fingerprint, with_usage=with_usage)) for one in found]


def _data(value: JsonObject) -> bytes:
    return b"data: " + json_bytes(value) + b"\n\n"

"""The server as a process: its socket, its signals, and what it says at the start.

>>> serve(served_models("runs/my", [], {}, None), Place("127.0.0.1", 8000, allowed), Limits())   # doctest: +SKIP
"""

import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType

import uvicorn

from hone.errors import Interrupted
from hone.models.source import base_of
from hone.serve.app import Limits, Server, application
from hone.serve.connection import configured
from hone.serve.guard import Guard
from hone.serve.models import Served
from hone.serve.place import Place

DRAIN_S = 60.0


def serve(
    models: Sequence[Served],
    place: Place,
    limits: Limits,
    *,
    listener: socket.socket,
    default_seed: int | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> None:
    """Answer until a signal comes; then finish what is being answered, or end at once at the second signal.

    Raises:
        Interrupted: at the second signal, with answers unfinished.
    """
    process = Process(Server(models, limits, default_seed), place, say)
    process.run([listener])
    if process.left_unfinished:
        raise Interrupted("answers were left unfinished")


class Process(uvicorn.Server):
    """uvicorn's, with a first signal that lets running answers end while new requests get a 503."""

    def __init__(self, served: Server, place: Place, say: Callable[[str], None] = lambda line: None) -> None:
        self.served, self._say, self.left_unfinished = served, say, False
        app = Guard(application(served), place.allowed, served.limits.body_bytes, served.figures.refused)
        super().__init__(configured(app, ends_within_s=5))

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.served.closing:
            self.left_unfinished = self.served.worker.n_jobs > 0
            self.should_exit = self.force_exit = True
            return
        self._drained_by = time.monotonic() + DRAIN_S
        self.served.closing = True
        if n := self.served.worker.n_jobs:
            self._say(f"finishing {n} requests, at most {DRAIN_S:.0f} s; another signal ends at once")

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second: closing, it ends once all answers have."""
        if self.served.closing and (not self.served.worker.n_jobs or time.monotonic() > self._drained_by):
            self.should_exit = True
        return await super().on_tick(counter)


def start_lines(models: Sequence[Served], address: str) -> list[str]:
    """What is served where, and by which commands others serve the same to many users."""
    width = max(len(one.name) for one in models)
    lines = [f"serving at {address} (Ctrl-C ends):"]
    for one in models:
        window = "" if one.window is None else f", context {one.window}"
        also = f", also called {', '.join(one.aliases)}" if one.aliases else ""
        lines.append(f"  {one.name:{width}}  {one.fingerprint}  {one.folder}, template {one.template}{window}{also}")
    if len(models) > 1:
        lines.append("probe: they give different scores")
    return [*lines, *traffic_lines(models[-1])]


def traffic_lines(served: Served) -> list[str]:
    """The commands with which vLLM and llama.cpp serve this model to many users."""
    folder = Path(served.folder)
    vllm = f"vllm serve {served.folder} --served-model-name {served.name}"
    if served.adapter:
        vllm = f"vllm serve {base_of(folder)} --enable-lora --lora-modules {served.name}={folder}"
    lines = [f"for many users at once: {vllm}"]
    if folder.is_dir():
        name = folder.resolve().name
        file = folder.parent / f"{name}-gguf" / f"{name}-f16.gguf"
        lines.append(f"or: hone export {folder} --to gguf && llama-server --jinja -m {file}")
    return lines

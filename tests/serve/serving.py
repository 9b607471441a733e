"""What the tests of serving share: tiny models as runs, a server in a thread, and a client of few lines. A plugin."""

import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from hone.data.tokenizer import save_tokenizer

HEADERS = {"content-type": "application/json"}


@pytest.fixture(scope="session")
def make_run(
    tmp_path_factory: pytest.TempPathFactory, tiny_model: Callable[..., Any], tokenizer: Any, chat_tokenizer: Any
) -> Callable[..., Path]:
    """make_run("chat") -> a folder that reads as a run trained with this template; its base lies beside it."""

    def make(template: str = "chat", *, seed: int = 1, model_type: str = "gpt2", settings: str = "") -> Path:
        used = chat_tokenizer if template == "chat" else tokenizer
        root = tmp_path_factory.mktemp("served")
        for name, one in (("base", 0), ("my", seed)):
            tiny_model(model_type, seed=one, vocab_size=len(used)).save_pretrained(root / name)
            save_tokenizer(used, root / name)
        run = root / "my"
        (run / "template.json").write_text(json.dumps({"template": template}))
        lines = f"model_name_or_path: {root / 'base'}\ntrain_file: y\nmax_new_tokens: 16\n{settings}"
        (run / "config.resolved.yaml").write_text(lines)
        return run

    return make


@pytest.fixture(scope="session")
def chat_run(make_run: Callable[..., Path]) -> Path:
    return make_run("chat")


class Client:
    """Asks the server at this port, each time over a connection of its own."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.process: Any = None  # of a server in a thread

    def raw(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, HEADERS if headers is None else headers)
            found = connection.getresponse()
            return found.status, {name.lower(): value for name, value in found.getheaders()}, found.read()
        finally:
            connection.close()

    def get(self, path: str) -> Any:
        status, _, body = self.raw("GET", path)
        assert status == 200, body
        return json.loads(body)

    def post(self, path: str, body: Any, **headers: str) -> tuple[int, dict[str, str], Any]:
        status, found, text = self.raw("POST", path, json.dumps(body).encode(), {**HEADERS, **headers})
        return status, found, json.loads(text)

    def complete(self, prompt: Any, model: str = "tuned", **fields: Any) -> dict[str, Any]:
        status, _, found = self.post("/v1/completions", {"model": model, "prompt": prompt, **fields})
        assert status == 200, found
        return found

    def chat(self, *turns: str, model: str = "tuned", **fields: Any) -> dict[str, Any]:
        """turns: of user and assistant in turn."""
        status, _, found = self.post("/v1/chat/completions", {"model": model, "messages": talk(*turns), **fields})
        assert status == 200, found
        return found

    def stream(self, path: str, body: dict[str, Any]) -> list[dict[str, Any]]:
        """The chunks of an answer; that it ends with [DONE] is checked."""
        status, headers, text = self.raw("POST", path, json.dumps({**body, "stream": True}).encode())
        assert status == 200 and headers["content-type"].startswith("text/event-stream"), text
        events = [line.removeprefix(b"data: ") for line in text.split(b"\n\n") if line.startswith(b"data: ")]
        assert events[-1] == b"[DONE]", events[-1]
        return [json.loads(event) for event in events[:-1]]

    def figure(self, name: str) -> float:
        _, _, text = self.raw("GET", "/metrics")
        return sum(
            float(line.split()[-1]) for line in text.decode().splitlines() if line.split("{")[0].split()[0] == name
        )


def talk(*turns: str) -> list[dict[str, str]]:
    return [{"role": "assistant" if i % 2 else "user", "content": turn} for i, turn in enumerate(turns)]


def until(holds: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait for something that is to happen soon."""
    ends = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < ends, "it did not happen"
        time.sleep(0.02)


@contextmanager
def serving(
    name: str | Path,
    *,
    adapters: Any = (),
    limits: Any = None,
    seed: int | None = None,
    key: str | None = None,
    template: str | None = None,
    origins: Any = (),
    change: Callable[[Any], None] | None = None,
    **options: Any,
) -> Iterator[Client]:
    """A server in a thread, asked over real sockets. change: is called with its `Server` before it starts."""
    from hone.serve.app import Limits, Server
    from hone.serve.models import served_models
    from hone.serve.place import listen, place
    from hone.serve.run import Process

    models = served_models(str(name), list(adapters), options, template)  # type: ignore[arg-type]
    server = Server(models, limits or Limits(), seed)
    if change is not None:
        change(server)
    listener = listen("127.0.0.1", 0)
    process = Process(server, place("127.0.0.1", 0, key, [], origins))
    thread = threading.Thread(target=process.run, args=([listener],))
    thread.start()
    client = Client(listener.getsockname()[1])
    try:
        until(lambda: process.started)
        client.process = process
        yield client
    finally:
        process.should_exit = True
        thread.join(30)
        assert not thread.is_alive(), "the server does not end"


@pytest.fixture(scope="module")
def client(chat_run: Path) -> Iterator[Client]:
    """A server of base and tuned, trained with a chat template."""
    with serving(chat_run) as one:
        yield one

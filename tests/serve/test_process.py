"""The command as a process: what it says, how it ends, and what is wrong before it starts."""

import json
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from serving import Client, serving, until
from typer.testing import CliRunner

from conftest import SIGNALS
from forked import hone_process
from hone.cli import app

pytest_plugins = ["serving", "talking"]


@contextmanager
def process(pipe: Path, *arguments: Any) -> Iterator[tuple[Client, Any, list[str]]]:
    """`hone serve` and what it has said so far, into a pipe of this name, once it answers."""
    os.mkfifo(pipe)
    found = hone_process(["serve", *map(str, arguments), "--port", "0"], stderr=pipe)
    stderr, said = pipe.open(encoding="utf-8"), list[str]()
    try:
        for line in stderr:
            said.append(line)
            if address := re.search(r"serving at http://[^ ]*:(\d+)/v1", line):
                break
        else:
            raise AssertionError(said)
        reader = threading.Thread(target=lambda: said.extend(stderr), daemon=True)
        reader.start()
        client = Client(int(address[1]))
        ends = time.monotonic() + 60
        while not said[-1].startswith("or: hone export") and time.monotonic() < ends:
            time.sleep(0.02)
        yield client, found, said
    finally:
        found.kill()
        found.join(20)


def ask_slowly(client: Client) -> socket.socket:
    """A long streamed answer, of which the first bytes have come."""
    body = json.dumps({"model": "tuned", "prompt": "x", "max_tokens": 230, "n": 24, "stream": True, "temperature": 1.0,
                       "logprobs": 5, "logit_bias": {"0": -100}})  # fmt: skip
    one = socket.create_connection(("127.0.0.1", client.port), timeout=60)
    head = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    one.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
    assert b"200 OK" in one.recv(50)
    return one


def rest(one: socket.socket) -> bytes:
    parts = []
    while part := one.recv(65_536):
        parts.append(part)
    return b"".join(parts)


def ask_after_the_signal(waiting: socket.socket) -> bytes:
    body = b'{"model": "tuned", "prompt": "x"}'
    head = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    waiting.sendall(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
    return rest(waiting)


def test_the_first_signal_drains(chat_run: Path) -> None:
    with serving(chat_run) as client:
        process = client.process
        waiting = socket.create_connection(("127.0.0.1", client.port), timeout=60)
        one = ask_slowly(client)
        process.handle_exit(signal.SIGTERM, None)
        until(lambda: process.served.closing)
        refused = ask_after_the_signal(waiting)
        assert b"503" in refused.split(b"\r\n")[0] and b"shutting_down" in refused
        assert b"data: [DONE]" in rest(one), "what was begun is answered to its end"
        until(lambda: process.should_exit)
        assert not process.force_exit and not process.left_unfinished


@SIGNALS
@pytest.mark.slow
def test_the_second_signal_ends_at_once(chat_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HONE_API_KEY", raising=False)
    with process(tmp_path / "stderr", chat_run) as (client, server, said):
        one = ask_slowly(client)
        server.terminate()
        until(lambda: "finishing 1 request" in "".join(said))
        os.kill(server.pid, signal.SIGINT)
        server.join(30)
        assert server.exitcode == 130
        assert b"[DONE]" not in rest(one)
    text = "".join(said)
    assert f"vllm serve {chat_run}" in text
    assert re.search(r"  base +hone-[0-9a-f]{16}  .*template chat, context 256\n", text)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["none"], ["no folder of that name"]),
        (["{run}", "--host", "0.0.0.0"], ["HONE_API_KEY", "other machines"]),
        (["{run}", "--host", "203.0.113.7", "--api-key", "k"], ["cannot listen", "address of this machine"]),
        (["{run}", "--adapter", "x"], ["--adapter NAME=RUN"]),
        (["{run}", "--template", "haiku"], ["unknown template", "plain, instruction or chat"]),
        (["{base}", "--template", "instruction", "--temperature", "101"], ["temperature", "100"]),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_before_the_start(
    arguments: list[str], says: list[str], chat_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HONE_API_KEY", raising=False)
    places = {"run": str(chat_run), "base": str(chat_run.parent / "base")}
    found = CliRunner().invoke(app, ["serve", *(one.format(**places) for one in arguments), "--port", "0"])
    assert found.exit_code == 1 and "Traceback" not in found.output
    for word in says:
        assert word in found.stderr, found.stderr


def test_a_port_that_is_taken(chat_run: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        found = CliRunner().invoke(app, ["serve", str(chat_run), "--port", str(port)])
        assert found.exit_code == 1 and f"port {port} is taken" in found.stderr and "--port 0" in found.stderr


def test_a_classifier_is_sent_to_predict(make_run: Callable[..., Path]) -> None:
    run = make_run("plain")
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps({**config, "architectures": ["GPT2ForSequenceClassification"]}))
    found = CliRunner().invoke(app, ["serve", str(run), "--port", "0"])
    assert found.exit_code == 1 and "Traceback" not in found.output

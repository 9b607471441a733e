"""`hone serve` under load: nothing lost, nothing mixed up, how fast, and how much memory, with clients good and bad.

The server is a process of its own, asked over sockets. First a crowd: requests to base and tuned in turn, chat and
completion, streamed and whole, each with a seed; every text is compared with `hone generate`'s and every fingerprint
with that of the model asked for. Then the same load for minutes, while the server's memory is read. Then bad clients:
they hang up mid-stream, send what is no request, ask for too much, and do not read. Exit code 1 if anything is wrong.

    python benchmarks/serving.py runs/my
    python benchmarks/serving.py runs/my --requests 60 --clients 8 --minutes 0.1
    python benchmarks/serving.py runs/my --peer 'python -m transformers.cli.transformers serve --port {port}'
"""

import argparse
import http.client
import json
import random
import re
import shlex
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import cycle, islice
from pathlib import Path
from typing import Any

PROMPTS = [
    "def add(a, b):", "Write a function that adds two numbers.", "def is_even(n):\n", "class Stack:\n    def push(",
    "import json\n\ndef load(path):", "Reverse a list.", "for i in range(10):", "# the largest of three numbers\n",
]  # fmt: skip
CHAT, COMPLETE = "/v1/chat/completions", "/v1/completions"
JSON = {"content-type": "application/json"}


@dataclass(frozen=True)
class Case:
    """A request, and the text that it must be answered with."""

    model: str
    prompt: str
    seed: int
    chat: bool
    stream: bool
    expected: str = ""

    def body(self, new: int) -> dict[str, Any]:
        asked = {"messages": [{"role": "user", "content": self.prompt}]} if self.chat else {"prompt": self.prompt}
        drawn = {"temperature": 0.8, "seed": self.seed, "max_tokens": new}
        return {"model": self.model, "stream": self.stream, **asked, **drawn}


@dataclass(frozen=True)
class Answer:
    text: str
    fingerprint: str
    n_tokens: int
    seconds: float
    first: float


def main() -> None:
    parser = argparse.ArgumentParser(description="hone serve under load")
    parser.add_argument("run", help="a run with a base")
    parser.add_argument("--requests", type=int, default=500)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--new", type=int, default=48, help="tokens of an answer")
    parser.add_argument("--minutes", type=float, default=5.0, help="of load while memory is read")
    parser.add_argument("--bad", type=int, default=100, help="clients of each bad kind")
    parser.add_argument("--peer", help="another server's command with {port}: its throughput beside ours, and no more")
    parser.add_argument("--peer-model", help="what the peer calls the model [the run's path]")
    options = parser.parse_args()
    if options.peer:
        beside(options)
        return
    with hone_serve(options.run) as port:
        models = {one["id"]: one for one in get(port, "/v1/models")["data"]}
        wanted = with_texts(cases(), {name: one["folder"] for name, one in models.items()}, options.new, models)
        prints = {name: one["fingerprint"] for name, one in models.items()}
        wrong = crowd(port, wanted, prints, options)
        wrong += over_time(port, wanted, options)
        wrong += bad_clients(port, wanted[0], options)
    print("nothing lost, nothing mixed up" if not wrong else f"wrong: {wrong}")
    raise SystemExit(bool(wrong))


# ---- servers and clients -------------------------------------------------------------------------------------------


@contextmanager
def hone_serve(run: str) -> Iterator[int]:
    command = [sys.executable, "-m", "hone", "serve", run, "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        port = next((int(m[1]) for line in process.stderr if (m := re.search(r"serving at .*:(\d+)/v1", line))), None)
        if port is None:
            raise SystemExit("the server did not start: try the command by itself: " + shlex.join(command))
        wait_until(lambda: get(port, "/health"))
        try:
            yield port
        finally:
            process.send_signal(signal.SIGTERM)


def wait_until(works: Any, seconds: float = 120.0) -> None:
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        try:
            if works():
                return
        except (OSError, http.client.HTTPException):
            pass
        time.sleep(0.1)
    raise SystemExit("it did not happen in time")


def get(port: int, path: str) -> Any:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", path)
    found = connection.getresponse().read()
    connection.close()
    return json.loads(found) if found[:1] in b"{[" else found.decode()


def ask(port: int, case: Case, new: int) -> Answer:
    """One request over a connection of its own; whatever is not a whole answer raises."""
    began = time.perf_counter()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    connection.request("POST", CHAT if case.chat else COMPLETE, json.dumps(case.body(new)), JSON)
    response = connection.getresponse()
    assert response.status == 200, response.read()
    first, parts = 0.0, []
    while line := response.readline():
        first = first or time.perf_counter() - began
        parts.append(line)
    connection.close()
    seconds = time.perf_counter() - began
    if not case.stream:
        found = json.loads(b"".join(parts))
        choice = found["choices"][0]
        text = choice["message"]["content"] if case.chat else choice["text"]
        return Answer(text, found["system_fingerprint"], found["usage"]["completion_tokens"], seconds, first)
    events = [line[6:] for line in parts if line.startswith(b"data: ")]
    assert events[-1].strip() == b"[DONE]", events[-1]
    chunks = [json.loads(event) for event in events[:-1]]
    said = [chunk["choices"][0] for chunk in chunks]
    text = "".join((one["delta"].get("content") or "") if case.chat else one["text"] for one in said)
    return Answer(
        text,
        chunks[-1].get("system_fingerprint", ""),
        sum(bool(one.get("delta") or one.get("text")) for one in said),
        seconds,
        first,
    )


# ---- a crowd -------------------------------------------------------------------------------------------------------


def cases() -> list[Case]:
    found = [
        Case(model, prompt, seed, chat, stream=bool((i + seed + chat) % 2))
        for model in ("base", "tuned")
        for i, prompt in enumerate(PROMPTS)
        for seed in (0, 1)
        for chat in (False, True)
    ]
    random.Random(0).shuffle(found)
    return found


def with_texts(found: list[Case], folders: dict[str, str], new: int, models: Any) -> list[Case]:
    """The cases with the text that `hone generate` gives to each.

    Of a base in another dtype than the training's, a copy in that of the training is asked, as the server serves it.
    """
    import hone

    models_by_name = {name: hone.load(folder) for name, folder in folders.items()}
    (base, tokenizer), (tuned, _) = models_by_name["base"], models_by_name["tuned"]
    copied = tempfile.TemporaryDirectory()
    if base.dtype != tuned.dtype:
        base.to(tuned.dtype).save_pretrained(copied.name)
        tokenizer.save_pretrained(copied.name)
        folders = {**folders, "base": copied.name}
    texts: dict[tuple[str, int, bool, str], str] = {}
    for name, seed, chat in {(case.model, case.seed, case.chat) for case in found}:
        options = {"temperature": 0.8, "seed": seed, "max_new_tokens": new}
        template = models[name]["template"] if chat else "plain"
        answers = hone.generate_many(folders[name], PROMPTS, template=template, **options)
        texts.update({(name, seed, chat, prompt): one[0] for prompt, one in zip(PROMPTS, answers)})
    wanted = [replace(case, expected=texts[case.model, case.seed, case.chat, case.prompt]) for case in found]
    copied.cleanup()
    return wanted


def crowd(port: int, wanted: list[Case], prints: dict[str, str], options: argparse.Namespace) -> int:
    asked = list(islice(cycle(wanted), options.requests))
    began = time.perf_counter()
    with ThreadPoolExecutor(options.clients) as clients:
        futures = [clients.submit(ask, port, case, options.new) for case in asked]
    seconds = time.perf_counter() - began
    answers = [future.result() for future in futures if future.exception() is None]
    lost = len(futures) - len(answers)
    different = [(case, f.result().text) for f, case in zip(futures, asked) if f.exception() is None]
    different = [(case, text) for case, text in different if text != case.expected]
    texts = len(different)
    names = sum(
        f.result().fingerprint != prints[case.model] for f, case in zip(futures, asked) if f.exception() is None
    )
    took, first = sorted(one.seconds for one in answers), sorted(one.first for one in answers)
    print(f"| {options.requests} requests, {options.clients} clients | |\n| --- | --- |")
    print(f"| lost / other text than hone generate / other fingerprint | {lost} / {texts} / {names} |")
    print(f"| seconds an answer: p50, p95 | {share(took, 0.5):.2f}, {share(took, 0.95):.2f} |")
    print(f"| seconds to the first byte: p50, p95 | {share(first, 0.5):.2f}, {share(first, 0.95):.2f} |")
    print(
        f"| requests/s, about tokens/s | {len(answers) / seconds:.1f}, {len(answers) * options.new / seconds:.0f} |\n"
    )
    return lost + names + mixed_up(port, different, options)


def mixed_up(port: int, different: list[tuple[Case, str]], options: argparse.Namespace) -> int:
    """How many of the other texts are not rounding's.

    A batch adds numbers in another order, and that can turn a draw: the text begins as expected, and alone it is right.
    """
    found = 0
    for case, text in different:
        alone = ask(port, case, options.new).text == case.expected
        same = next((i for i, (a, b) in enumerate(zip(text, case.expected)) if a != b), 0)
        found += not (alone and same)
        print(f"other text: {case.model}, {same} of {len(case.expected)} characters as expected; alone right: {alone}")
    return found


def share(ordered: list[float], part: float) -> float:
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


def over_time(port: int, wanted: list[Case], options: argparse.Namespace) -> int:
    """The same load for minutes; memory at each tenth of it."""
    ends = time.monotonic() + 60 * options.minutes
    turns = [0]

    different: list[tuple[Case, str]] = []

    def keep_asking(start: int) -> None:
        for case in islice(cycle(wanted), start, None):
            if time.monotonic() > ends:
                return
            text = ask(port, case, options.new).text
            different.extend([(case, text)] if text != case.expected else [])
            turns[0] += 1

    sizes = []
    with ThreadPoolExecutor(options.clients) as clients:
        futures = [clients.submit(keep_asking, i) for i in range(options.clients)]
        for _ in range(11):
            sizes.append(memory(port))
            time.sleep(6 * options.minutes)
    for future in futures:
        future.result()
    print(f"| {options.minutes:g} minutes, {turns[0]} requests | |\n| --- | --- |\n| other text | {len(different)} |")
    print(f"| MB at each tenth | {' '.join(f'{size / 1e6:.0f}' for size in sizes)} |\n")
    return mixed_up(port, different, options)


def memory(port: int) -> float:
    return figure(port, "process_resident_memory_bytes")


def figure(port: int, name: str) -> float:
    lines = get(port, "/metrics").splitlines()
    return sum(float(line.split()[-1]) for line in lines if re.match(rf"{name}[ {{]", line))


# ---- bad clients ---------------------------------------------------------------------------------------------------


def bad_clients(port: int, good: Case, options: argparse.Namespace) -> int:
    before = memory(port)
    kinds = {
        "hang up mid-stream": lambda i: hang_up(port, i),
        "send what is no request": lambda i: malformed(port, i),
        "ask for too much": lambda i: oversize(port, i),
    }
    wrong = 0
    print("| bad clients | of them answered as they should | then: good answer, places free, MB |\n| --- | --- | --- |")
    for name, do in kinds.items():
        right = sum(bool(do(i)) for i in range(options.bad))
        wrong += options.bad - right + state(port, name, f"{right} of {options.bad}", good, options)
    slow = [stream_socket(port, i) for i in range(min(32, options.bad))]
    wrong += state(port, "do not read, meanwhile", f"{len(slow)} of {len(slow)}", good, options, busy=True)
    for one in slow:
        one.close()
    wrong += state(port, "those have gone", "", good, options)
    print(f"\nmemory before and after the bad clients: {before / 1e6:.0f}, {memory(port) / 1e6:.0f} MB\n")
    return wrong


def state(port: int, name: str, told: str, good: Case, options: argparse.Namespace, *, busy: bool = False) -> int:
    """A line of the table; 1 where the server is not as it should be."""
    right = ask(port, good, options.new).text == good.expected
    free = busy
    ends = time.monotonic() + 30
    while not free and time.monotonic() < ends:
        names = ("hone_open_requests", "hone_rows_growing", "hone_rows_waiting")
        free = all(figure(port, one) == 0 for one in names)
    print(f"| {name} | {told} | {right}, {'busy' if busy else free}, {memory(port) / 1e6:.0f} |")
    return int(not (right and free))


def stream_socket(port: int, i: int) -> socket.socket:
    body = {"model": ("base", "tuned")[i % 2], "prompt": PROMPTS[i % len(PROMPTS)], "max_tokens": 400, "stream": True,
            "temperature": 1.0, "n": 2, "logprobs": 5}  # fmt: skip
    return sent(port, json.dumps(body).encode())


def sent(port: int, body: bytes) -> socket.socket:
    one = socket.socket()
    one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    one.settimeout(60)
    one.connect(("127.0.0.1", port))
    head = f"POST {COMPLETE} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    one.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    return one


def hang_up(port: int, i: int) -> bool:
    one = stream_socket(port, i)
    begun = b"200 OK" in one.recv(200)
    one.close()
    return begun


def malformed(port: int, i: int) -> bool:
    draws = random.Random(i)
    body = json.dumps({"model": "tuned", "prompt": "x", "max_tokens": 4}).encode()
    at = draws.randrange(len(body))
    spoiled = [
        body[:at],
        body[:at] + b"\xff" + body[at:],
        draws.randbytes(60),
        b"[" * (1 + i * 100),
        b'{"model": %d}' % i,
    ]
    with sent(port, spoiled[i % len(spoiled)]) as one:
        return one.recv(200).startswith(b"HTTP/1.1 400")


def oversize(port: int, i: int) -> bool:
    many = (b"word " * 20_000, b"x" * 3_000_000, b"\\u0000" * 10_000)[i % 3]
    with sent_carefully(port, b'{"model": "tuned", "prompt": "' + many + b'"}') as one:
        return one.recv(200).split()[1] in (b"400", b"413")


def sent_carefully(port: int, body: bytes) -> socket.socket:
    """As `sent`, of a body that the server may refuse before it has read it."""
    one = socket.create_connection(("127.0.0.1", port), timeout=60)
    head = f"POST {COMPLETE} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    one.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode())
    if len(body) < 2 << 20:
        one.sendall(body)
    return one


# ---- another server ------------------------------------------------------------------------------------------------


def beside(options: argparse.Namespace) -> None:
    """Chat completions of the tuned model, whole, from as many clients: ours and theirs in turn, three times."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = shlex.split(options.peer.format(port=port))
    rates: dict[str, list[float]] = {"hone": [], "peer": []}
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as peer:
        try:
            with hone_serve(options.run) as ours:
                wait_until(lambda: get(port, "/health"))
                theirs = options.peer_model or str(Path(options.run).resolve())
                sides = {"hone": (ours, "tuned"), "peer": (port, theirs)}
                for turn in range(4):
                    for name, (where, model) in sides.items():
                        rate = rate_of(where, model, options)
                        rates[name] += [rate] if turn else []  # the first turn loads the model
        finally:
            peer.terminate()
    ratio = statistics.median(a / b for a, b in zip(rates["hone"], rates["peer"]))
    print(f"| chat, {options.clients} clients, {options.new} tokens | tokens/s |\n| --- | --- |")
    for name, found in rates.items():
        print(f"| {name} | {' '.join(f'{rate:.0f}' for rate in found)} |")
    print(f"| ratio, median | {ratio:.2f} |\n")


def rate_of(port: int, model: str, options: argparse.Namespace) -> float:
    """Tokens a second, by the servers' own counts."""

    def one(prompt: str) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
        messages = [{"role": "user", "content": prompt}]
        body = {"model": model, "messages": messages, "temperature": 0.0, "max_tokens": options.new}
        connection.request("POST", CHAT, json.dumps(body), JSON)
        found = json.loads(connection.getresponse().read())
        connection.close()
        return int(found["usage"]["completion_tokens"])

    began = time.perf_counter()
    with ThreadPoolExecutor(options.clients) as clients:
        tokens = sum(clients.map(one, islice(cycle(PROMPTS), 2 * options.clients)))
    return tokens / (time.perf_counter() - began)


if __name__ == "__main__":
    main()

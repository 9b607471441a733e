"""Who may ask: names, pages, keys; over real sockets too, for what a library might let through before us."""

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from serving import Client, serving

from hone.errors import HoneError
from hone.serve.guard import Allowed, has_key, refusal_of
from hone.serve.place import place

pytest_plugins = ["serving", "talking"]

ALLOWED = place("127.0.0.1", 8000, None, ["box.local"], ["https://chat.example"]).allowed
FOREIGN = [
    "evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.1.nip.io:8000", "localhost@evil.example",
    "0.0.0.0", "", "localhost:evil", "127.0.0.1:8000, evil.example", "[::2]:8000", "2130706433", "localhost.",
]  # fmt: skip
OWN = ["127.0.0.1", "127.0.0.1:8000", "localhost:1", "LOCALHOST:8000", "[::1]", "[::1]:8000", "box.local:8000"]


def asked(
    method: str = "POST", path: str = "/v1/completions", allowed: Allowed = ALLOWED, **headers: str
) -> int | None:
    given = {"host": ["localhost:8000"], **{name.replace("_", "-"): [value] for name, value in headers.items()}}
    refused = refusal_of(method, given, path, allowed)
    return refused and refused.status


@pytest.mark.parametrize("host", OWN)
def test_own_names_are_answered(host: str) -> None:
    assert asked(host=host) is None


@pytest.mark.parametrize("host", FOREIGN)
def test_other_names_are_not(host: str) -> None:
    """DNS rebinding: the page's name leads to this machine, and it is the Host that gives it away."""
    for method in ("GET", "POST", "OPTIONS"):
        assert asked(method, host=host) == 403
    assert refusal_of("GET", {}, "/", ALLOWED) and refusal_of(
        "GET", {"host": ["localhost", "evil.example"]}, "/", ALLOWED
    )


def test_pages_that_may_ask() -> None:
    for origin in ("http://localhost:3000", "https://127.0.0.1", "http://[::1]:5173", "https://chat.example"):
        assert asked(origin=origin) is None, origin
    for origin in (
        "null", "https://evil.example", "http://localhost.evil.example", "http://chat.example", "https://chat.example:444",
        "https://sub.chat.example", "file://localhost", "http://localhost@evil.example", "http://localhost/x", "", "http://[",
    ):  # fmt: skip
        assert asked(origin=origin) == 403, origin
        assert asked("GET", origin=origin) == 403, origin


def test_a_page_of_another_site_may_ask_only_if_it_was_named() -> None:
    assert asked(sec_fetch_site="cross-site") == 403
    assert asked(sec_fetch_site="cross-site", origin="http://localhost:3000") == 403
    assert asked(sec_fetch_site="cross-site", origin="https://chat.example") is None
    for site in ("same-origin", "same-site", "none"):
        assert asked(sec_fetch_site=site) is None


def test_keys() -> None:
    closed = Allowed(("localhost",), (), "s3cret")
    assert asked(allowed=closed) == 401 and asked("GET", "/metrics", closed) == 401
    assert asked("GET", "/health", closed) is None
    for value in ("Bearer s3cret", "bearer s3cret"):
        assert asked(allowed=closed, authorization=value) is None
    for value in ("Bearer s3cre", "Bearer s3crett", "Basic s3cret", "s3cret", "Bearer ", "Bearer \u00e9"):
        assert asked(allowed=closed, authorization=value) == 401
    assert not has_key(["Bearer s3cret", "Bearer s3cret"], "s3cret"), "one header, not two"


def test_other_machines_need_a_key() -> None:
    for host in ("0.0.0.0", "::", "192.168.1.5", "box.local"):
        with pytest.raises(HoneError, match="HONE_API_KEY"):
            place(host, 8000, None, [], [])
    assert place("192.168.1.5", 8000, "k", [], []).allowed.knows_host("192.168.1.5:8000")
    assert not place("0.0.0.0", 8000, "k", [], []).allowed.knows_host("0.0.0.0:8000")
    with pytest.raises(HoneError, match="ASCII"):
        place("127.0.0.1", 8000, "two words", [], [])


# ---- over sockets --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def closed(chat_run: Path) -> Iterator[Client]:
    with serving(chat_run, key="s3cret", origins=["https://chat.example"]) as one:
        yield one


def raw(port: int, text: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=20) as found:
        found.sendall(text)
        parts = []
        while part := found.recv(65_536):
            parts.append(part)
        return b"".join(parts)


def test_over_a_socket(closed: Client) -> None:
    body = json.dumps({"model": "tuned", "prompt": "x", "max_tokens": 1})
    key = {"authorization": "Bearer s3cret"}
    status, headers, _ = closed.post("/v1/completions", json.loads(body), **key)
    assert (
        status == 200
        and headers["x-content-type-options"] == "nosniff"
        and "access-control-allow-origin" not in headers
    )
    for given, expected in (
        ({}, 401), ({**key, "host": "evil.example"}, 403), ({**key, "origin": "https://evil.example"}, 403),
        ({**key, "content-type": "text/plain"}, 415), ({**key, "sec-fetch-site": "cross-site"}, 403),
    ):  # fmt: skip
        status, headers, found = closed.post("/v1/completions", json.loads(body), **given)
        assert status == expected and set(found["error"]) == {"message", "type", "param", "code"}
        assert headers["x-content-type-options"] == "nosniff" and "s3cret" not in json.dumps([headers, found])
    page = {**key, "origin": "https://chat.example"}
    assert closed.post("/v1/completions", json.loads(body), **page)[1]["access-control-allow-origin"] == page["origin"]
    status, headers, _ = closed.raw("OPTIONS", "/v1/completions", None, {"origin": page["origin"]})
    assert status == 204 and "authorization" in headers["access-control-allow-headers"]


@pytest.mark.parametrize(
    "start",
    [b"GET /health HTTP/1.1\r\n\r\n", b"GET /health HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n",
     b"GET http://evil.example/health HTTP/1.1\r\nHost: evil.example\r\n\r\n",
     b"\x16\x03\x01\x02\x00\x01", b"GET\r\n\r\n",
     b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n"],
)  # fmt: skip
def test_requests_that_are_none(closed: Client, start: bytes) -> None:
    answer = raw(closed.port, start.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    assert b" 200 " not in answer.split(b"\r\n")[0]
    assert closed.get("/health") == {"status": "ok"}


def test_paths_and_methods_that_are_none(closed: Client) -> None:
    key = {"authorization": "Bearer s3cret"}
    for method, path, expected in (
        ("GET", "/", 404), ("GET", "/v1/chat/completions", 405), ("POST", "/v1/models", 405),
        ("DELETE", "/health", 405),
        ("GET", "/v1/models/none", 404), ("GET", "/v1/models/..%2f..%2fetc", 404),
    ):  # fmt: skip
        status, _, text = closed.raw(method, path, None, key)
        assert status == expected and json.loads(text)["error"]["message"], path

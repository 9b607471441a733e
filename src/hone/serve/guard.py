"""Who may ask: checks of every request before anything reads it.

A page in a browser can reach a server on this machine under a name of its own (DNS rebinding), and send it forms. So
the name that is asked for (Host) and the page that asks (Origin) have to be on a list, always. That a body has to be
JSON by its content type, which no form can send, is checked where it is read. Elsewhere than on this machine a key is
needed as well.

>>> allowed = Allowed(hosts=("localhost",), origins=("https://chat.example",), key=None)
>>> refusal_of("GET", {"host": ["evil.example:8000"]}, "/v1/models", allowed).status
403
"""

import hashlib
import hmac
import json
import logging
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from hone.serve.refusal import Refusal, internal

log = logging.getLogger("hone")

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

THIS_MACHINE = ("127.0.0.1", "localhost", "[::1]")
OPEN_PATHS = ("/health",)  # answered without a key: they say nothing
ALWAYS = {
    "x-content-type-options": "nosniff",
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
}
CORS = {
    "access-control-allow-methods": "GET, POST",
    "access-control-allow-headers": "authorization, content-type",
    "access-control-expose-headers": "x-hone-ignored, x-hone-seed",
    "access-control-max-age": "600",
}


@dataclass(frozen=True)
class Allowed:
    """hosts: names this server answers to, at any port. origins: pages elsewhere that may ask. key: None for none."""

    hosts: tuple[str, ...]
    origins: tuple[str, ...]
    key: str | None

    def knows_host(self, value: str) -> bool:
        return host_name(value) in self.hosts

    def knows_origin(self, value: str) -> bool:
        """A page of this machine, or one that was named."""
        if value in self.origins:
            return True
        try:
            parts = urlsplit(value)
        except ValueError:
            return False
        whole = f"{parts.scheme}://{parts.netloc}" == value and parts.scheme in ("http", "https")
        return whole and "@" not in parts.netloc and host_name(parts.netloc) in self.hosts


def host_name(value: str) -> str:
    """`Host: LOCALHOST:8000` without its port, in small letters; "" where it is none.

    >>> host_name("[::1]:8000"), host_name("localhost"), host_name("localhost.evil.example")
    ('[::1]', 'localhost', 'localhost.evil.example')
    """
    name, colon, port = value.rpartition(":")
    if colon and not value.endswith("]"):
        if not (port.isascii() and port.isdigit()):
            return ""
    else:
        name = value
    return name.lower()


def refusal_of(method: str, headers: Mapping[str, list[str]], path: str, allowed: Allowed) -> Refusal | None:
    """Why a request is not let in; None for one that is.

    Args:
        headers: all values of each, by names in small letters.
    """
    hosts = headers.get("host", [])
    if len(hosts) != 1 or not allowed.knows_host(hosts[0]):
        said = hosts[0][:80] if hosts else "none"
        return Refusal(403, f"this server does not answer to the name {said!r}; --allow-host adds one")
    origins = headers.get("origin", [])
    if len(origins) > 1 or any(not allowed.knows_origin(one) for one in origins):
        return Refusal(403, f"pages of {origins[0][:80]!r} may not ask; --allow-origin adds one")
    named = bool(origins) and origins[0] in allowed.origins
    if method == "OPTIONS":
        return None
    if method == "POST" and "cross-site" in headers.get("sec-fetch-site", []) and not named:
        return Refusal(403, "a page of another site may not ask; --allow-origin adds one")
    if (
        allowed.key is not None
        and path not in OPEN_PATHS
        and not has_key(headers.get("authorization", []), allowed.key)
    ):
        return Refusal(401, "no such API key; send it as authorization: Bearer KEY")
    return None


def has_key(values: list[str], key: str) -> bool:
    """Compared as hashes, in the same time whatever is given."""
    scheme, _, given = (values[0] if len(values) == 1 else "").partition(" ")
    mine, theirs = (hashlib.sha256(one.encode("utf-8", "replace")).digest() for one in (key, given.strip()))
    return hmac.compare_digest(mine, theirs) and scheme.lower() == "bearer"


class Guard:
    """An application with these checks before it, limits to what a body may weigh, and the headers that all answers
    carry (`always`). on_refusal: is told the status of what never reached the application."""

    def __init__(
        self,
        app: App,
        allowed: Allowed,
        most_bytes: int,
        on_refusal: Callable[[int], None] = lambda status: None,
        always: Mapping[str, str] = ALWAYS,
    ) -> None:
        self._app, self._allowed, self._most_bytes = app, allowed, most_bytes
        self._on_refusal, self._always = on_refusal, always

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers: dict[str, list[str]] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
        more = {**self._always, **self._cors(headers)}
        started = False

        async def send_more(message: MutableMapping[str, Any]) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message["headers"] = [*message.get("headers", []), *_raw(more)]
            await send(message)

        refusal = refusal_of(scope["method"], headers, scope["path"], self._allowed) or self._too_large(headers)
        if refusal is not None:
            self._on_refusal(refusal.status)
            await send_json(send_more, refusal.status, refusal.body(), refusal.headers | {"connection": "close"})
            return
        if scope["method"] == "OPTIONS":
            await send_more({"type": "http.response.start", "status": 204, "headers": []})
            await send({"type": "http.response.body", "body": b""})
            return
        try:
            await self._app(scope, receive, send_more)
        except ConnectionError:  # a client that was cut off
            raise
        except Exception as error:
            log.error("%s", error, exc_info=error)
            if started:
                raise
            found = internal(error)
            await send_json(send_more, found.status, found.body(), {})

    def _too_large(self, headers: Mapping[str, list[str]]) -> Refusal | None:
        length = headers.get("content-length", ["0"])[0]
        if length.isdigit() and int(length) > self._most_bytes:
            return too_large(self._most_bytes)
        return None

    def _cors(self, headers: Mapping[str, list[str]]) -> dict[str, str]:
        origin = headers.get("origin", [""])[0]
        if not origin or not self._allowed.knows_origin(origin):
            return {"vary": "origin"}
        return {"vary": "origin", "access-control-allow-origin": origin, **CORS}


def too_large(most_bytes: int) -> Refusal:
    return Refusal(413, f"the body is larger than {most_bytes:,} bytes", headers={"connection": "close"})


def json_bytes(value: Any) -> bytes:
    """Half a surrogate pair, in a message that quotes it, is written as JSON does."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "backslashreplace")


async def send_json(send: Send, status: int, value: Any, headers: Mapping[str, str]) -> None:
    body = json_bytes(value)
    kind = {"content-type": "application/json", "content-length": str(len(body))}
    await send({"type": "http.response.start", "status": status, "headers": _raw({**kind, **headers})})
    await send({"type": "http.response.body", "body": body})


def _raw(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.encode("latin-1"), value.encode("latin-1", "replace")) for name, value in headers.items()]

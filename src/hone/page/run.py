"""The page's server as a process: its socket, its token, its signals.

>>> serve(Path("runs"), place("127.0.0.1", 7860, None, [], []), token="…", listener=listener)  # doctest: +SKIP
"""

import os
import secrets
import socket
from dataclasses import replace
from pathlib import Path

import uvicorn

from hone.page.app import HEADERS, MOST_BYTES, application
from hone.page.watch import Watched
from hone.serve.connection import configured
from hone.serve.guard import Guard
from hone.serve.place import Place

MOST_CONNECTIONS = 200  # at once


def kept_token(path: Path) -> str:
    """A token that outlives the server, so that a page that is open finds its way back; only its owner can read it."""
    if path.is_file() and (found := path.read_text(encoding="ascii", errors="replace").strip()).isalnum():
        return found
    token = secrets.token_hex(24)
    path.parent.mkdir(parents=True, exist_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="ascii") as file:
        file.write(token)
    return token


def serve(folder: Path, place: Place, *, token: str, listener: socket.socket) -> None:
    """Answer until a signal comes."""
    server(folder, place, token).run([listener])


def server(folder: Path, place: Place, token: str) -> uvicorn.Server:
    """The server, ready to run."""
    allowed = replace(place.allowed, key=None)  # the token is asked for behind it: the page's own files need none
    app = Guard(application(Watched(folder), token), allowed, MOST_BYTES, always=HEADERS)
    return uvicorn.Server(configured(app, ends_within_s=2, most_connections=MOST_CONNECTIONS))

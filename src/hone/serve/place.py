"""Where a server listens, and to whom; nothing heavy, so that a port that is taken is known at once.

>>> place("127.0.0.1", 8000, None, [], []).allowed.hosts
('127.0.0.1', 'localhost', '[::1]')
"""

import errno
import socket
from collections.abc import Sequence
from dataclasses import dataclass

from hone.errors import HoneError
from hone.serve.guard import THIS_MACHINE, Allowed

LOOPBACK = ("127.0.0.1", "localhost", "::1")
KEPT_FOR_A_READER = 128 << 10  # bytes in the system for each client that does not read; 4 MB if nobody says
EVERYWHERE = ("0.0.0.0", "::")


@dataclass(frozen=True)
class Place:
    """Where it listens, and to whom."""

    host: str
    port: int
    allowed: Allowed


def place(host: str, port: int, key: str | None, hosts: Sequence[str], origins: Sequence[str]) -> Place:
    """A place that is safe to listen at.

    Raises:
        HoneError: another machine could reach it, and no key is asked for; or the key is no key.
    """
    if host not in LOOPBACK and not host.startswith("127.") and not key:
        raise HoneError(
            f"other machines could reach {host}, and no key is asked for",
            where="--host",
            fix="set the environment variable HONE_API_KEY to a long random text: "
            "export HONE_API_KEY=$(openssl rand -hex 24)",
        )
    if key is not None and (not key.isascii() or not key.isprintable() or " " in key):
        raise HoneError("the key must be printable ASCII without spaces", where="--api-key or HONE_API_KEY")
    own = f"[{host}]" if ":" in host else host
    names = (*THIS_MACHINE, *([] if host in EVERYWHERE else [own]), *hosts)
    return Place(host, port, Allowed(tuple(dict.fromkeys(name.lower() for name in names)), tuple(origins), key))


def listen(host: str, port: int) -> socket.socket:
    """A socket at this place; port 0 takes any that is free.

    Raises:
        HoneError: somebody else has the port, or there is no such address here.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        found = socket.socket(family, socket.SOCK_STREAM)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, KEPT_FOR_A_READER)  # its connections have the same
        found.bind(address)
        found.listen(512)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            what, fix = f"port {port} is taken", "give another: --port 8001, or --port 0 for any that is free"
        elif error.errno == errno.EACCES:
            what, fix = f"port {port} is for the administrator", "give one above 1023: --port 8000"
        else:
            what, fix = f"cannot listen there: {error.strerror or error}", "give an address of this machine"
        raise HoneError(what, where=f"{host}:{port}", fix=fix) from error
    return found

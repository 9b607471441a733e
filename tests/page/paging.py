"""What the tests of the page share: its server in a thread, and a client. A plugin."""

import http.client
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import uvicorn

from hone.page.run import server
from hone.serve.place import listen, place

TOKEN = "0123456789abcdef"


class Client:
    """Asks the page's server at this port, each time over a connection of its own."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.address = f"http://127.0.0.1:{port}"

    def raw(self, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, dict[str, str], bytes]:
        sent = {"x-hone-token": TOKEN, "content-type": "application/json"}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body or None, sent)
            found = connection.getresponse()
            return found.status, {name.lower(): value for name, value in found.getheaders()}, found.read()
        finally:
            connection.close()

    def get(self, path: str, **values: Any) -> Any:
        status, _, text = self.raw("GET", f"{path}?{urlencode(values)}")
        found = json.loads(text)
        assert status == 200, found
        return found

    def refused(self, method: str, path: str, **values: Any) -> tuple[int, str]:
        status, _, text = self.raw(method, f"{path}?{urlencode(values)}", b"{}" if method == "POST" else b"")
        return status, json.loads(text).get("error", "")


@contextmanager
def paging(folder: Path, port: int = 0) -> Iterator[Client]:
    """The page of a folder at a port of this machine, until the end of the block."""
    listener = listen("127.0.0.1", port)
    process: uvicorn.Server = server(folder, place("127.0.0.1", port, TOKEN, [], []), TOKEN)
    thread = threading.Thread(target=process.run, args=([listener],))
    thread.start()
    while not process.started:
        time.sleep(0.01)
    try:
        yield Client(listener.getsockname()[1])
    finally:
        process.should_exit = True
        thread.join()
        listener.close()

"""A connection that ends also where its client neither asks nor reads.

uvicorn waits for ever for the rest of a request's head, and, once an answer is cut off, for its last bytes to be read:
each such connection would stay as long as its client likes.

>>> uvicorn.Server(configured(app, ends_within_s=5))                                            # doctest: +SKIP
"""

import asyncio
import logging
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

PATIENCE_S = 30.0


class Connection(H11Protocol):
    """Looked at every PATIENCE_S: one that waits for its client, and has done nothing since the last look, is cut."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._looked = self._waits_since()
        self._timer = self.loop.call_later(PATIENCE_S, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        self._timer.cancel()
        super().connection_lost(exc)

    def _waits_since(self) -> tuple[object, bool] | None:
        """Behind which request it waits for its client, and whether for its reading; None while one is answered.

        The request itself, not its number: that of one that is gone is given again.
        """
        closing = self.transport.is_closing()
        if not closing and self.cycle is not None and not self.cycle.response_complete:
            return None
        return self.cycle, closing

    def _look(self) -> None:
        waits = self._waits_since()
        if waits is not None and waits == self._looked:
            self.transport.abort()
            return
        self._looked = waits
        self._timer = self.loop.call_later(PATIENCE_S, self._look)


def configured(app: Any, *, ends_within_s: int, most_connections: int | None = None) -> uvicorn.Config:
    """How a server of hone's runs an application: silent, no web sockets, and with these connections.

    Args:
        ends_within_s: after a signal, for answers that are under way. most_connections: more get a 503.
    """
    for library in ("uvicorn", "uvicorn.error"):  # what matters is said by the guard
        logging.getLogger(library).setLevel(logging.CRITICAL)
    return uvicorn.Config(
        app,
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        http=Connection,
        ws="none",
        limit_concurrency=most_connections,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=ends_within_s,
        h11_max_incomplete_event_size=32_768,
    )

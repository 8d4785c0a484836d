"""Connections of the inbox's HTTP endpoint: whoever sends slowly, or nothing, holds a place for a short time only."""

import asyncio
from typing import Any, cast

from uvicorn.protocols.http.h11_impl import H11Protocol

READ_SECONDS = 10.0
"""For a request's head and body together, from the connection's beginning or the request's first byte."""
MOST_CONNECTIONS = 150
"""With as many, a new connection takes the place of the one that has kept its request waiting longest."""


class TimedConnection(H11Protocol):
    """uvicorn's own connection with one deadline for reading a request; uvicorn has none for a head or a body.

    Each byte would begin a limit between two reads anew. A connection that is cut gets no answer. One whose request
    has been read is never cut: its answer is on the way.
    """

    since: float = 0.0
    """When its last request began, on the loop's clock."""
    _deadline: asyncio.TimerHandle | None = None
    _read: Any = None
    """The last request that was read to its end."""

    @property
    def is_answered(self) -> bool:
        """Whether an answer to a complete request is on the way."""
        return self.cycle is not None and not self.cycle.more_body and not self.cycle.response_complete

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Begin the first request's time; make room when there are too many connections."""
        self._make_room()
        super().connection_made(transport)
        self.since = self.loop.time()
        self._begin()

    def data_received(self, data: bytes) -> None:
        """Take bytes; begin a request's time with its first, and end it with its last."""
        super().data_received(data)
        if self.cycle is not None and not self.cycle.more_body and self.cycle is not self._read:
            self._read = self.cycle
            self._end()
        elif self._deadline is None:
            self.since = self.loop.time()
            self._begin()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the deadline."""
        self._end()
        super().connection_lost(exc)

    def cut(self) -> None:
        """End the connection at once, whatever is still to be sent."""
        self._end()
        self.transport.abort()

    def _begin(self) -> None:
        self._deadline = self.loop.call_later(READ_SECONDS, self._late)

    def _end(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _late(self) -> None:
        if self.is_answered:
            self._begin()  # a further request came before the answer to this one; uvicorn has not looked at it yet
        else:
            self.cut()

    def _make_room(self) -> None:
        others = [each for each in cast("set[TimedConnection]", self.connections) if not each.transport.is_closing()]
        waiting = [each for each in others if not each.is_answered]
        if len(others) >= MOST_CONNECTIONS and waiting:
            min(waiting, key=lambda each: each.since).cut()

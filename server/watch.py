"""Watch: ends connections that take too long.

Rules of this file:

* Time is counted in looks at all connections, one a second.  So no request costs a timer or a look
  at the clock, and while this server itself is held up, nobody's time goes by.
* There are looks only while some connection has something to finish: an idle server sleeps.
"""

from collections.abc import Callable, Collection
from typing import Final, Protocol

#: Seconds from one look to the next.
INTERVAL: Final = 1.0


class Watched(Protocol):
    """A connection."""

    def look(self) -> bool:
        """A second has gone by: end it if that is one too many; whether to look again."""


class Watch:
    """Looks at all ``connections``; ``call_later`` is the loop's."""

    def __init__(
        self,
        connections: Collection[Watched],
        call_later: Callable[[float, Callable[[], None]], object],
    ) -> None:
        self._connections = connections
        self._call_later = call_later
        #: Whether there will be another look.
        self.looking = False

    def begin(self) -> None:
        """Some connection has something to finish."""
        if not self.looking:
            self.looking = True
            self._call_later(INTERVAL, self._look)

    def _look(self) -> None:
        self.looking = False
        again = [connection.look() for connection in list(self._connections)]
        if any(again):
            self.begin()

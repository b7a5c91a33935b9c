"""Top: the status of a server on a terminal, again and again.

Rules of this file:

* The terminal is curses', which draws only what has changed, and is as it was at the end, whatever
  ends it.
* A key is heard, and a new size seen, while nothing is asked; an answer takes milliseconds.
"""

import curses
import os
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from time import monotonic
from typing import Final

from .screen import Glyphs, Line, Looks, Status, clipped, legend, screen
from .usage import ConfigError

#: Seconds of which the times of requests are shown.
RECENT: Final = 60.0
#: The keys that end it.
QUIT: Final = (ord("q"), ord("Q"))

#: Attributes, and of the 16 colours the one of the text, by style.
_STYLES: Final = {
    "plain": (curses.A_NORMAL, -1),
    "title": (curses.A_REVERSE | curses.A_BOLD, -1),
    "head": (curses.A_BOLD, curses.COLOR_CYAN),
    "ram": (curses.A_NORMAL, curses.COLOR_GREEN),
    "swap": (curses.A_NORMAL, curses.COLOR_YELLOW),
    "free": (curses.A_DIM, -1),
    "dim": (curses.A_DIM, -1),
    "bad": (curses.A_BOLD, curses.COLOR_RED),
}


def watch(look: Callable[[], Status], interval: float, glyphs: Glyphs) -> None:
    """Show what ``look`` tells every ``interval`` seconds, until q or ^C is pressed.

    Raises:
        ConfigError: the terminal can not do that.
        OSError: a look failed.
    """
    first = look()
    for name in ("LINES", "COLUMNS"):  # the size is the terminal's, also when it changes
        os.environ.pop(name, None)
    try:
        curses.setupterm()
    except curses.error as error:
        raise ConfigError(f"top: TERM={os.environ.get('TERM', '')}: {error}") from None
    with suppress(KeyboardInterrupt):
        curses.wrapper(lambda window: View(window, glyphs).run(first, look, interval))


class View:
    """What is on the terminal.

    Args:
        window: all of it.
    """

    def __init__(self, window: "curses.window", glyphs: Glyphs) -> None:
        self._window = window
        self._glyphs = glyphs
        with suppress(curses.error):  # not every terminal can hide it
            curses.curs_set(0)
        self._attributes = _attributes()
        self._repaint = True

    def run(self, now: Status, look: Callable[[], Status], interval: float) -> None:
        """Show ``now``, then what ``look`` tells, until q is pressed."""
        looks = Looks(now)
        past = deque([_lasting(now)])
        due = monotonic() + interval
        while True:
            self._draw(looks)
            self._window.timeout(max(int((due - monotonic()) * 1000), 0) + 1)
            key = self._window.getch()
            if key in QUIT:
                return
            self._repaint = key == curses.KEY_RESIZE  # the terminal has moved what was on it
            if monotonic() < due:
                continue
            before, now = now, _still(look)
            while len(past) > 1 and now["uptime"] - past[1]["uptime"] >= RECENT:
                past.popleft()
            looks = Looks(now, before, past[0])
            past.append(_lasting(now))
            due = monotonic() + interval

    def _draw(self, looks: Looks) -> None:
        window = self._window
        window.erase()
        window.clearok(self._repaint)
        height, width = window.getmaxyx()
        for row, line in enumerate(screen(looks, width, height - 1, self._glyphs)):
            self._put(row, line)
        last = clipped(legend(self._glyphs), width - 1)  # the last place would scroll
        self._put(height - 1, last)
        window.refresh()

    def _put(self, row: int, line: Line) -> None:
        column = 0
        for text, style in line:
            if text:
                self._window.addstr(row, column, text, self._attributes[style])
            column += len(text)


def _attributes() -> dict[str, int]:
    """The attributes of each style: with colours if the terminal has them and may use them."""
    attributes = {style: attribute for style, (attribute, _) in _STYLES.items()}
    if curses.has_colors() and not os.environ.get("NO_COLOR"):
        curses.use_default_colors()
        for pair, (style, (_, colour)) in enumerate(_STYLES.items(), 1):
            curses.init_pair(pair, colour, -1)
            attributes[style] |= curses.color_pair(pair)
    return attributes


def _lasting(status: Status) -> Status:
    """What of a look is kept for a minute."""
    return {key: status[key] for key in ("pid", "uptime", "requests")}


def _still(look: Callable[[], Status]) -> Status:
    """One more look.

    Raises:
        OSError: the server is gone, or does not answer.
    """
    try:
        return look()
    except OSError as error:
        why = error.strerror or error
        raise OSError(error.errno, f"the server does not answer any more: {why}") from None

"""top: on a real terminal, that of tmux."""

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from server.wire import constants as c
from server.wire import messages as m

from .peer import GUARD
from .test_main import COMMAND, Running, ask, serving

pytestmark = pytest.mark.skipif(shutil.which("tmux") is None, reason="needs tmux")


class Terminal:
    """A shell in a terminal of 80 columns and 24 lines."""

    def __init__(self, socket: Path, **environ: str) -> None:
        self._tmux = ["tmux", "-S", str(socket), "-f", "/dev/null"]
        self._environ = {**os.environ, "LC_ALL": "C.UTF-8", **environ}
        self("new-session", "-d", "-x", "80", "-y", "24", "-c", str(socket.parent), "sh")
        self.until(lambda screen: screen[0] in ("$", "#"))

    def __call__(self, *command: str) -> str:
        return subprocess.run(
            [*self._tmux, *command],
            check=True,
            text=True,
            capture_output=True,
            timeout=GUARD,
            env=self._environ,
        ).stdout

    def type(self, *keys: str) -> None:
        self("send-keys", *keys)

    def screen(self, *options: str) -> list[str]:
        return self("capture-pane", "-p", *options).split("\n")

    def until(self, holds: Callable[[list[str]], bool]) -> list[str]:
        """The screen, as soon as it is so."""
        end = time.monotonic() + GUARD
        while not holds(screen := self.screen()):
            assert time.monotonic() < end, "\n".join(screen)
            time.sleep(0.02)
        return screen

    def resize(self, width: int, height: int) -> None:
        self("resize-window", "-x", str(width), "-y", str(height))

    def close(self) -> None:
        self("kill-server")


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    terminal = Terminal(tmp_path / "tmux")
    yield terminal
    terminal.close()


@pytest.fixture
def control(tmp_path: Path) -> str:
    return str(tmp_path / "control")


@pytest.fixture
def server(control: str, tmp_path: Path) -> Iterator[Running]:
    """A server with two exports, and swap."""
    options = f"--listen tcp://127.0.0.1:0 --export scratch --control {control}"
    swap = f"--ram 1m --swap {tmp_path}/swap"
    with serving(*options.split(), *swap.split()) as server:
        yield server


def top(control: str, *options: str) -> str:
    """What to type."""
    return " ".join([*COMMAND, "top", "--control", control, "--interval=0.2", *options])


def shows(*texts: str) -> Callable[[list[str]], bool]:
    return lambda screen: all(any(text in line for line in screen) for text in texts)


def fills(width: int, height: int) -> Callable[[list[str]], bool]:
    """The title is as wide as it may be, and the legend stands in the last line."""

    def holds(screen: list[str]) -> bool:
        titles = range(min(width, 120) - 1, min(width, 120) + 1)  # its last column is a blank
        title, last = screen[0], screen[height - 1]
        return title.startswith(" tmpfs9p") and len(title) in titles and last.startswith("q quit")

    return holds


def test_it_shows_a_server_on_80_columns_and_24_lines(
    server: Running, control: str, terminal: Terminal
) -> None:
    with server.connect() as sock:
        ask(sock, m.Tversion(8192, c.VERSION))
        ask(sock, m.Tattach(0, c.NOFID, b"", b"scratch", 0))
        terminal.type(top(control), "Enter")
        screen = terminal.until(shows("tmpfs9p 0.", "Tattach", "1 client "))
        assert screen[0].endswith("up 0:00:0" + screen[0][-1])
        assert shows("RAM ", "swap ", "EXPORT", "scratch", "SLOWEST REQUESTS")(screen)
        assert shows("BUSIEST CLIENTS", "127.0.0.1:")(screen)
        assert screen[23].startswith("q quit     █ in RAM   ▒ in swap   · free")
        assert max(map(len, screen)) <= 80


def test_it_looks_again_and_again(server: Running, control: str, terminal: Terminal) -> None:
    with server.connect():
        terminal.type(top(control), "Enter")
        terminal.until(shows("1 client "))
    terminal.until(shows("0 clients"))


def test_it_follows_the_size_of_the_terminal(
    server: Running, control: str, terminal: Terminal
) -> None:
    server.ready()
    terminal.type(top(control), "Enter")
    terminal.until(shows("q quit"))
    for width, height in ((60, 12), (130, 40), (20, 3), (80, 24)):
        terminal.resize(width, height)
        terminal.until(fills(width, height))


@pytest.mark.parametrize("key", ["q", "Q", "C-c"])
def test_q_leaves_the_terminal_as_it_was(
    server: Running, control: str, terminal: Terminal, key: str
) -> None:
    server.ready()
    terminal.type("stty -g > before; clear; echo mine", "Enter")
    terminal.until(lambda screen: screen[0] == "mine")
    terminal.type(f"{top(control)}; echo ended with $?", "Enter")
    terminal.until(shows("q quit"))
    assert terminal("display", "-p", "#{alternate_on}#{cursor_flag}") == "10\n"
    terminal.type(key)
    screen = terminal.until(shows("ended with 0"))
    assert screen[0] == "mine"
    assert not shows("q quit")(screen)
    assert terminal("display", "-p", "#{alternate_on}#{cursor_flag}") == "01\n"
    terminal.type("clear; stty -g | cmp - before && echo same", "Enter")
    terminal.until(lambda screen: screen[0] == "same")


def test_a_server_that_ends_is_told_on_a_terminal_as_it_was(
    server: Running, control: str, terminal: Terminal
) -> None:
    server.ready()
    terminal.type(f"clear; {top(control)}; echo ended with $?", "Enter")
    terminal.until(shows("q quit"))
    server.stop()
    screen = terminal.until(shows("ended with 2"))
    told = "".join(screen)
    assert f"tmpfs9p: --control: {control}: the server does not answer any more: " in told
    assert "Traceback" not in told


@pytest.mark.parametrize(("environ", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_colours_are_for_who_wants_them(
    server: Running, control: str, tmp_path: Path, environ: dict[str, str], coloured: bool
) -> None:
    server.ready()
    terminal = Terminal(tmp_path / "tmux", **environ)
    terminal.type(top(control), "Enter")
    terminal.until(shows("q quit"))
    cyan = "\x1b[36m" in "".join(terminal.screen("-e"))
    terminal.close()
    assert cyan == coloured


def test_a_terminal_that_is_unknown_is_told(
    server: Running, control: str, terminal: Terminal
) -> None:
    server.ready()
    terminal.type(f"clear; TERM=unheard-of {top(control)}; echo ended with $?", "Enter")
    screen = terminal.until(shows("ended with 2"))
    assert "tmpfs9p: top: TERM=unheard-of: setupterm: could not find terminal" in "".join(screen)

"""The commands ``tmpfs9p status`` and ``tmpfs9p top``: what a running server does and holds."""

import argparse
import json
import shutil
import sys
from typing import Any

from .asking import add_asking
from .control import ask
from .screen import ASCII, FINE, Glyphs, Looks, screen
from .usage import ConfigError

#: Seconds that top waits for an answer.
PATIENCE = 5.0

EXAMPLES = """\
examples:
  tmpfs9p status --control /run/t9.control
  tmpfs9p status --json --control /run/t9.control | jq .exports
  tmpfs9p top --control /run/t9.control
"""


def add_parsers(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Enter both among the commands; a parsed one has ``run``, which ends the program."""
    raw = argparse.RawDescriptionHelpFormatter
    about = "what a running server does and holds"
    status = commands.add_parser(
        "status", help=about, description=f"Tell {about}.", epilog=EXAMPLES, formatter_class=raw
    )
    status.add_argument("--json", action="store_true", help="as JSON, sizes in bytes")
    add_asking(status, _status)
    top = commands.add_parser(
        "top",
        help=f"watch {about}",
        description=f"Show {about}, again and again, until q is pressed.",
        epilog=EXAMPLES,
        formatter_class=raw,
    )
    top.add_argument(
        "--interval",
        metavar="SECONDS",
        type=_interval,
        default=1.0,
        help="from one look to the next (default: 1)",
    )
    add_asking(top, _top)


def _interval(text: str) -> float:
    value = float(text)
    if not 0.1 <= value <= 3600:
        raise argparse.ArgumentTypeError(f"{text!r} is not allowed; it takes 0.1 to 3600")
    return value


def _status(arguments: argparse.Namespace) -> None:
    now: dict[str, Any] = ask(arguments.control, "status", {})
    if arguments.json:
        print(json.dumps(now, indent=2))
        return
    width = shutil.get_terminal_size().columns
    for line in screen(Looks(now), width, None, _glyphs()):
        print("".join(text for text, _ in line).rstrip())
    print("\nWhat is told by the second is the average since the server's start.")


def _top(arguments: argparse.Namespace) -> None:
    try:
        from .top import watch  # noqa: PLC0415 not every Python has curses
    except ModuleNotFoundError as error:
        raise ConfigError(f"top: no module {error.name} in this Python; see status") from None
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise ConfigError("top: this is no terminal; see status")
    watch(lambda: ask(arguments.control, "status", {}, PATIENCE), arguments.interval, _glyphs())


def _glyphs() -> Glyphs:
    """What the terminal's encoding has."""
    try:
        "".join(FINE).encode(sys.stdout.encoding)
    except UnicodeEncodeError:
        return ASCII
    return FINE

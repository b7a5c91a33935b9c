"""Asking: what the commands have in common that ask a running server over its control socket.

Rules of this file:

* They exit 0; 1 if the server refuses; 2 if what is asked for can not be, or no server is there.
"""

import argparse
import os
import sys
from collections.abc import Callable
from typing import NoReturn

from .control import Refused
from .usage import ConfigError

Run = Callable[[argparse.Namespace], None]


def add_asking(parser: argparse.ArgumentParser, run: Run) -> None:
    """Have a parsed command call ``run`` and exit."""
    parser.set_defaults(run=lambda arguments: _run(arguments, run))
    parser.add_argument(
        "--control",
        metavar="PATH",
        default=os.environ.get("TMPFS9P_CONTROL"),
        help="control socket of the server (default: TMPFS9P_CONTROL of the environment)",
    )


def _run(arguments: argparse.Namespace, run: Run) -> NoReturn:
    status = 2
    try:
        if not arguments.control:
            raise ConfigError("--control: not given; it takes the control socket of a server")
        run(arguments)
        status = 0
    except Refused as refused:
        status = 1
        about = getattr(arguments, "name", arguments.control).partition(":")[0]
        print(f"tmpfs9p: {about}: {refused}", file=sys.stderr)
    except ConfigError as error:
        print(f"tmpfs9p: {error}", file=sys.stderr)
    except OSError as error:
        why = error.strerror or error
        print(f"tmpfs9p: --control: {arguments.control}: {why}", file=sys.stderr)
    sys.exit(status)

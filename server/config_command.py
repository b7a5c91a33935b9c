"""The command ``tmpfs9p config``: what a server would say of its configuration, without one.

Rules of this file:

* It exits 0; 2, with the line that ``serve`` would print, if the configuration can not be.
* What is asked of the host alone (memory, addresses, swap files) is not tried.
"""

import argparse
import os
import sys
from pathlib import Path

from .certificates import certificates_of
from .config import Config, load
from .usage import ConfigError

#: What the server takes beside what is configured, as "Limits" in the README has it, in bytes.
PROGRAM = (60 + 38 + 4) << 20
CONNECTION = 16 << 10
INODE = 2 << 10


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Enter ``config`` among the commands; a parsed one has ``run``."""
    description = "Say what a server would say of its configuration, without starting one."
    parser = commands.add_parser("config", help="check a configuration", description=description)
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    check = actions.add_parser(
        "check",
        help="say whether serve --config FILE would take it, and how much memory it may take then",
    )
    check.add_argument("file", metavar="FILE", type=Path, help="TOML file")
    check.set_defaults(run=_check)


def most_memory(config: Config) -> int:
    """Bytes of RAM that a server with this configuration takes at most."""
    return (
        config.ram
        + PROGRAM
        + config.limits.client_memory
        + config.limits.max_connections * CONNECTION
        + sum(export.nr_inodes for export in config.exports) * INODE
    )


def _check(arguments: argparse.Namespace) -> None:
    try:
        config = load({}, os.environ, arguments.file)
        certificates_of(config)
    except ConfigError as error:
        print(f"tmpfs9p: {error}", file=sys.stderr)
        sys.exit(2)
    names = ", ".join(f"/{export.name}" for export in config.exports)
    print(f"exports: {names}")
    print(f"files: {_mib(sum(export.size for export in config.exports))} at most, all exports")
    print(f"RAM for them: {_mib(config.ram)}; swap: {_mib(config.swap_size)}")
    print(f"memory of the server: {_mib(most_memory(config))} at most")


def _mib(size: int) -> str:
    """In MiB, rounded up."""
    return f"{-(-size >> 20)} MiB"

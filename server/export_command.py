"""The command ``tmpfs9p export``: it tells a running server which exports to have."""

import argparse
import json
from typing import Any

from .asking import add_asking
from .config import EXPORT_OPTIONS, export_name, export_of, load
from .control import ask
from .human import size

EXAMPLES = """\
examples:
  tmpfs9p export add scratch:size=2g,mode=700 --control /run/t9.control
  tmpfs9p export ls --control /run/t9.control
  tmpfs9p export rm scratch --control /run/t9.control
"""


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Enter ``export`` among the commands; a parsed one has ``run``, which ends the program."""
    raw = argparse.RawDescriptionHelpFormatter
    description = "Tell a running server which exports to have."
    parser = commands.add_parser(
        "export",
        help="add, remove or list exports",
        description=description,
        epilog=EXAMPLES,
        formatter_class=raw,
    )
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    add = actions.add_parser("add", help="make an export", epilog=EXAMPLES, formatter_class=raw)
    add.add_argument(
        "name", metavar="NAME[:KEY=VALUE,...]", help=f"keys: {', '.join(EXPORT_OPTIONS)}"
    )
    remove = actions.add_parser("rm", help="remove an export and all that is in it")
    remove.add_argument("name", metavar="NAME")
    remove.add_argument("--force", action="store_true", help="even if clients are attached")
    listing = actions.add_parser("ls", help="list exports")
    listing.set_defaults(name="ls")
    listing.add_argument("--json", action="store_true", help="as JSON, sizes in bytes")
    for action, run in ((add, _add), (remove, _remove), (listing, _list)):
        add_asking(action, run)


def _add(arguments: argparse.Namespace) -> None:
    export_of(arguments.name, load({}, {}, None), "add")  # what can never be is told here
    made = ask(arguments.control, "export add", {"export": arguments.name})
    print(f"{made['name']}: added, {size(made['size'])}; mount it with aname={made['name']}")


def _remove(arguments: argparse.Namespace) -> None:
    name = export_name("rm", arguments.name)
    ask(arguments.control, "export rm", {"name": arguments.name, "force": arguments.force})
    print(f"{name or '/'}: removed")


def _list(arguments: argparse.Namespace) -> None:
    found = ask(arguments.control, "export ls", {})
    if arguments.json:
        print(json.dumps(found, indent=2))
        return
    heads = ("NAME", "SIZE", "USED", "RAM", "INODES", "CLIENTS", "OPTIONS")
    rows = [heads, *(_row(export) for export in found)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip())


def _row(export: dict[str, Any]) -> tuple[str, ...]:
    return (
        export["name"],
        size(export["size"]),
        size(export["used"]),
        "shared" if export["ram"] is None else size(export["ram"]),
        f"{export['inodes']}/{export['nr_inodes']}",
        str(export["clients"]),
        _options(export),
    )


def _options(export: dict[str, Any]) -> str:
    """Those of its policy that are not the default, as ``--export`` has them."""
    words = ["ro"] if export["ro"] else []
    if export["allow"]:
        words.append("allow=" + "+".join(export["allow"]))
    for key in ("squash", "anonuid", "anongid", "permissions"):
        if str(export[key]) != EXPORT_OPTIONS[key].default:
            words.append(f"{key}={export[key]}")
    return ",".join(words) or "-"

"""The build: plain Python, or with the modules that serve requests compiled by mypyc.

Rules of this file:

* Nothing is compiled unless TMPFS9P_COMPILE=1 asks for it; then mypy and a C compiler are needed.
* Both builds come from the same source, of which the compiled one takes a copy (``build/source``).
  To that copy it adds one module: what the generator makes of the declared messages.
* No extension is ever written beside the source, where it would hide what is edited there.
* What is not in COMPILED is rarely run (startup, swap), or must stay dynamic (declarations).
* Compiled code may evaluate the bounds of a slice twice (mypyc 2.4): they must have no effects.
* Compiled code fails where mypy has inferred what is not so: who sets an attribute to None must not
  look at it again behind a call that may set it to something else.
"""

import os
import shutil
import sys
from pathlib import Path

from setuptools import setup

SOURCE = Path("build/source")
PACKAGES = ("client", "server", "tmpfs_core")

COMPILED = [
    "client/attributes.py",
    "client/chain.py",
    "client/connection.py",
    "client/file.py",
    "client/fuse/device.py",
    "client/fuse/directories.py",
    "client/fuse/locks.py",
    "client/fuse/nodes.py",
    "client/fuse/operations.py",
    "client/fuse/protocol.py",
    "client/fuse/writes.py",
    "client/readahead.py",
    "tmpfs_core/access.py",
    "tmpfs_core/accounting.py",
    "tmpfs_core/acl.py",
    "tmpfs_core/cargo.py",
    "tmpfs_core/directory.py",
    "tmpfs_core/errors.py",
    "tmpfs_core/frames.py",
    "tmpfs_core/locks.py",
    "tmpfs_core/memory.py",
    "tmpfs_core/mount.py",
    "tmpfs_core/node.py",
    "tmpfs_core/permissions.py",
    "tmpfs_core/replacement.py",
    "tmpfs_core/vmobject.py",
    "tmpfs_core/vnode.py",
    "tmpfs_core/vnops.py",
    "server/connection.py",
    "server/fids.py",
    "server/guest.py",
    "server/handlers.py",
    "server/legacy.py",
    "server/meter.py",
    "server/own.py",
    "server/room.py",
    "server/session.py",
    "server/spin.py",
    "server/vhost/memory.py",
    "server/vhost/ring.py",
    "server/wire/compiled.py",
    "server/wire/constants.py",
    "server/wire/entries.py",
    "server/wire/primitives.py",
]


def main() -> None:
    if os.environ.get("TMPFS9P_COMPILE") != "1":
        setup()
        return
    from mypyc.build import mypycify  # noqa: PLC0415 not there in a plain build

    shutil.rmtree(SOURCE, ignore_errors=True)
    for package in PACKAGES:
        shutil.copytree(package, SOURCE / package, ignore=shutil.ignore_patterns("__pycache__"))
    add_messages()
    extensions = mypycify([str(SOURCE / path) for path in COMPILED], opt_level="2", debug_level="0")
    for extension in extensions:  # to seek what to warn of in made code takes as long as all else
        extension.extra_compile_args.append("-Wno-all")
    setup(package_dir={"": str(SOURCE)}, ext_modules=extensions)


def add_messages() -> None:
    """Write the functions of all messages into the module where :mod:`.wire.codec` seeks them."""
    sys.path.insert(0, str(SOURCE))
    from server.wire import legacy, messages, own  # noqa: F401, PLC0415 they declare them
    from server.wire.codec import COMPILED, DECLARED, source_of  # noqa: PLC0415
    from server.wire.generator import PREAMBLE  # noqa: PLC0415

    path = SOURCE.joinpath(*COMPILED.split(".")).with_suffix(".py")
    path.write_text(PREAMBLE + "".join(source_of(cls) for cls in DECLARED))


if __name__ == "__main__":
    main()

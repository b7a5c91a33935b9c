"""program: where the installed command ``tmpfs9p`` starts.

``connect`` and ``mount`` are started for each connection, so they have a way of their own past all
that others load.
"""

import sys
from typing import NoReturn


def main() -> NoReturn:
    """Run the command line."""
    if sys.argv[1:2] == ["connect"]:
        from .connect import main  # noqa: PLC0415
    elif sys.argv[1:2] == ["mount"]:
        from client.mount import main  # noqa: PLC0415
    else:
        from .__main__ import main  # noqa: PLC0415
    main()

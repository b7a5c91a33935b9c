"""program: where the installed command ``tmpfs9p`` starts.

``connect`` is started for each connection, so it has a way of its own past all that others load.
"""

import sys
from typing import NoReturn


def main() -> NoReturn:
    """Run the command line."""
    if sys.argv[1:2] == ["connect"]:
        from .connect import main  # noqa: PLC0415
    else:
        from .__main__ import main  # noqa: PLC0415
    main()

"""How an operation is refused."""

import os
from typing import NoReturn


def refuse(code: int) -> NoReturn:
    """Refuse an operation with errno ``code``.

    Raises:
        OSError: always.
    """
    raise OSError(code, os.strerror(code))

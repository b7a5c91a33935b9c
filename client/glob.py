"""Glob: the names there that a pattern matches, as a shell would have found them here."""

import re
from fnmatch import fnmatchcase

from .filesystem import FileSystem

_MAGIC = re.compile(r"[*?[]")


async def expand(fs: FileSystem, pattern: str) -> list[str]:
    """The paths that match, in order; if there are none, the pattern, for it may be a name.

    ``*``, ``?`` and ``[...]`` match within a name, and a first dot only if it is written.
    """
    if not _MAGIC.search(pattern):
        return [pattern]
    found = ["/" if pattern.startswith("/") else ""]
    for part in pattern.strip("/").split("/"):
        if _MAGIC.search(part):
            found = [path + name for path in found for name in await _matching(fs, path, part)]
        else:
            found = [path + part for path in found if await _is_there(fs, path + part)]
        found = [path + "/" for path in found]
    return [path.rstrip("/") for path in found] or [pattern]


async def _matching(fs: FileSystem, directory: str, pattern: str) -> list[str]:
    try:
        names = await fs.listdir(directory)
    except OSError:  # as in a shell: nothing matches there
        return []
    return sorted(
        name
        for name in names
        if fnmatchcase(name, pattern) and (pattern.startswith(".") or not name.startswith("."))
    )


async def _is_there(fs: FileSystem, path: str) -> bool:
    try:
        await fs.stat(path, follow=False)
    except OSError:
        return False
    return True

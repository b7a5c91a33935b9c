"""A client of 9P2000.L file servers: asyncio inside, with a plain synchronous face.

What programs use is named here; docs/python.md shows how.
"""

from .attributes import Entry, Stat, StatVfs
from .errors import OutcomeUnknownError, UnreachableError
from .file import File
from .filesystem import FileSystem
from .sync import SyncFile, SyncFileSystem

__all__ = [
    "Entry",
    "File",
    "FileSystem",
    "OutcomeUnknownError",
    "Stat",
    "StatVfs",
    "SyncFile",
    "SyncFileSystem",
    "UnreachableError",
]

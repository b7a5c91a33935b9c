"""tmpfs_core: a file system whose data lives in pages of RAM.

No I/O loop, no sockets, no logging: a :class:`Mount` and the operations of :mod:`.vnops` on its
nodes, each of which raises ``OSError(errno)`` and changes nothing when it fails.  The glossary is
in README.md beside this file.
"""

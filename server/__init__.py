"""tmpfs9p's server: 9P over sockets, in front of :mod:`tmpfs_core`."""

__version__ = "0.1.0"

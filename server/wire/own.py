"""What this project's own client can ask for besides: the dialect 9P2000.L.tmpfs9p.

To look at a directory's files takes two requests for each in 9P2000.L (Twalk, Tgetattr), and four
for the directory.  Here it takes one for all of them, as READDIRPLUS of NFS (RFC 1813) and of FUSE.
To make a file and tell a kernel of it takes four (Twalk, Tlcreate, and Tgetattr of it and of its
directory), and here one, as CREATE of NFS.
"""

from .codec import DATA, MESSAGES, STRING, U8, U32, U64, Message, Table, message

#: Its messages.
OWN: Table = dict(MESSAGES)


@message(42, OWN)
class Treaddirplus(Message):
    """What is in a directory, whose fid need not be open, behind ``offset``; 0 begins."""

    fid: U32
    offset: U64
    count: U32


@message(43, OWN)
class Rreaddirplus(Message):
    """``end``: 1 if there is nothing behind what is in ``data``, else 0."""

    end: U8
    data: DATA


@message(44, OWN)
class Tcreateplus(Message):
    """As a Tlcreate of ``newfid``, which is a new one for the directory that ``fid`` is."""

    fid: U32
    newfid: U32
    name: STRING
    flags: U32
    mode: U32
    gid: U32


@message(45, OWN)
class Rcreateplus(Message):
    """``data``: the attributes of the file and of the directory (see :mod:`.entries`)."""

    data: DATA

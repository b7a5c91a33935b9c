"""A peer that speaks 9P2000 or 9P2000.u."""

from typing import Any, Self

from server.identity import user_name
from server.wire import constants as c
from server.wire import legacy as old
from server.wire import messages as m
from server.wire.codec import Qid, Record

from .peer import ROOT, Peer

KEEP = (c.KEEP32, c.KEEP64)
ROOT_NAME = user_name(0)


class OldPeer:
    """A client of one of the dialects, on a peer that has only begun."""

    def __init__(self, peer: Peer, unix: bool) -> None:
        self.peer = peer
        self.unix = unix
        self.record: type[Record] = old.StatUnix if unix else old.Stat
        self.call = peer.call
        self.walk = peer.walk
        self.clunk = peer.clunk
        self.read = peer.read
        self.write = peer.write

    def begin(self, msize: int = 1 << 20, uname: bytes = ROOT_NAME, uid: int = 0) -> Self:
        version = c.VERSION_UNIX if self.unix else c.VERSION_PLAIN
        assert self.call(m.Tversion(msize, version), c.NOTAG) == m.Rversion(msize, version)
        self.attach(ROOT, uname, uid)
        return self

    def attach(self, fid: int, uname: bytes = ROOT_NAME, uid: int = 0, aname: bytes = b"") -> Qid:
        if self.unix:
            attach: Any = m.Tattach(fid, c.NOFID, uname, aname, uid)
        else:
            attach = old.TattachPlain(fid, c.NOFID, uname, aname)
        qid: Qid = self.call(attach).qid
        return qid

    def open(self, *names: bytes, mode: int = c.ORDWR, start: int = ROOT) -> int:
        fid = self.walk(*names, start=start)
        self.call(old.Topen(fid, mode))
        return fid

    def create(
        self,
        name: bytes,
        perm: int = 0o644,
        mode: int = c.ORDWR,
        extension: bytes = b"",
        parent: int = ROOT,
    ) -> int:
        fid = self.walk(start=parent)
        if self.unix:
            self.call(old.TcreateUnix(fid, name, perm, mode, extension))
        else:
            self.call(old.Tcreate(fid, name, perm, mode))
        return fid

    def mkdir(self, name: bytes, perm: int = 0o755, parent: int = ROOT) -> int:
        fid = self.create(name, c.DMDIR | perm, c.OREAD, parent=parent)
        self.clunk(fid)
        return self.walk(name, start=parent)

    def stat(self, fid: int) -> Any:
        (told,) = self.split(self.call(old.Tstat(fid)).stat)
        return told

    def wstat(self, fid: int, **changes: Any) -> None:
        """Change these and keep the rest."""
        values: dict[str, Any] = {
            **dict.fromkeys(("dev", "mode", "atime", "mtime", "n_uid", "n_gid", "n_muid"), KEEP[0]),
            **dict.fromkeys(("name", "uid", "gid", "muid", "extension"), b""),
            **{"type": 0xFFFF, "qid": Qid(0xFF, *KEEP), "length": KEEP[1]},
        }
        values |= changes
        fields = (values[name] for name in self.record.__match_args__)
        self.call(old.Twstat(fid, self.record.pack(*fields)))

    def split(self, data: bytes) -> list[Any]:
        """The stats that these bytes are."""
        told = []
        at = 0
        while at < len(data):
            end = at + 2 + int.from_bytes(data[at : at + 2], "little")
            told.append(self.record(*self.record.unpack(data, at + 2, end)))
            at = end
        return told

    def listing(self, fid: int, count: int = 1 << 20) -> list[Any]:
        """All stats of an open directory."""
        told: list[Any] = []
        offset = 0
        while data := self.read(fid, offset, count):
            assert len(data) <= count
            told += self.split(data)
            offset += len(data)
        return told

    def names(self, *path: bytes, count: int = 1 << 20) -> list[bytes]:
        fid = self.open(*path, mode=c.OREAD)
        names = [told.name for told in self.listing(fid, count)]
        self.clunk(fid)
        return names

"""The judge: what this machine's own kernel says of a case, on a tmpfs that nobody else sees.

Rules
- Run as a program in a mount namespace of its own, as root, in the top of an empty tmpfs.  It reads
  cases from stdin and writes a verdict on each to stdout, all pickled.
- A case is what root prepares, a user with his groups, and what he then does: lists of operations,
  each a name of a method of Judge and its arguments.  Paths are relative to the case's own place.
- A verdict is what came of each operation, an errno or what the method returned, and in the end
  all that root sees there.  One that hangs on a sysctl (fs.protected_*) is None, and ends the case.
- A user acts by his effective ids: the kernel checks no other here, nor any capability he lacks.
"""

import ctypes
import os
import pickle
import stat
import sys
from typing import Any

Op = tuple[Any, ...]
User = tuple[int, int, tuple[int, ...]]
Case = tuple[list[Op], User, list[Op]]
Verdict = tuple[list[Any], dict[str, Any]]

#: The extended attributes that cases set.
XATTRS = (
    *("system.posix_acl_access", "system.posix_acl_default"),
    *("user.a", "trusted.a", "security.a"),
)
UTIME_NOW, UTIME_OMIT = (1 << 30) - 1, (1 << 30) - 2
AT_FDCWD = -100


class Judge:
    """Does what cases ask for, by system calls."""

    def __init__(self) -> None:
        self._place = ""
        self._cases = 0
        self._libc = ctypes.CDLL(None, use_errno=True)

    def judge(self, case: Case) -> Verdict:
        prepared, (uid, gid, groups), done = case
        self._place = f"{self._cases}/"
        self._cases += 1
        os.mkdir(self._place)
        said = [self._do(op) for op in prepared]
        os.setgroups(groups)
        os.setegid(gid)
        os.seteuid(uid)
        for op in done:
            said.append(self._do(op))
            if said[-1] is None:
                break
        os.seteuid(0)
        os.setegid(0)
        os.setgroups([])
        return said, self._seen()

    def _do(self, op: Op) -> Any:
        try:
            return getattr(self, op[0])(*op[1:])
        except OSError as error:
            return error.errno

    def _seen(self) -> dict[str, Any]:
        top = self._place
        paths = [top]
        for place, directories, files in os.walk(top):
            paths += [os.path.join(place, name) for name in (*directories, *files)]
        return {path[len(top) :]: self._facts(path) for path in paths}

    def _facts(self, path: str) -> Any:
        it = os.lstat(path)
        there = os.listxattr(path, follow_symlinks=False)
        xattrs = {
            name: os.getxattr(path, name, follow_symlinks=False) for name in XATTRS if name in there
        }
        size = it.st_size if stat.S_ISREG(it.st_mode) else 0
        return it.st_mode, it.st_uid, it.st_gid, it.st_nlink, it.st_rdev, size, xattrs

    # Operations

    def stat(self, path: str) -> int:
        return os.lstat(self._place + path).st_mode

    def names(self, path: str) -> list[str]:
        return sorted(os.listdir(self._place + path))

    def access(self, path: str, wanted: int) -> bool:
        return os.access(self._place + path, wanted, effective_ids=True)

    def open(self, path: str, flags: int) -> str:
        os.close(os.open(self._place + path, flags))
        return "opened"

    def write(self, path: str) -> str:
        fd = os.open(self._place + path, os.O_WRONLY)
        os.write(fd, b"data")
        os.close(fd)
        return "written"

    def create(self, path: str, flags: int, mode: int) -> str | None:
        try:
            directory = os.stat(os.path.dirname(self._place + path))
            there = os.lstat(self._place + path)
        except OSError:
            pass
        else:
            if directory.st_mode & stat.S_ISVTX and there.st_uid != directory.st_uid:
                return None  # protected_regular, protected_fifos
        fd = os.open(self._place + path, flags | os.O_CREAT, mode)
        if flags & os.O_ACCMODE != os.O_RDONLY:
            os.write(fd, b"data")
            os.ftruncate(fd, 2)
        os.close(fd)
        return "created"

    def mkdir(self, path: str, mode: int) -> str:
        os.mkdir(self._place + path, mode)
        return "made"

    def symlink(self, path: str) -> str:
        os.symlink("target", self._place + path)
        return "made"

    def mknod(self, path: str, mode: int, rdev: int) -> str:
        os.mknod(self._place + path, mode, rdev)
        return "made"

    def link(self, path: str, new: str) -> str | None:
        try:
            it = os.lstat(self._place + path)
            safe = stat.S_ISREG(it.st_mode) and not it.st_mode & (stat.S_ISUID | stat.S_ISGID)
            safe = safe and self.access(path, os.R_OK | os.W_OK)
            if not safe and os.geteuid() not in (0, it.st_uid):
                return None  # protected_hardlinks
        except OSError:
            pass
        os.link(self._place + path, self._place + new, follow_symlinks=False)
        return "linked"

    def unlink(self, path: str) -> str:
        os.unlink(self._place + path)
        return "removed"

    def rmdir(self, path: str) -> str:
        os.rmdir(self._place + path)
        return "removed"

    def rename(self, path: str, new: str) -> str:
        os.rename(self._place + path, self._place + new)
        return "renamed"

    def chmod(self, path: str, mode: int) -> str:
        os.chmod(self._place + path, mode)
        return "changed"

    def chown(self, path: str, uid: int, gid: int) -> str:
        os.lchown(self._place + path, uid, gid)
        return "changed"

    def truncate(self, path: str, size: int) -> str:
        os.truncate(self._place + path, size)
        return "changed"

    def utime(self, path: str, atime: str, mtime: str) -> str:
        """Times are "now", "then" or "omit"."""
        nsec = {"now": UTIME_NOW, "omit": UTIME_OMIT, "then": 0}
        times = (ctypes.c_long * 4)(7, nsec[atime], 7, nsec[mtime])
        if self._libc.utimensat(AT_FDCWD, os.fsencode(self._place + path), times, 0):
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
        return "changed"

    def setxattr(self, path: str, name: str, value: bytes) -> str:
        os.setxattr(self._place + path, name, value, follow_symlinks=False)
        return "set"

    def getxattr(self, path: str, name: str) -> bytes:
        return os.getxattr(self._place + path, name, follow_symlinks=False)

    def removexattr(self, path: str, name: str) -> str:
        os.removexattr(self._place + path, name, follow_symlinks=False)
        return "removed"

    def listxattr(self, path: str) -> list[str]:
        there = os.listxattr(self._place + path, follow_symlinks=False)
        return sorted(set(there) & set(XATTRS))


def main() -> None:
    os.umask(0)
    judge = Judge()
    while True:
        try:
            case = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        pickle.dump(judge.judge(case), sys.stdout.buffer)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()

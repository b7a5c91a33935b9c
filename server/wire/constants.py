"""Numbers of 9P, named as in Linux' <net/9p/9p.h> and diod's protocol.md."""

from typing import Final

VERSION: Final = b"9P2000.L"
VERSION_OWN: Final = b"9P2000.L.tmpfs9p"
VERSION_UNIX: Final = b"9P2000.u"
VERSION_PLAIN: Final = b"9P2000"
VERSION_UNKNOWN: Final = b"unknown"

NOTAG: Final = 0xFFFF
NOFID: Final = 0xFFFFFFFF
NONUNAME: Final = 0xFFFFFFFF

#: The smallest msize that Linux clients accept.
MSIZE_MIN: Final = 4096
#: What a read or write message may take besides its data (P9_IOHDRSZ).
IOHDRSZ: Final = 24
#: Most names in one Twalk (MAXWELEM of intro(5)).
MAXWELEM: Final = 16

# Qid types
QTDIR: Final = 0x80
QTSYMLINK: Final = 0x02
QTFILE: Final = 0x00

# Flags of Tlopen and Tlcreate (asm-generic/fcntl.h)
O_ACCMODE: Final = 0o3
O_RDONLY: Final = 0o0
O_WRONLY: Final = 0o1
O_RDWR: Final = 0o2
O_CREAT: Final = 0o100
O_EXCL: Final = 0o200
O_TRUNC: Final = 0o1000
O_APPEND: Final = 0o2000
O_DIRECTORY: Final = 0o200000

# 9P2000 and 9P2000.u: modes of Topen and Tcreate (open(5)); OAPPEND is of 9P2000.u
OREAD: Final = 0x00
OWRITE: Final = 0x01
ORDWR: Final = 0x02
OEXEC: Final = 0x03
OTRUNC: Final = 0x10
OCEXEC: Final = 0x20
ORCLOSE: Final = 0x40
OAPPEND: Final = 0x80

# 9P2000 and 9P2000.u: bits of a file's mode above its permissions (stat(5)); those from DMSYMLINK
# on are of 9P2000.u
DMDIR: Final = 0x80000000
DMAPPEND: Final = 0x40000000
DMEXCL: Final = 0x20000000
DMTMP: Final = 0x04000000
DMSYMLINK: Final = 0x02000000
DMLINK: Final = 0x01000000
DMDEVICE: Final = 0x00800000
DMNAMEDPIPE: Final = 0x00200000
DMSOCKET: Final = 0x00100000
DMSETUID: Final = 0x00080000
DMSETGID: Final = 0x00040000
DMSETVTX: Final = 0x00010000

#: In a Twstat: leave it as it is (stat(5)), by the size of the field.
KEEP32: Final = 0xFFFFFFFF
KEEP64: Final = 0xFFFFFFFFFFFFFFFF

# Bits of Tgetattr's request_mask and Rgetattr's valid
GETATTR_BASIC: Final = 0x000007FF
GETATTR_ALL: Final = 0x00003FFF

# Bits of Tsetattr's valid
SETATTR_MODE: Final = 0x001
SETATTR_UID: Final = 0x002
SETATTR_GID: Final = 0x004
SETATTR_SIZE: Final = 0x008
SETATTR_ATIME: Final = 0x010
SETATTR_MTIME: Final = 0x020
SETATTR_CTIME: Final = 0x040
SETATTR_ATIME_SET: Final = 0x080
SETATTR_MTIME_SET: Final = 0x100

# Tunlinkat's flags
AT_REMOVEDIR: Final = 0x200

# Txattrcreate's flags (<linux/xattr.h>)
XATTR_CREATE: Final = 1
XATTR_REPLACE: Final = 2

# Tlock
LOCK_TYPE_RDLCK: Final = 0
LOCK_TYPE_WRLCK: Final = 1
LOCK_TYPE_UNLCK: Final = 2
LOCK_FLAGS_BLOCK: Final = 1
LOCK_SUCCESS: Final = 0
LOCK_BLOCKED: Final = 1

#: f_type of Rstatfs (V9FS_MAGIC of <linux/magic.h>).
V9FS_MAGIC = 0x01021997

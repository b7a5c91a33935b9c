"""Numbers of 9P2000.L, named as in Linux' <net/9p/9p.h> and diod's protocol.md."""

VERSION = b"9P2000.L"
VERSION_UNKNOWN = b"unknown"

NOTAG = 0xFFFF
NOFID = 0xFFFFFFFF
NONUNAME = 0xFFFFFFFF

#: The smallest msize that Linux clients accept.
MSIZE_MIN = 4096
#: What a read or write message may take besides its data (P9_IOHDRSZ).
IOHDRSZ = 24
#: Most names in one Twalk (MAXWELEM of intro(5)).
MAXWELEM = 16

# Qid types
QTDIR = 0x80
QTSYMLINK = 0x02
QTFILE = 0x00

# Flags of Tlopen and Tlcreate (asm-generic/fcntl.h)
O_ACCMODE = 0o3
O_RDONLY = 0o0
O_WRONLY = 0o1
O_RDWR = 0o2
O_CREAT = 0o100
O_EXCL = 0o200
O_TRUNC = 0o1000
O_APPEND = 0o2000
O_DIRECTORY = 0o200000

# Bits of Tgetattr's request_mask and Rgetattr's valid
GETATTR_BASIC = 0x000007FF
GETATTR_ALL = 0x00003FFF

# Bits of Tsetattr's valid
SETATTR_MODE = 0x001
SETATTR_UID = 0x002
SETATTR_GID = 0x004
SETATTR_SIZE = 0x008
SETATTR_ATIME = 0x010
SETATTR_MTIME = 0x020
SETATTR_CTIME = 0x040
SETATTR_ATIME_SET = 0x080
SETATTR_MTIME_SET = 0x100

# Tunlinkat's flags
AT_REMOVEDIR = 0x200

# Txattrcreate's flags (<linux/xattr.h>)
XATTR_CREATE = 1
XATTR_REPLACE = 2

# Tlock
LOCK_TYPE_RDLCK = 0
LOCK_TYPE_WRLCK = 1
LOCK_TYPE_UNLCK = 2
LOCK_FLAGS_BLOCK = 1
LOCK_SUCCESS = 0
LOCK_BLOCKED = 1

#: f_type of Rstatfs (V9FS_MAGIC of <linux/magic.h>).
V9FS_MAGIC = 0x01021997

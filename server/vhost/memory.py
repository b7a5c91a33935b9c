"""Memory: a guest's memory, as its VMM shares it.

Rules of this file:

* Whatever address comes from outside, all that it stands for must be in the table.
* A region stays mapped as long as some view of it is in use: to replace the table pulls nothing
  from under anybody.
* A mapping is of whole pages of the file, which may be huge.
* A file that shrinks while it is mapped is SIGBUS for who touches it.  Where the file can be sealed
  against that, it is; where not, the VMM is trusted.
"""

import fcntl
import mmap
import os
import stat
from contextlib import suppress
from typing import Final, NamedTuple

#: Regions in a table at the most.
SLOTS: Final = 64


class VhostError(Exception):
    """What a VMM or its guest did that can not be; the device stops."""


class Place(NamedTuple):
    """Where a region is: addresses and sizes in bytes, as the protocol has them.

    Attributes:
        guest: its address in the guest.
        size: of it.
        user: its address in the VMM.
        offset: where it begins in its file.
    """

    guest: int
    size: int
    user: int
    offset: int


class Region:
    """A mapped region.

    Raises:
        VhostError: it can not be mapped.
    """

    __slots__ = ("guest", "place", "size", "user", "view")

    def __init__(self, place: Place, fd: int) -> None:
        self.place = place
        self.guest, self.size, self.user, offset = place
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise VhostError("memory that is not a file")
        if not self.size:
            raise VhostError("a region of no memory")
        page = status.st_blksize
        start = offset // page * page
        stop = min((offset + self.size + page - 1) // page * page, status.st_size)
        if stop < offset + self.size:
            raise VhostError(f"{self.size} bytes at {offset} of a file of {status.st_size}")
        with suppress(OSError):  # it has been made so that it can not be sealed
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
        try:
            mapping = mmap.mmap(fd, stop - start, offset=start)
        except (OSError, ValueError, OverflowError) as error:
            raise VhostError(f"memory that can not be mapped: {error}") from None
        self.view = memoryview(mapping)[offset - start : offset - start + self.size]


class Memory:
    """The table of regions."""

    __slots__ = ("_regions",)

    def __init__(self) -> None:
        self._regions: list[Region] = []

    def replace(self, regions: list[Region]) -> None:
        """Have these regions and no others.

        Raises:
            VhostError: they overlap.
        """
        table = sorted(regions, key=lambda region: region.guest)
        for i in range(1, len(table)):
            if table[i - 1].guest + table[i - 1].size > table[i].guest:
                raise VhostError("regions of memory that overlap")
        self._regions = table

    def add(self, region: Region) -> None:
        """Have one more.

        Raises:
            VhostError: it overlaps another, or there are too many.
        """
        if len(self._regions) >= SLOTS:
            raise VhostError(f"more than {SLOTS} regions of memory")
        self.replace([*self._regions, region])

    def remove(self, place: Place) -> None:
        """Have one less.

        Raises:
            VhostError: there is none at that place.
        """
        rest = [region for region in self._regions if region.place[:3] != place[:3]]
        if len(rest) == len(self._regions):
            raise VhostError("no such region of memory")
        self._regions = rest

    def view(self, address: int, most: int) -> memoryview:
        """Up to so many bytes of the guest from ``address``: fewer where its region ends.

        Raises:
            VhostError: there is no memory.
        """
        for region in self._regions:
            start = address - region.guest
            if 0 <= start < region.size:
                return region.view[start : start + most]
        raise VhostError(f"{address:#x} is not in the guest's memory")

    def at_user(self, address: int, length: int) -> memoryview:
        """``length`` bytes at an address of the VMM.

        Raises:
            VhostError: they are not in one region.
        """
        for region in self._regions:
            start = address - region.user
            if start >= 0 and start + length <= region.size:
                return region.view[start : start + length]
        raise VhostError(f"{length} bytes at the VMM's {address:#x} are not in a region")

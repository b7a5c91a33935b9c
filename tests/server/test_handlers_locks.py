"""handlers of locks: byte ranges, owners, and requests that wait for their turn."""

import errno
from collections.abc import Callable
from contextlib import suppress

import pytest

from server.wire import constants as c
from server.wire import messages as m
from server.wire.codec import Message

from .peer import UNKNOWN, MakePeer, Peer, raises_errno

SHARED, EXCLUSIVE, UNLOCK = c.LOCK_TYPE_RDLCK, c.LOCK_TYPE_WRLCK, c.LOCK_TYPE_UNLCK
GRANTED, BLOCKED = c.LOCK_SUCCESS, c.LOCK_BLOCKED
WAIT = c.LOCK_FLAGS_BLOCK
LAST = (1 << 64) - 1


def tlock(
    fid: int,
    kind: int = EXCLUSIVE,
    start: int = 0,
    length: int = 0,
    *,
    flags: int = 0,
    proc: int = 1,
    host: bytes = b"host",
) -> m.Tlock:
    return m.Tlock(fid, kind, flags, start, length, proc, host)


def lock(
    peer: Peer,
    fid: int,
    kind: int = EXCLUSIVE,
    start: int = 0,
    length: int = 0,
    *,
    proc: int = 1,
    host: bytes = b"host",
) -> int:
    """Ask for a lock; the status."""
    status: int = peer.call(tlock(fid, kind, start, length, proc=proc, host=host)).status
    return status


def holder(
    peer: Peer, fid: int, kind: int, start: int, length: int, proc: int = 99
) -> tuple[int, int, int, int, bytes] | None:
    """What process ``proc`` learns with Tgetlock: (type, start, length, process, host)."""
    told = peer.call(m.Tgetlock(fid, kind, start, length, proc, b"host"))
    if told.type == UNLOCK:
        assert (told.start, told.length, told.proc_id) == (start, length, proc)
        return None
    return told.type, told.start, told.length, told.proc_id, told.client_id


def taken(peer: Peer, fid: int, kind: int = SHARED) -> str:
    """Bytes 0 to 9: which of them another process could not lock so."""
    return "".join("X" if holder(peer, fid, kind, byte, 1) else "." for byte in range(10))


@pytest.fixture
def file(peer: Peer) -> int:
    return peer.create(b"file")


# Conflicts


def test_shared_locks_go_together(peer: Peer, file: int) -> None:
    assert lock(peer, file, SHARED, proc=1) == GRANTED
    assert lock(peer, file, SHARED, proc=2) == GRANTED


@pytest.mark.parametrize(("first", "second"), [(EXCLUSIVE, SHARED), (SHARED, EXCLUSIVE)])
def test_an_exclusive_lock_is_alone(peer: Peer, file: int, first: int, second: int) -> None:
    assert lock(peer, file, first, proc=1) == GRANTED
    assert lock(peer, file, second, proc=2) == BLOCKED


def test_only_ranges_that_overlap_conflict(peer: Peer, file: int) -> None:
    assert lock(peer, file, EXCLUSIVE, 10, 10, proc=1) == GRANTED
    assert lock(peer, file, EXCLUSIVE, 0, 10, proc=2) == GRANTED
    assert lock(peer, file, EXCLUSIVE, 20, 0, proc=2) == GRANTED
    assert lock(peer, file, EXCLUSIVE, 19, 1, proc=2) == BLOCKED


def test_length_0_reaches_to_the_end_however_far(peer: Peer, file: int) -> None:
    lock(peer, file, EXCLUSIVE, 5, 0)
    assert lock(peer, file, EXCLUSIVE, LAST, 1, proc=2) == BLOCKED
    assert lock(peer, file, EXCLUSIVE, 0, 5, proc=2) == GRANTED


def test_files_are_locked_apart(peer: Peer, file: int) -> None:
    lock(peer, file)
    assert lock(peer, peer.create(b"other"), proc=2) == GRANTED


def test_all_fids_of_a_file_share_its_locks(peer: Peer, file: int) -> None:
    lock(peer, file)
    assert lock(peer, peer.open(b"file"), proc=2) == BLOCKED


# Owners


def test_an_owner_is_a_process_of_a_host_on_a_connection(peers: MakePeer) -> None:
    peer, other = peers(), peers()
    file, same = peer.create(b"file"), other.open(b"file")
    lock(peer, file, proc=1, host=b"host")
    assert lock(peer, file, proc=1, host=b"host") == GRANTED
    assert lock(peer, file, proc=2, host=b"host") == BLOCKED
    assert lock(peer, file, proc=1, host=b"another") == BLOCKED
    assert lock(other, same, proc=1, host=b"host") == BLOCKED


# What an owner holds changes


def test_an_owner_upgrades_and_downgrades(peer: Peer, file: int) -> None:
    lock(peer, file, SHARED, 0, 10)
    assert lock(peer, file, EXCLUSIVE, 0, 10) == GRANTED
    assert taken(peer, file) == "XXXXXXXXXX"
    assert lock(peer, file, SHARED, 0, 10) == GRANTED
    assert taken(peer, file) == ".........."
    assert taken(peer, file, EXCLUSIVE) == "XXXXXXXXXX"


def test_an_upgrade_waits_for_the_other_readers(peer: Peer, file: int) -> None:
    for proc in (1, 2):
        lock(peer, file, SHARED, proc=proc)
    assert lock(peer, file, EXCLUSIVE, proc=1) == BLOCKED
    lock(peer, file, UNLOCK, proc=2)
    assert lock(peer, file, EXCLUSIVE, proc=1) == GRANTED


def test_unlocking_the_middle_splits(peer: Peer, file: int) -> None:
    lock(peer, file, EXCLUSIVE, 0, 10)
    assert lock(peer, file, UNLOCK, 3, 4) == GRANTED
    assert taken(peer, file) == "XXX....XXX"
    assert holder(peer, file, SHARED, 8, 1) == (EXCLUSIVE, 7, 3, 1, b"host")


def test_a_change_in_the_middle_splits(peer: Peer, file: int) -> None:
    lock(peer, file, EXCLUSIVE, 0, 10)
    lock(peer, file, SHARED, 3, 4)
    assert taken(peer, file) == "XXX....XXX"
    assert taken(peer, file, EXCLUSIVE) == "XXXXXXXXXX"


def test_neighbours_merge(peer: Peer, file: int) -> None:
    lock(peer, file, EXCLUSIVE, 0, 3)
    lock(peer, file, EXCLUSIVE, 6, 4)
    lock(peer, file, EXCLUSIVE, 3, 3)
    assert holder(peer, file, SHARED, 5, 1) == (EXCLUSIVE, 0, 10, 1, b"host")


def test_unlocking_touches_nobody_else(peer: Peer, file: int) -> None:
    lock(peer, file, SHARED, 0, 10, proc=1)
    lock(peer, file, SHARED, 0, 10, proc=2)
    lock(peer, file, UNLOCK, 0, 0, proc=1)
    assert taken(peer, file, EXCLUSIVE) == "XXXXXXXXXX"


def test_unlocking_what_is_not_locked_is_no_error(peer: Peer, file: int) -> None:
    assert lock(peer, file, UNLOCK) == GRANTED


# Tgetlock


def test_getlock_tells_who_is_in_the_way(peer: Peer, file: int) -> None:
    lock(peer, file, EXCLUSIVE, 5, 10, proc=7, host=b"box")
    assert holder(peer, file, SHARED, 0, 100) == (EXCLUSIVE, 5, 10, 7, b"box")


def test_getlock_tells_length_0_of_a_lock_to_the_end(peer: Peer, file: int) -> None:
    lock(peer, file, SHARED, 5, 0)
    assert holder(peer, file, EXCLUSIVE, 0, 0) == (SHARED, 5, 0, 1, b"host")


def test_getlock_tells_of_the_first_in_the_way(peer: Peer, file: int) -> None:
    lock(peer, file, EXCLUSIVE, 20, 5, proc=1)
    lock(peer, file, EXCLUSIVE, 10, 5, proc=2)
    assert holder(peer, file, SHARED, 0, 0) == (EXCLUSIVE, 10, 5, 2, b"host")


def test_nobody_is_in_the_way_of_himself(peer: Peer, file: int) -> None:
    lock(peer, file, EXCLUSIVE, 0, 10)
    assert holder(peer, file, EXCLUSIVE, 0, 10, proc=1) is None


def test_getlock_takes_nothing(peer: Peer, file: int) -> None:
    assert holder(peer, file, EXCLUSIVE, 0, 10) is None
    assert taken(peer, file) == ".........."


def test_a_holder_with_a_long_name_makes_no_reply_larger_than_msize(peers: MakePeer) -> None:
    peer, small = peers(), peers(msize=c.MSIZE_MIN)
    file, same = peer.create(b"file"), small.open(b"file")
    with suppress(OSError):  # so long a name may be refused
        lock(peer, file, host=b"h" * 60000)
    small.send(m.Tgetlock(same, SHARED, 0, 0, 1, b"host"))  # the peer checks each reply's size
    assert len(small.settle()) == 1


# Refusals


@pytest.mark.parametrize("request_of", [tlock, lambda fid: m.Tgetlock(fid, 0, 0, 0, 1, b"host")])
def test_only_an_open_fid_can_lock(
    peer: Peer, file: int, request_of: Callable[[int], Message]
) -> None:
    for fid in (peer.walk(b"file"), UNKNOWN):
        with raises_errno(errno.EBADF):
            peer.call(request_of(fid))


@pytest.mark.parametrize(
    ("kind", "start", "length"), [(3, 0, 0), (255, 0, 0), (SHARED, LAST, 2), (SHARED, 2, LAST)]
)
def test_a_lock_that_can_not_be_is_refused(
    peer: Peer, file: int, kind: int, start: int, length: int
) -> None:
    with raises_errno(errno.EINVAL):
        lock(peer, file, kind, start, length)
    with raises_errno(errno.EINVAL):
        holder(peer, file, kind, start, length)


def test_the_largest_range_is_everything(peer: Peer, file: int) -> None:
    assert lock(peer, file, EXCLUSIVE, 1, LAST) == GRANTED
    assert holder(peer, file, SHARED, 0, 0) == (EXCLUSIVE, 1, 0, 1, b"host")


# When a fid goes


def test_clunk_releases_what_was_locked_through_the_fid(peer: Peer, file: int) -> None:
    other = peer.open(b"file")
    lock(peer, file, EXCLUSIVE, 0, 5)
    lock(peer, other, EXCLUSIVE, 5, 5)
    peer.clunk(other)
    assert taken(peer, file) == "XXXXX....."


def test_remove_releases_what_was_locked_through_the_fid(peer: Peer, file: int) -> None:
    watcher = peer.open(b"file")
    lock(peer, file)
    peer.call(m.Tremove(file))
    assert taken(peer, watcher) == ".........."


def test_the_end_of_a_connection_releases_its_locks(peers: MakePeer) -> None:
    peer, other = peers(), peers()
    watcher = peer.create(b"file")
    lock(other, other.open(b"file"))
    other.close()
    assert lock(peer, watcher) == GRANTED


def test_a_new_version_releases_the_locks(peers: MakePeer) -> None:
    peer, other = peers(), peers()
    watcher = peer.create(b"file")
    lock(other, other.open(b"file"))
    other.begin()
    assert lock(peer, watcher) == GRANTED


# Requests that wait; tag = process


def wait(peer: Peer, fid: int, proc: int, kind: int = EXCLUSIVE) -> None:
    """Let process ``proc`` wait for a lock on the whole file, with a tag of that number."""
    peer.send(tlock(fid, kind, flags=WAIT, proc=proc), tag=proc)


def test_a_free_lock_needs_no_wait(peer: Peer, file: int) -> None:
    assert peer.call(tlock(file, flags=WAIT)).status == GRANTED


def test_a_waiter_gets_the_lock_when_it_is_released(peer: Peer, file: int) -> None:
    lock(peer, file, proc=1)
    wait(peer, file, proc=2)
    assert peer.settle() == []
    lock(peer, file, UNLOCK, proc=1)
    assert peer.settle() == [(2, m.Rlock(GRANTED))]
    assert lock(peer, file, proc=3) == BLOCKED


def test_a_waiter_of_another_connection_gets_the_lock(peers: MakePeer) -> None:
    peer, other = peers(), peers()
    file, same = peer.create(b"file"), other.open(b"file")
    lock(peer, file)
    wait(other, same, proc=2)
    peer.clunk(file)
    assert other.settle() == [(2, m.Rlock(GRANTED))]


def test_a_waiter_gets_the_lock_of_a_connection_that_ends(peers: MakePeer) -> None:
    peer, other = peers(), peers()
    lock(peer, peer.create(b"file"))
    wait(other, other.open(b"file"), proc=2)
    peer.close()
    assert other.settle() == [(2, m.Rlock(GRANTED))]


def test_a_lock_released_in_the_same_moment_is_not_missed(peer: Peer, file: int) -> None:
    lock(peer, file, proc=1)
    asked = tlock(file, flags=WAIT, proc=2).frame(2)
    released = tlock(file, UNLOCK, proc=1).frame(1)
    peer.feed(asked + released)
    assert sorted(tag for tag, _ in peer.settle()) == [1, 2]


def test_a_release_that_is_not_enough_lets_the_waiter_wait(peer: Peer, file: int) -> None:
    for proc in (1, 2):
        lock(peer, file, SHARED, proc=proc)
    wait(peer, file, proc=3)
    lock(peer, file, UNLOCK, proc=1)
    assert peer.settle() == []
    lock(peer, file, UNLOCK, proc=2)
    assert peer.settle() == [(3, m.Rlock(GRANTED))]


def test_waiters_take_turns_in_the_order_in_which_they_came(peer: Peer, file: int) -> None:
    lock(peer, file, proc=1)
    for proc in (2, 3, 4):
        wait(peer, file, proc)
    for proc in (2, 3, 4):
        lock(peer, file, UNLOCK, proc=proc - 1)
        assert peer.settle() == [(proc, m.Rlock(GRANTED))]


def test_all_waiting_readers_go_at_once(peer: Peer, file: int) -> None:
    lock(peer, file, proc=1)
    for proc in (2, 3):
        wait(peer, file, proc, SHARED)
    lock(peer, file, SHARED, proc=1)
    assert peer.settle() == [(2, m.Rlock(GRANTED)), (3, m.Rlock(GRANTED))]


def test_other_requests_are_answered_while_one_waits(peer: Peer, file: int) -> None:
    lock(peer, file, proc=1)
    wait(peer, file, proc=2)
    peer.write(file, b"data")
    assert peer.read(file) == b"data"
    assert peer.settle() == []


def test_a_wait_ends_with_blocked_when_its_time_is_over(peers: MakePeer) -> None:
    peer = peers(lock_wait=0.0)
    file = peer.create(b"file")
    lock(peer, file, proc=1)
    assert peer.call(tlock(file, flags=WAIT, proc=2)).status == BLOCKED
    lock(peer, file, UNLOCK, proc=1)
    assert lock(peer, file, proc=3) == GRANTED  # the waiter took nothing later


def test_a_waiter_whose_fid_was_clunked_gets_nothing(peer: Peer, file: int) -> None:
    lock(peer, file, proc=1)
    other = peer.open(b"file")
    wait(peer, other, proc=2)
    peer.clunk(other)
    lock(peer, file, UNLOCK, proc=1)
    assert peer.settle() == [(2, m.Rlerror(errno.EBADF))]
    assert lock(peer, file, proc=3) == GRANTED


def test_a_waiter_does_not_take_the_lock_for_another_fid_of_its_number(
    peer: Peer, file: int
) -> None:
    lock(peer, file, proc=1)
    other = peer.open(b"file")
    wait(peer, other, proc=2)
    peer.clunk(other)
    peer.call(m.Twalk(file, other, []))
    peer.call(m.Tlopen(other, c.O_RDWR))
    lock(peer, file, UNLOCK, proc=1)
    assert peer.settle() == [(2, m.Rlerror(errno.EBADF))]
    assert lock(peer, file, proc=3) == GRANTED


def test_a_flushed_waiter_gets_nothing(peer: Peer, file: int) -> None:
    lock(peer, file, proc=1)
    wait(peer, file, proc=2)
    peer.call(m.Tflush(2), tag=9)
    lock(peer, file, UNLOCK, proc=1)
    assert peer.settle() == []
    assert lock(peer, file, proc=3) == GRANTED


def test_a_waiter_that_is_flushed_when_the_lock_comes_free_leaves_it_to_the_next(
    peer: Peer, file: int
) -> None:
    lock(peer, file, proc=1)
    wait(peer, file, proc=2)
    wait(peer, file, proc=3)
    peer.feed(tlock(file, UNLOCK, proc=1).frame(1) + m.Tflush(2).frame(9))
    arrived = dict(peer.settle())
    assert arrived[9] == m.Rflush()
    assert arrived[3] == m.Rlock(GRANTED)
    assert 2 not in arrived


def test_a_connection_that_ends_while_it_waits_gets_nothing(peers: MakePeer) -> None:
    peer, other = peers(), peers()
    file = peer.create(b"file")
    lock(peer, file, proc=1)
    wait(other, other.open(b"file"), proc=2)
    other.close()
    lock(peer, file, UNLOCK, proc=1)
    assert other.settle() == []
    assert lock(peer, file, proc=3) == GRANTED

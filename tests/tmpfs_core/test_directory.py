"""directory: names, and cookies that let a listing go on across changes."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tmpfs_core.directory import DOTDOT, Directory, Dirent
from tmpfs_core.mount import Mount
from tmpfs_core.node import Node

from .support import make_file


@pytest.fixture
def node(mount: Mount) -> Node:
    return make_file(mount)


def add(directory: Directory, name: bytes, node: Node) -> Dirent:
    entry = Dirent(name, node)
    directory.add(entry)
    directory.check()
    return entry


def listed(directory: Directory, cookie: int = 0) -> list[bytes]:
    return [entry.name for entry in directory.after(cookie)]


def test_a_new_directory_is_empty() -> None:
    directory = Directory()
    assert len(directory) == 0
    assert listed(directory) == []
    assert directory.find(b"a") is None


def test_an_entry_is_found_by_its_name_until_it_is_removed(node: Node) -> None:
    directory = Directory()
    entry = add(directory, b"a", node)
    assert directory.find(b"a") is entry
    assert len(directory) == 1
    directory.remove(entry)
    assert directory.find(b"a") is None
    assert len(directory) == 0
    assert listed(directory) == []


def test_names_are_bytes_and_case_matters(node: Node) -> None:
    directory = Directory()
    for name in (b"a", b"A", b"\xff\xfe", "å".encode()):
        add(directory, name, node)
    assert listed(directory) == [b"a", b"A", b"\xff\xfe", "å".encode()]


def test_entries_are_listed_in_the_order_in_which_they_came(node: Node) -> None:
    directory = Directory()
    for name in (b"z", b"a", b"m"):
        add(directory, name, node)
    assert listed(directory) == [b"z", b"a", b"m"]


def test_cookies_grow_and_leave_room_for_dot_and_dotdot(node: Node) -> None:
    directory = Directory()
    cookies = [add(directory, b"%d" % i, node).cookie for i in range(5)]
    assert cookies == sorted(set(cookies))
    assert cookies[0] > DOTDOT


def test_a_cookie_never_comes_back(node: Node) -> None:
    directory = Directory()
    given_out = set()
    for _ in range(100):
        entry = add(directory, b"same", node)
        given_out.add(entry.cookie)
        directory.remove(entry)
        directory.check()
    assert len(given_out) == 100


def test_listing_starts_behind_the_cookie(node: Node) -> None:
    directory = Directory()
    entries = [add(directory, b"%d" % i, node) for i in range(4)]
    assert listed(directory, entries[1].cookie) == [b"2", b"3"]
    assert listed(directory, entries[3].cookie) == []
    assert listed(directory, (1 << 64) - 1) == []


@pytest.mark.parametrize("cookie", [0, 1, 2])
def test_dot_and_dotdot_come_before_the_first_entry(node: Node, cookie: int) -> None:
    directory = Directory()
    add(directory, b"first", node)
    assert listed(directory, cookie) == [b"first"]


def test_listing_goes_on_behind_an_entry_that_has_gone(node: Node) -> None:
    directory = Directory()
    entries = [add(directory, b"%d" % i, node) for i in range(4)]
    directory.remove(entries[1])
    assert listed(directory, entries[1].cookie) == [b"2", b"3"]


def test_a_name_that_came_back_has_a_new_place(node: Node) -> None:
    directory = Directory()
    entries = [add(directory, name, node) for name in (b"a", b"b")]
    directory.remove(entries[0])
    add(directory, b"a", node)
    assert listed(directory) == [b"b", b"a"]


def test_dead_places_are_swept_out_and_listing_goes_on(node: Node) -> None:
    directory = Directory()
    stays = [add(directory, b"stays%d" % i, node) for i in range(3)]
    for i in range(1000):
        directory.remove(add(directory, b"%d" % i, node))
    add(directory, b"last", node)
    assert listed(directory, stays[1].cookie) == [b"stays2", b"last"]
    assert len(directory._listed) < 100


#: What happens between two pieces of a listing: which of ten names are added or removed.
changes = st.lists(st.integers(0, 9), max_size=20)


@settings(derandomize=True, deadline=None, max_examples=300)
@given(st.sets(st.integers(0, 9)), st.lists(st.tuples(st.integers(1, 4), changes), max_size=12))
def test_a_listing_in_pieces_sees_what_stays_exactly_once(
    first: set[int], pieces: list[tuple[int, list[int]]]
) -> None:
    node = Mount(0, 1).root
    directory = Directory()
    for i in first:
        add(directory, b"%d" % i, node)
    stays = set(directory.after(0))
    came: set[Dirent] = set()
    seen: list[Dirent] = []
    cookie = 0
    for count, toggled in [*pieces, (1000, [])]:
        for entry in list(directory.after(cookie))[:count]:
            assert directory.find(entry.name) is entry, "an entry that is not there"
            seen.append(entry)
            cookie = entry.cookie
        for i in toggled:
            entry_now = directory.find(b"%d" % i)
            if entry_now is None:
                came.add(add(directory, b"%d" % i, node))
            else:
                directory.remove(entry_now)
                directory.check()
                stays.discard(entry_now)
                came.discard(entry_now)
    assert len(seen) == len(set(seen)), "an entry twice"
    assert stays <= set(seen), "an entry that stayed was not seen"
    assert came <= set(seen), "an entry that came behind the cookie was not seen"

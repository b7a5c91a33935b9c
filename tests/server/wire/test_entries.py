"""entries: the records of a listing with attributes, and the attributes of two files."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.wire.codec import HEADER, Malformed, parse
from server.wire.entries import pack_entry, pack_two, split_entries, split_two
from server.wire.messages import Rgetattr

from ..strategies import messages

heads = st.integers(0, (1 << 64) - 1), st.booleans(), st.binary(max_size=255)
listings = st.lists(st.tuples(*heads, messages(Rgetattr)))


@settings(derandomize=True, deadline=None, max_examples=50)
@given(listings)
def test_entries_survive_a_round_trip(listing: list[tuple[int, bool, bytes, Rgetattr]]) -> None:
    data = b"".join(
        pack_entry(offset, xattrs, name, found.frame(1)) for offset, xattrs, name, found in listing
    )
    there = [(*head, Rgetattr(*fields)) for *head, fields in split_entries(data)]
    assert there == listing


def test_an_entry_is_offset_xattrs_name_attributes() -> None:
    attributes = Rgetattr.pack(0, 0, (0, 0, 0), *range(17), 0xFF)
    assert parse(attributes)
    entry = pack_entry(7, True, b"dir", attributes)
    assert entry == bytes.fromhex("0700000000000000 01 0300 646972") + attributes[HEADER.size :]


def test_the_attributes_of_two_files_stand_one_behind_the_other() -> None:
    first, second = (
        Rgetattr.pack(0, 0, (0, 0, 0), *range(number, 18 + number)) for number in (1, 2)
    )
    data = pack_two(first, second)
    assert data == first[HEADER.size :] + second[HEADER.size :]
    assert [Rgetattr(*fields).frame(0) for fields in split_two(data)] == [first, second]
    for wrong in (data[:-1], data + b"x", data[: len(data) // 2], b""):
        with pytest.raises(Malformed):
            split_two(wrong)

"""entries: the records of a listing with attributes."""

from hypothesis import given, settings
from hypothesis import strategies as st

from server.wire.codec import HEADER, parse
from server.wire.entries import pack_entry, split_entries
from server.wire.messages import Rgetattr

from ..strategies import messages

names = st.binary(max_size=255)
listings = st.lists(st.tuples(st.integers(0, (1 << 64) - 1), names, messages(Rgetattr)))


@settings(derandomize=True, deadline=None, max_examples=50)
@given(listings)
def test_entries_survive_a_round_trip(listing: list[tuple[int, bytes, Rgetattr]]) -> None:
    data = b"".join(pack_entry(offset, name, found.frame(1)) for offset, name, found in listing)
    there = [(offset, name, Rgetattr(*fields)) for offset, name, fields in split_entries(data)]
    assert there == listing


def test_an_entry_is_offset_name_attributes() -> None:
    attributes = Rgetattr.pack(0, 0, (0, 0, 0), *range(17), 0xFF)
    assert parse(attributes)
    entry = pack_entry(7, b"dir", attributes)
    assert entry == bytes.fromhex("0700000000000000 0300 646972") + attributes[HEADER.size :]

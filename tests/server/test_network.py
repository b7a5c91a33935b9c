"""network: which machines are among which."""

from ipaddress import ip_address

import pytest

from server.network import Cid, Machine, is_among, network


@pytest.mark.parametrize("text", ["10.0.0.0/8", "fd00::/8", "cid:3", "cid:any"])
def test_a_network_is_written_as_it_is_read(text: str) -> None:
    assert str(network(text)) == text


@pytest.mark.parametrize(
    ("machine", "networks", "among"),
    [
        (ip_address("10.1.2.3"), ["10.0.0.0/8"], True),
        (ip_address("10.1.2.3"), ["fd00::/8", "10.0.0.0/8"], True),
        (ip_address("10.1.2.3"), ["fd00::/8", "cid:any"], False),
        (ip_address("fd00::1"), ["10.0.0.0/8", "fd00::/8"], True),
        (Cid(3), ["cid:3"], True),
        (Cid(3), ["cid:4", "cid:any"], True),
        (Cid(3), ["cid:4", "0.0.0.0/0"], False),
        (Cid(3), [], False),
        (Cid(1), ["cid:any"], False),
        (Cid(1), ["cid:1"], True),
    ],
)
def test_a_machine_is_among_those_of_its_kind(
    machine: Machine, networks: list[str], among: bool
) -> None:
    assert is_among(machine, [network(text) for text in networks]) == among

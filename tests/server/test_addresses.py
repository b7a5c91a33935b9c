"""Addresses: what is read is what is written, and which machines are among which."""

from ipaddress import ip_address

import pytest

from server.addresses import Cid, Machine, Stdio, Tcp, Tls, Unix, Vsock, is_among, network, served


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("tcp://localhost:5640", Tcp("localhost", 5640)),
        ("tls://[::1]:5641", Tls("::1", 5641)),
        ("unix:///run/t9.sock", Unix("/run/t9.sock")),
        ("vsock://any:5640", Vsock(0xFFFFFFFF, 5640)),
        ("vsock://2:4294967294", Vsock(2, 0xFFFFFFFE)),
        ("stdio:", Stdio()),
    ],
)
def test_an_address_is_written_as_it_is_read(text: str, address: object) -> None:
    assert served(text) == address
    assert str(address) == text


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
        (Cid(1), ["cid:any"], False),  # whoever is on this machine is no virtual machine
        (Cid(1), ["cid:1"], True),
    ],
)
def test_a_machine_is_among_those_of_its_kind(
    machine: Machine, networks: list[str], among: bool
) -> None:
    assert is_among(machine, [network(text) for text in networks]) == among

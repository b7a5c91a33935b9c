"""address: where a server can listen and be connected to."""

import pwd

import pytest

from server.address import (
    Listened,
    Passed,
    Stdio,
    Tcp,
    Tls,
    Unix,
    VhostUser,
    Vsock,
    address,
    listened,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("tcp://127.0.0.1:5640", Tcp("127.0.0.1", 5640)),
        ("tcp://0.0.0.0:0", Tcp("0.0.0.0", 0)),
        ("tcp://host.example:65535", Tcp("host.example", 65535)),
        ("tcp://[::1]:564", Tcp("::1", 564)),
        ("tcp://[fe80::1]:564", Tcp("fe80::1", 564)),
        ("unix:///run/t9.sock", Unix("/run/t9.sock")),
        ("unix:///with space:1", Unix("/with space:1")),
        ("vsock://any:5640", Vsock(0xFFFFFFFF, 5640)),
        ("vsock://2:4294967294", Vsock(2, 0xFFFFFFFE)),
        ("stdio:", Stdio()),
        ("fd://", Passed("")),
        ("fd://tmpfs9p.socket", Passed("tmpfs9p.socket")),
        ("vhost-user:///run/t9.vu?tag=scratch", VhostUser("/run/t9.vu", "scratch")),
        ("vhost-user:///with?mark?tag=a.b-c_D", VhostUser("/with?mark", "a.b-c_D")),
        ("vhost-user:///vu?tag=t&user=107", VhostUser("/vu", "t", 107)),
    ],
)
def test_addresses_read_and_write_the_same(text: str, expected: Listened | Passed | Stdio) -> None:
    assert listened(text) == expected
    assert str(expected) == text


@pytest.mark.parametrize("text", ["fd://a:b", "fd:/", "fd://a b", "fd://" + "a" * 256])
def test_names_of_sockets_are_as_systemd_has_them(text: str) -> None:
    with pytest.raises(ValueError, match=r"fd://\[NAME\]"):
        listened(text)


def test_an_address_of_tls_is_not_that_without() -> None:
    assert address("tls://[::1]:1") == Tls("::1", 1)
    assert Tls("::1", 1) != Tcp("::1", 1)
    assert str(Tls("::1", 1)) == "tls://[::1]:1"


@pytest.mark.parametrize(
    "text",
    [
        "vhost-user:///vu",
        "vhost-user://vu?tag=t",
        "vhost-user:vu?tag=t",
        "vhost-user:///vu?tag=",
        "vhost-user:///vu?tag=two words",
        "vhost-user:///vu?tag=" + 32 * "t",
        "vhost-user:///vu?tag=t&more=1",
        "vhost-user:///vu?tag=t&user=",
        "vhost-user:///vu?tag=t&user=nobody-has-this-name",
        "vhost-user:///vu?tag=t&user=4294967295",
    ],
)
def test_what_a_device_is_not(text: str) -> None:
    with pytest.raises(ValueError, match="vhost-user:///PATH\\?tag=TAG, with &user=USER"):
        listened(text)


def test_the_user_of_a_vmm_may_be_a_name() -> None:
    daemon = pwd.getpwnam("daemon").pw_uid
    assert listened("vhost-user:///vu?tag=t&user=daemon") == VhostUser("/vu", "t", daemon)


def test_a_device_is_nothing_that_can_be_connected_to() -> None:
    with pytest.raises(ValueError, match=r"tcp://HOST:PORT, .* or vsock://CID:PORT$"):
        address("vhost-user:///vu?tag=t")
    with pytest.raises(ValueError, match=r"PATH\?tag=TAG, fd://\[NAME\], or stdio:$"):
        listened("here")

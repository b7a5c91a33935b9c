"""Identity: who is there, and on whose behalf he acts."""

import contextlib
import errno
import grp
import os
import pwd
import socket
import subprocess
import sys
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest

from server import identity
from server.exports import Export
from server.identity import (
    NOBODY,
    Peer,
    cred_of,
    group_name,
    group_named,
    peer_of,
    user_name,
    user_named,
)
from server.network import Cid, network
from server.wire.constants import NONUNAME
from tmpfs_core.access import Cred
from tmpfs_core.mount import Mount

from .peer import GUARD, raises_errno

ME = pwd.getpwuid(os.getuid())
DAEMON = pwd.getpwnam("daemon")
GROUPS = frozenset(os.getgrouplist(DAEMON.pw_name, DAEMON.pw_gid))
AFAR = ip_address("192.0.2.7")  # of nobody (RFC 5737)

ADMIN = Peer("admin", 0, True, None)
LOCAL = Peer("local", DAEMON.pw_uid, False, None)
UNKNOWN = Peer("unknown", None, False, None)
REMOTE = Peer("remote", None, True, AFAR)
MACHINE = Peer("machine", None, True, Cid(3))

#: Becomes another user, connects, says so, and stays until its input ends.
CONNECT = """
import os, socket, sys
family, address, uid = sys.argv[1:]
os.setgroups([]); os.setgid(int(uid)); os.setuid(int(uid))
sock = socket.socket(int(family))
sock.connect(eval(address))
print(flush=True)
sys.stdin.read()
"""


def has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="no IPv6 here")
needs_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")


@contextlib.contextmanager
def accepted(family: int, name: object) -> Iterator[socket.socket]:
    """The server's end of a connection that this process has made."""
    with socket.socket(family) as listening, socket.socket(family) as client:
        listening.bind(name)  # type: ignore[arg-type]
        listening.listen()
        client.connect(listening.getsockname())
        sock, _ = listening.accept()
        with sock:
            yield sock


@contextlib.contextmanager
def accepted_of(family: int, name: object, uid: int) -> Iterator[socket.socket]:
    """The server's end of a connection that a process of this user has made."""
    with socket.socket(family) as listening:
        listening.bind(name)  # type: ignore[arg-type]
        listening.listen()
        process = subprocess.Popen(
            [sys.executable, "-c", CONNECT, str(family), repr(listening.getsockname()), str(uid)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"\n"
            sock, _ = listening.accept()
            with sock:
                yield sock
        finally:
            process.communicate(timeout=GUARD)


# Who is there

SOCKETS = [
    pytest.param(int(socket.AF_UNIX), f"\0t9-{os.getpid()}", id="unix"),  # the same each time
    (int(socket.AF_INET), ("127.0.0.1", 0)),
    (int(socket.AF_INET), ("127.9.8.7", 0)),
    pytest.param(int(socket.AF_INET6), ("::1", 0), marks=needs_ipv6),
]


@pytest.mark.parametrize(("family", "name"), SOCKETS)
def test_the_servers_own_user_is_trusted(family: int, name: object) -> None:
    with accepted(family, name) as sock:
        peer = peer_of(sock)
    assert (peer.uid, peer.trusted, peer.address) == (os.getuid(), True, None)


@needs_root
@pytest.mark.parametrize(("family", "name"), SOCKETS)
def test_another_user_is_who_he_is_and_not_trusted(family: int, name: object) -> None:
    with accepted_of(family, name, DAEMON.pw_uid) as sock:
        peer = peer_of(sock)
    assert (peer.uid, peer.trusted, peer.address) == (DAEMON.pw_uid, False, None)


@needs_root
def test_root_is_trusted_by_a_server_that_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: DAEMON.pw_uid)
    with accepted(socket.AF_INET, ("127.0.0.1", 0)) as sock:
        assert peer_of(sock).trusted
    with accepted_of(socket.AF_INET, ("127.0.0.1", 0), DAEMON.pw_uid) as sock:
        assert peer_of(sock).trusted
    with accepted_of(socket.AF_INET, ("127.0.0.1", 0), NOBODY) as sock:
        assert not peer_of(sock).trusted


@needs_ipv6
@pytest.mark.parametrize(
    ("family", "host", "name"),
    [
        (socket.AF_INET, "127.0.0.1", "127.0.0.1"),
        (socket.AF_INET6, "::ffff:127.0.0.1", "127.0.0.1"),
        (socket.AF_INET6, "::1", "[::1]"),
    ],
)
def test_ipv4_on_an_ipv6_socket_is_ipv4(family: int, host: str, name: str) -> None:
    with (
        socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as listening,
        socket.socket(family) as client,
    ):
        client.connect((host, listening.getsockname()[1]))
        sock, _ = listening.accept()
        with sock:
            peer = peer_of(sock)
    assert (peer.name.rpartition(":")[0], peer.uid) == (name, os.getuid())


def test_who_has_closed_his_socket_is_unknown_and_not_root() -> None:
    """The kernel says of a socket that no process has that it belongs to user 0."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        client = socket.create_connection(listening.getsockname())
        sock, _ = listening.accept()
        with sock:
            client.close()
            peer = peer_of(sock)
    assert (peer.uid, peer.trusted, peer.address) == (None, False, None)


def test_who_has_ended_his_half_is_still_who_he_is() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listening,
        socket.create_connection(listening.getsockname()) as client,
        listening.accept()[0] as sock,
    ):
        client.shutdown(socket.SHUT_WR)
        assert peer_of(sock).uid == os.getuid()


class Double:
    """A socket of which only the names count."""

    family = socket.AF_INET

    def __init__(self, there: tuple[str, int], here: tuple[str, int]) -> None:
        self.getpeername = lambda: there
        self.getsockname = lambda: here


def peer_between(there: tuple[str, int], here: tuple[str, int]) -> Peer:
    return peer_of(Double(there, here))  # type: ignore[arg-type]


def test_a_listening_socket_at_the_same_port_is_not_the_client() -> None:
    """Where there is no such connection, the kernel tells of a socket that could have one."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        name = listening.getsockname()
        assert peer_between(name, ("127.0.0.1", 9)).uid is None


def test_who_is_on_another_machine_has_an_address_and_no_proof() -> None:
    peer = peer_between((str(AFAR), 700), ("192.0.2.1", 5640))
    assert peer == Peer(f"{AFAR}:700", None, True, AFAR)


def test_no_user_of_this_machine_passes_for_another_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever address of this machine he takes, and however fast his socket is gone."""
    bound: list[object] = []
    monkeypatch.setattr(socket.socket, "bind", lambda _, name: bound.append(name))
    peer = peer_between((str(AFAR), 700), ("192.0.2.1", 5640))
    assert bound == [(str(AFAR), 0)]
    assert (peer.uid, peer.trusted, peer.address) == (None, False, None)


def test_that_the_address_can_not_be_tried_is_no_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    def bind(*_: object) -> None:
        raise OSError(errno.ENOMEM, "no memory")

    monkeypatch.setattr(socket.socket, "bind", bind)
    with raises_errno(errno.ENOMEM):
        peer_between((str(AFAR), 700), ("192.0.2.1", 5640))


def test_a_kernel_that_can_not_tell_leaves_them_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity, "SOCK_DIAG_BY_FAMILY", 9999)
    with accepted(socket.AF_INET, ("127.0.0.1", 0)) as sock:
        assert not peer_of(sock).trusted


# On whose behalf he acts


@pytest.mark.parametrize(
    ("uname", "n_uname", "uid"),
    [
        (b"", 1000, 1000),
        (b"daemon", 0, 0),
        (ME.pw_name.encode(), NONUNAME, ME.pw_uid),
        (b"no such user", NONUNAME, NOBODY),
        (b"", NONUNAME, NOBODY),
        (b"\xff\0", NONUNAME, NOBODY),
    ],
)
@pytest.mark.parametrize("peer", [ADMIN, REMOTE])
def test_who_is_trusted_acts_as_anyone_and_his_kernel_checks(
    mount: Mount, peer: Peer, uname: bytes, n_uname: int, uid: int
) -> None:
    assert cred_of(peer, Export("", mount), uname, n_uname) == Cred(uid)


@pytest.mark.parametrize(
    ("permissions", "checked"), [("auto", True), ("client", False), ("server", True)]
)
def test_in_a_dialect_that_leaves_it_to_the_server_who_is_trusted_is_checked(
    mount: Mount, permissions: str, checked: bool
) -> None:
    export = Export("", mount, permissions=permissions)
    cred = cred_of(ADMIN, export, b"", DAEMON.pw_uid, vouched=False)
    known = Cred(DAEMON.pw_uid, DAEMON.pw_gid, GROUPS, checked=True)
    assert cred == (known if checked else Cred(DAEMON.pw_uid))


@pytest.mark.parametrize(
    ("uname", "n_uname"),
    [(b"", DAEMON.pw_uid), (b"root", DAEMON.pw_uid), (b"", NONUNAME), (b"daemon", NONUNAME)],
)
def test_who_is_not_trusted_acts_as_himself_and_is_checked(
    mount: Mount, uname: bytes, n_uname: int
) -> None:
    cred = cred_of(LOCAL, Export("", mount), uname, n_uname)
    assert cred == Cred(DAEMON.pw_uid, DAEMON.pw_gid, GROUPS, checked=True)


@pytest.mark.parametrize("permissions", ["auto", "client", "server"])
@pytest.mark.parametrize(
    ("uname", "n_uname"),
    [(b"daemon", 0), (b"daemon", NOBODY), (b"root", NONUNAME), (b"no such user", NONUNAME)],
)
def test_who_is_not_trusted_acts_as_nobody_else(
    mount: Mount, uname: bytes, n_uname: int, permissions: str
) -> None:
    with raises_errno(errno.EPERM):
        cred_of(LOCAL, Export("", mount, permissions=permissions), uname, n_uname)


@pytest.mark.parametrize("squash", ["none", "root", "all"])
@pytest.mark.parametrize("n_uname", [0, NOBODY, NONUNAME])
def test_who_is_unknown_acts_as_nobody_at_all(mount: Mount, n_uname: int, squash: str) -> None:
    with raises_errno(errno.EPERM):
        cred_of(UNKNOWN, Export("", mount, squash=squash), b"", n_uname)


SQUASHED = Cred(70, 71, checked=True)


@pytest.mark.parametrize(
    ("peer", "n_uname", "squash", "cred"),
    [
        (ADMIN, 0, "root", SQUASHED),
        (REMOTE, 0, "root", SQUASHED),
        (ADMIN, 5, "root", Cred(5)),
        (ADMIN, 0, "all", SQUASHED),
        (REMOTE, 5, "all", SQUASHED),
        (LOCAL, DAEMON.pw_uid, "all", SQUASHED),
        (LOCAL, DAEMON.pw_uid, "root", Cred(DAEMON.pw_uid)),
    ],
)
def test_who_is_squashed_is_checked_as_nobody(
    mount: Mount, peer: Peer, n_uname: int, squash: str, cred: Cred
) -> None:
    """By the server: his own kernel has let him do what another user may."""
    export = Export("", mount, squash=squash, anonuid=70, anongid=71, permissions="client")
    assert cred_of(peer, export, b"", n_uname) == cred


@pytest.mark.parametrize(
    ("permissions", "trusted", "confined"),
    [("auto", False, True), ("client", False, False), ("server", True, True)],
)
def test_the_export_says_who_checks_permissions(
    mount: Mount, permissions: str, trusted: bool, confined: bool
) -> None:
    export = Export("", mount, permissions=permissions)
    uid = DAEMON.pw_uid
    assert cred_of(ADMIN, export, b"", uid).checked == trusted
    assert cred_of(REMOTE, export, b"", uid).checked == trusted
    assert cred_of(LOCAL, export, b"", uid).checked == confined


def test_a_user_whom_nobody_knows_here_has_no_groups(mount: Mount) -> None:
    export = Export("", mount, permissions="server")
    assert cred_of(REMOTE, export, b"", 3_000_000_000) == Cred(3_000_000_000, NOBODY, checked=True)


@pytest.mark.parametrize("squash", ["none", "all"])
@pytest.mark.parametrize("peer", [ADMIN, LOCAL, REMOTE])
def test_a_readonly_export_is_so_for_all(mount: Mount, peer: Peer, squash: str) -> None:
    export = Export("", mount, readonly=True, squash=squash)
    assert cred_of(peer, export, b"", DAEMON.pw_uid).readonly


@pytest.mark.parametrize(
    ("peer", "networks", "allowed"),
    [
        (REMOTE, "192.0.2.0/24", True),
        (REMOTE, "198.51.100.0/24 192.0.2.7/32", True),
        (REMOTE, "198.51.100.0/24", False),
        (REMOTE, "::/0", False),
        (MACHINE, "cid:3", True),
        (MACHINE, "cid:4 0.0.0.0/0", False),
        (ADMIN, "198.51.100.0/24", True),
        (LOCAL, "198.51.100.0/24", True),
    ],
)
def test_an_export_is_for_some_networks_and_for_this_machine(
    mount: Mount, peer: Peer, networks: str, allowed: bool
) -> None:
    export = Export("", mount, allow=tuple(map(network, networks.split())))
    with contextlib.nullcontext() if allowed else raises_errno(errno.EACCES):
        cred_of(peer, export, b"", DAEMON.pw_uid)


def test_a_socket_in_a_folder(tmp_path: Path) -> None:
    with accepted(socket.AF_UNIX, str(tmp_path / "t9")) as sock:
        assert peer_of(sock) == Peer("unix", os.getuid(), True, None)


# Names


def test_users_and_groups_are_told_by_name_or_else_by_number() -> None:
    root = grp.getgrgid(0).gr_name.encode()
    assert (user_name(DAEMON.pw_uid), group_name(0)) == (b"daemon", root)
    assert (user_name(54321), group_name(NONUNAME)) == (b"54321", b"4294967295")


def test_users_and_groups_are_found_by_name_or_by_number() -> None:
    assert user_named(b"daemon") == user_named(b"%d" % DAEMON.pw_uid) == DAEMON.pw_uid
    assert group_named(grp.getgrgid(0).gr_name.encode()) == group_named(b"0") == 0
    assert user_named(b"54321") == group_named(b"54321") == 54321


@pytest.mark.parametrize("name", [b"no such user", b"-1", b"\xff\0", b"4294967295", b"1" * 9999])
def test_a_name_that_is_nobodys_is_refused(name: bytes) -> None:
    for find in (user_named, group_named):
        with raises_errno(errno.EINVAL):
            find(name)

"""Attributes, kinds of files, extended attributes and ACLs, on one uncached mount."""

import pytest

from .cases import cases
from .uml import Guest, Server

pytestmark = pytest.mark.kernel


@pytest.mark.parametrize("case", cases("attributes"))
def test_attributes(guest: Guest, server: Server, case: str) -> None:
    with guest.mount(server) as top:
        guest.python("attributes", case, top)


@pytest.mark.parametrize("case", cases("xattrs"))
def test_extended_attributes(guest: Guest, server: Server, case: str) -> None:
    with guest.mount(server) as top:
        guest.python("xattrs", case, top)


def test_setfattr_and_getfattr_agree(guest: Guest, server: Server) -> None:
    with guest.mount(server) as top:
        guest.sh(f"touch {top}/file; setfattr -n user.comment -v 'some words' {top}/file")
        output = guest.sh(f"getfattr --absolute-names --dump {top}/file")
        assert output == f'# file: {top}/file\nuser.comment="some words"\n\n'
        guest.sh(f"setfattr -x user.comment {top}/file")
        assert guest.sh(f"getfattr --absolute-names --dump {top}/file") == ""


def acl(guest: Guest, path: str) -> list[str]:
    return guest.sh(f"getfacl --omit-header --absolute-names --numeric {path}").split()


def test_an_acl_is_kept_and_enforced(guest: Guest, server: Server) -> None:
    read_as_user = "setpriv --reuid=1234 --regid=1234 --clear-groups cat"
    with guest.mount(server, extra="posixacl") as top:
        guest.sh(f"echo secret >{top}/file; chmod 600 {top}/file")
        assert guest.run(f"{read_as_user} {top}/file").status == 1
        guest.sh(f"setfacl -m u:1234:r,g:99:rw {top}/file")
        expected = ["user::rw-", "user:1234:r--", "group::---", "group:99:rw-", "mask::rw-"]
        assert acl(guest, f"{top}/file") == [*expected, "other::---"]
        assert guest.sh(f"{read_as_user} {top}/file") == "secret\n"
    with guest.mount(server, extra="posixacl") as top:
        assert acl(guest, f"{top}/file") == [*expected, "other::---"]
        guest.sh(f"setfacl --remove-all {top}/file")
        assert acl(guest, f"{top}/file") == ["user::rw-", "group::---", "other::---"]


def test_chmod_changes_the_mask_of_an_acl(guest: Guest, server: Server) -> None:
    with guest.mount(server, extra="posixacl") as top:
        guest.sh(f"touch {top}/file; chmod 640 {top}/file; setfacl -m u:1234:rwx {top}/file")
        assert guest.sh(f"stat -c %a {top}/file") == "670\n"
        guest.sh(f"chmod 604 {top}/file")
        assert [line for line in acl(guest, f"{top}/file") if "mask" in line] == ["mask::---"]


def test_a_default_acl_is_inherited(guest: Guest, server: Server) -> None:
    with guest.mount(server, extra="posixacl") as top:
        guest.sh(f"mkdir {top}/dir; setfacl -d -m u:1234:rwx,g::rx,o::- {top}/dir")
        guest.sh(f"umask 077; touch {top}/dir/file; mkdir {top}/dir/sub; mkdir {top}/dir/sub/sub")
        default = [line for line in acl(guest, f"{top}/dir") if line.startswith("default:")]
        assert "default:user:1234:rwx" in default
        for directory in ("sub", "sub/sub"):
            inherited = acl(guest, f"{top}/dir/{directory}")
            assert [line for line in inherited if line.startswith("default:")] == default
            assert "user:1234:rwx" in inherited
        of_file = guest.sh(f"getfacl -cE --absolute-names --numeric {top}/dir/file").split()
        assert of_file == ["user::rw-", "user:1234:rwx", "group::r-x", "mask::rw-", "other::---"]

"""Extended attributes, as setxattr(2) and its family have them."""

import os
from errno import EEXIST, ENODATA, EOPNOTSUPP, ERANGE
from pathlib import Path

from .check import equal, fails, in_child, run_case


def every_namespace_keeps_its_values(top: Path) -> None:
    file = top / "file"
    file.touch()
    values = {
        "user.name": b"value",
        "user.binary": bytes(range(256)),
        "trusted.name": b"for root",
        "security.name": b"for modules",
    }
    for name, value in values.items():
        os.setxattr(file, name, value)
    for name, value in values.items():
        equal(os.getxattr(file, name), value)
    equal(sorted(os.listxattr(file)), sorted(values))


def large_values_survive(top: Path) -> None:
    file = top / "file"
    file.touch()
    value = os.urandom(60 << 10)
    os.setxattr(file, "user.large", value)
    equal(os.getxattr(file, "user.large") == value, True)


def create_and_replace_are_told_apart(top: Path) -> None:
    file = top / "file"
    file.touch()
    with fails(ENODATA):
        os.setxattr(file, "user.a", b"1", os.XATTR_REPLACE)
    os.setxattr(file, "user.a", b"1", os.XATTR_CREATE)
    with fails(EEXIST):
        os.setxattr(file, "user.a", b"2", os.XATTR_CREATE)
    equal(os.getxattr(file, "user.a"), b"1")
    os.setxattr(file, "user.a", b"3", os.XATTR_REPLACE)
    os.setxattr(file, "user.a", b"longer than before")
    equal(os.getxattr(file, "user.a"), b"longer than before")


def removed_ones_are_gone(top: Path) -> None:
    file = top / "file"
    file.touch()
    with fails(ENODATA):
        os.removexattr(file, "user.a")
    os.setxattr(file, "user.a", b"1")
    os.removexattr(file, "user.a")
    equal(os.listxattr(file), [])
    with fails(ENODATA):
        os.getxattr(file, "user.a")


def an_empty_value_is_a_value(top: Path) -> None:
    file = top / "file"
    file.touch()
    os.setxattr(file, "user.created", b"", os.XATTR_CREATE)
    os.setxattr(file, "user.set", b"")
    equal(sorted(os.listxattr(file)), ["user.created", "user.set"])
    equal(os.getxattr(file, "user.set"), b"")


def many_are_listed(top: Path) -> None:
    directory = top / "directory"
    directory.mkdir()
    names = sorted(f"user.{number:03}.{'x' * 200}" for number in range(100))
    for name in names:
        os.setxattr(directory, name, name.encode())
    equal(sorted(os.listxattr(directory)), names)


def they_go_with_the_file_not_with_the_name(top: Path) -> None:
    one, two = top / "one", top / "two"
    one.touch()
    os.setxattr(one, "user.a", b"1")
    os.link(one, two)
    one.rename(top / "three")
    equal(os.getxattr(two, "user.a"), b"1")
    one.touch()
    equal(os.listxattr(one), [])


def an_open_unlinked_file_keeps_them(top: Path) -> None:
    file = top / "file"
    with file.open("wb") as stream:
        os.setxattr(stream.fileno(), "user.a", b"1")
        file.unlink()
        equal(os.getxattr(stream.fileno(), "user.a"), b"1")
        os.setxattr(stream.fileno(), "user.a", b"2")
        equal(os.getxattr(stream.fileno(), "user.a"), b"2")


def unknown_namespaces_and_long_names_are_errors(top: Path) -> None:
    file = top / "file"
    file.touch()
    with fails(EOPNOTSUPP):
        os.setxattr(file, "nonsense.a", b"1")
    with fails(ERANGE):
        os.setxattr(file, "user." + "x" * 256, b"1")


def users_need_permission(top: Path) -> None:
    file = top / "file"
    file.touch(0o644)
    os.setxattr(file, "user.a", b"1")

    def as_user() -> None:
        equal(os.getxattr(file, "user.a"), b"1")
        try:
            os.setxattr(file, "user.a", b"2")
        except PermissionError:
            return
        raise AssertionError("a user without write permission set an attribute")

    in_child(as_user, 1234)
    equal(os.getxattr(file, "user.a"), b"1")


if __name__ == "__main__":
    run_case(globals())

"""Attributes and kinds of files, and what the calls that change names must refuse."""

import os
import socket
import stat
from errno import (
    EACCES,
    EEXIST,
    EINVAL,
    EISDIR,
    ELOOP,
    ENOENT,
    ENOTDIR,
    ENOTEMPTY,
    EPERM,
)
from pathlib import Path

from .check import equal, fails, in_child, run_case

USER = 1234
BLOCK = 512


def chmod_sets_all_twelve_bits(top: Path) -> None:
    file = top / "file"
    file.touch()
    for mode in (0, 0o644, 0o7777, 0o4711, 0o2750, 0o1600):
        file.chmod(mode)
        equal(stat.S_IMODE(file.stat().st_mode), mode)


def chown_sets_either_or_both(top: Path) -> None:
    file = top / "file"
    file.touch()
    os.chown(file, 12, 34)
    os.chown(file, -1, 56)
    os.chown(file, 78, -1)
    equal((file.stat().st_uid, file.stat().st_gid), (78, 56))


def only_the_owner_changes_mode_and_only_root_the_owner(top: Path) -> None:
    file = top / "file"
    file.touch(0o666)

    def as_user() -> None:
        with fails(EPERM):
            file.chmod(0o777)
        with fails(EPERM):
            os.chown(file, USER, -1)

    in_child(as_user, USER)


def permission_bits_are_enforced(top: Path) -> None:
    file = top / "file"
    file.write_text("secret")
    file.chmod(0o600)

    def as_user() -> None:
        with fails(EACCES):
            file.read_text()

    in_child(as_user, USER)


def utime_sets_both_times(top: Path) -> None:
    """To the second: what this kernel's client sends has no nanoseconds."""
    file = top / "file"
    file.touch()
    for times in ((1, 2), (1234567890, 987654321), (1 << 33, 0)):
        os.utime(file, times)
        equal((file.stat().st_atime, file.stat().st_mtime), times)


def utime_of_now_is_the_time_of_the_server(top: Path) -> None:
    file, other = top / "file", top / "other"
    file.touch()
    os.utime(file, (1, 1))
    file.touch()
    other.touch()
    equal(1 < file.stat().st_mtime_ns <= other.stat().st_mtime_ns, True)
    equal(file.stat().st_mtime_ns % 1_000_000_000 != 0, True)


def a_write_moves_mtime_and_ctime_a_chmod_only_ctime(top: Path) -> None:
    file = top / "file"
    file.touch()
    os.utime(file, (1, 1))
    before = file.stat()
    file.chmod(0o600)
    after_chmod = file.stat()
    equal(after_chmod.st_mtime, 1)
    equal(after_chmod.st_ctime_ns > before.st_ctime_ns, True)
    file.write_text("data")
    after_write = file.stat()
    equal(after_write.st_mtime_ns >= after_chmod.st_ctime_ns, True)
    equal(after_write.st_ctime_ns, after_write.st_mtime_ns)


def a_change_of_names_moves_the_mtime_of_the_directory(top: Path) -> None:
    directory = top / "directory"
    directory.mkdir()
    file = directory / "file"
    for change in (
        file.touch,
        lambda: file.rename(directory / "other"),
        lambda: os.link(directory / "other", file),
        file.unlink,
    ):
        os.utime(directory, (1, 1))
        change()
        equal(directory.stat().st_mtime > 1, True)


def truncating_shortens_and_extends_with_zeros(top: Path) -> None:
    file = top / "file"
    file.write_bytes(b"x" * 10000)
    os.truncate(file, 5000)
    os.truncate(file, 9000)
    equal(file.read_bytes(), b"x" * 5000 + bytes(4000))


def blocks_count_what_is_allocated(top: Path) -> None:
    file = top / "file"
    file.touch()
    os.truncate(file, 1 << 30)
    equal(file.stat().st_blocks, 0)
    with file.open("r+b") as stream:
        stream.seek(1 << 29)
        stream.write(b"x")
    equal(0 < file.stat().st_blocks * BLOCK <= 1 << 16, True)
    os.truncate(file, 0)
    equal(file.stat().st_blocks, 0)


def a_file_may_be_nearly_eight_exbibytes_long(top: Path) -> None:
    file = top / "file"
    size = 7 << 60
    with file.open("w+b", buffering=0) as stream:
        stream.truncate(size)
        equal(file.stat().st_size, size)
        equal(os.pread(stream.fileno(), 10, size - 5), bytes(5))
        equal(os.pwrite(stream.fileno(), b"far away", size), 8)
        equal(os.pread(stream.fileno(), 20, size - 2), b"\0\0far away")
        equal(file.stat().st_size, size + 8)
        equal(file.stat().st_blocks * BLOCK <= 1 << 16, True)


def hard_links_are_one_file(top: Path) -> None:
    one, two = top / "one", top / "two"
    one.write_text("data")
    os.link(one, two)
    equal(one.stat().st_nlink, 2)
    equal(one.stat().st_ino, two.stat().st_ino)
    two.write_text("changed")
    equal(one.read_text(), "changed")
    one.unlink()
    equal(two.stat().st_nlink, 1)
    with fails(EPERM):
        os.link(top, top / "three")
    with fails(EEXIST):
        os.link(two, two)


def directories_count_their_subdirectories(top: Path) -> None:
    directory = top / "directory"
    directory.mkdir()
    (directory / "file").touch()
    equal(directory.stat().st_nlink, 2)
    for name in "abc":
        (directory / name).mkdir()
    equal(directory.stat().st_nlink, 5)
    (directory / "a").rename(top / "a")
    (directory / "b").rmdir()
    equal(directory.stat().st_nlink, 3)


def a_setgid_directory_hands_on_its_group(top: Path) -> None:
    directory = top / "directory"
    directory.mkdir()
    os.chown(directory, 0, 77)
    directory.chmod(0o2777)
    (directory / "file").touch()
    (directory / "subdirectory").mkdir()
    (directory / "link").symlink_to("nowhere")
    for name in ("file", "subdirectory", "link"):
        equal(os.lstat(directory / name).st_gid, 77)
    equal(bool((directory / "subdirectory").stat().st_mode & stat.S_ISGID), True)


def new_files_belong_to_their_creator_less_the_umask(top: Path) -> None:
    top.chmod(0o1777)

    def as_user() -> None:
        os.umask(0o027)
        (top / "file").touch(0o666)
        (top / "directory").mkdir(0o777)

    in_child(as_user, USER)
    for name, mode in (("file", 0o640), ("directory", 0o750)):
        got = (top / name).stat()
        equal((got.st_uid, got.st_gid, stat.S_IMODE(got.st_mode)), (USER, USER, mode))


def in_a_sticky_directory_only_owners_remove(top: Path) -> None:
    top.chmod(0o1777)
    (top / "of_root").touch()

    def as_user() -> None:
        (top / "of_user").touch()
        with fails(EPERM):
            (top / "of_root").unlink()
        with fails(EPERM):
            (top / "of_root").rename(top / "stolen")
        with fails(EPERM):
            (top / "of_user").rename(top / "of_root")
        (top / "of_user").rename(top / "mine")
        (top / "mine").unlink()

    in_child(as_user, USER)


def a_write_by_another_user_clears_setuid_and_setgid(top: Path) -> None:
    file = top / "file"
    file.touch()
    file.chmod(0o6777)

    def as_user() -> None:
        with file.open("ab") as stream:
            stream.write(b"x")

    in_child(as_user, USER)
    equal(stat.S_IMODE(file.stat().st_mode), 0o777)


def a_chown_clears_setuid_and_setgid(top: Path) -> None:
    file = top / "file"
    file.touch()
    os.chown(file, USER, USER)
    file.chmod(0o6777)
    in_child(lambda: os.chown(file, -1, USER), USER)
    equal(stat.S_IMODE(file.stat().st_mode), 0o777)


def a_fifo_carries_data_between_two_processes(top: Path) -> None:
    fifo = top / "fifo"
    os.mkfifo(fifo, 0o640)
    equal(stat.filemode(fifo.stat().st_mode), "prw-r-----")
    child = os.fork()
    if child == 0:
        fifo.write_text("through the pipe")
        os._exit(0)
    equal(fifo.read_text(), "through the pipe")
    equal(os.waitpid(child, 0)[1], 0)


def a_socket_can_be_bound_and_reached(top: Path) -> None:
    path = str(top / "socket")
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as caller:
        listener.bind(path)
        listener.listen()
        equal(stat.S_ISSOCK(os.stat(path).st_mode), True)
        caller.connect(path)
        accepted, _ = listener.accept()
        accepted.close()


def device_nodes_work_and_keep_their_numbers(top: Path) -> None:
    zero, block = top / "zero", top / "block"
    os.mknod(zero, stat.S_IFCHR | 0o666, os.makedev(1, 5))
    os.mknod(block, stat.S_IFBLK | 0o600, os.makedev(259, 70000))
    equal(stat.S_ISCHR(zero.stat().st_mode), True)
    equal(stat.S_ISBLK(block.stat().st_mode), True)
    equal(block.stat().st_rdev, os.makedev(259, 70000))
    with zero.open("rb", buffering=0) as stream:
        equal(stream.read(10), bytes(10))


def symlinks_keep_any_target(top: Path) -> None:
    link = top / "link"
    for target in ("nowhere", "x" * 4095, "../" * 1365, "/", "späße"):
        link.symlink_to(target)
        equal(os.readlink(link), target)
        equal(os.lstat(link).st_size, len(target.encode()))
        link.unlink()
    link.symlink_to("nowhere")
    with fails(ENOENT):
        link.stat()
    link.write_text("made through the link")
    equal((top / "nowhere").read_text(), "made through the link")


def statfs_counts_blocks_and_inodes(top: Path) -> None:
    before = os.statvfs(top)
    equal(before.f_blocks * before.f_frsize, 512 << 20)
    equal(before.f_namemax, 255)
    (top / "file").write_bytes(bytes(1 << 20))
    after = os.statvfs(top)
    equal((before.f_bfree - after.f_bfree) * before.f_frsize, 1 << 20)
    equal(before.f_ffree - after.f_ffree, 1)
    (top / "file").unlink()
    equal(os.statvfs(top).f_bfree, before.f_bfree)
    equal(os.statvfs(top).f_ffree, before.f_ffree)


def open_flags_are_obeyed(top: Path) -> None:
    file, link = top / "file", top / "link"
    os.close(os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
    link.symlink_to("file")
    file.write_text("data")
    with fails(EEXIST):
        os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    with fails(EEXIST):
        os.open(link, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    with fails(ELOOP):
        os.open(link, os.O_RDONLY | os.O_NOFOLLOW)
    with fails(ENOTDIR):
        os.open(file, os.O_RDONLY | os.O_DIRECTORY)
    with fails(EISDIR):
        os.open(top, os.O_WRONLY)
    equal(file.read_text(), "data")
    os.close(os.open(file, os.O_WRONLY | os.O_TRUNC))
    equal(file.stat().st_size, 0)


def a_file_created_without_permission_bits_can_be_written(top: Path) -> None:
    descriptor = os.open(top / "file", os.O_CREAT | os.O_EXCL | os.O_RDWR, 0)
    os.write(descriptor, b"data")
    equal(os.pread(descriptor, 10, 0), b"data")
    os.close(descriptor)


def wrong_removals_and_renames_are_refused(top: Path) -> None:
    full, empty, file = top / "full", top / "empty", top / "file"
    (full / "inner").mkdir(parents=True)
    empty.mkdir()
    file.touch()
    for error, source, target in (
        (EINVAL, full, full / "inner" / "full"),
        (ENOTEMPTY, empty, full),
        (ENOTDIR, empty, file),
        (EISDIR, file, empty),
        (ENOENT, top / "none", file),
        (ENOTDIR, file, file / "x"),
    ):
        with fails(error):
            source.rename(target)
    with fails(ENOTEMPTY):
        full.rmdir()
    with fails(ENOTDIR):
        file.rmdir()
    with fails(EISDIR):
        empty.unlink()
    with fails(EEXIST):
        full.mkdir()
    with fails(EEXIST):
        file.mkdir()
    equal(sorted(path.name for path in top.iterdir()), ["empty", "file", "full"])


def renames_replace_what_they_may(top: Path) -> None:
    one, two = top / "one", top / "two"
    (one / "inner").mkdir(parents=True)
    two.mkdir()
    one.rename(two)
    equal([path.name for path in two.iterdir()], ["inner"])
    file, other = top / "file", top / "other"
    file.write_text("new")
    other.write_text("old")
    file.rename(other)
    equal(other.read_text(), "new")
    os.link(other, file)
    file.rename(other)
    equal(file.stat().st_nlink, 2)


def dot_dot_follows_a_moved_directory(top: Path) -> None:
    (top / "from" / "directory").mkdir(parents=True)
    (top / "to").mkdir()
    os.chdir(top / "from" / "directory")
    (top / "from" / "directory").rename(top / "to" / "directory")
    equal(os.path.samefile("..", top / "to"), True)
    os.chdir("/")


if __name__ == "__main__":
    run_case(globals())

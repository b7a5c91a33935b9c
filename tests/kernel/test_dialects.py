"""The older dialects: the kernel mounts 9P2000.u and 9P2000, less what these can not say.

Other programs on such mounts are among test_programs.
"""

import shutil
from typing import Any

import pytest

from .cases import cases
from .test_programs import DESCRIBE, MAKE_TREE, PLAIN, UNIX
from .uml import SERVER_ADDRESS, Guest, Server

pytestmark = pytest.mark.kernel

#: What a kernel can not do with 9P2000.u.
NOT_IN_UNIX = {
    # Times in seconds of 32 bits, and no ctime.
    "utime_sets_both_times",
    "utime_of_now_is_the_time_of_the_server",
    "a_write_moves_mtime_and_ctime_a_chmod_only_ctime",
    # No statfs, and no blocks of a file.
    "its_space_comes_back_at_the_last_close",
    "statfs_counts_blocks_and_inodes",
    "blocks_count_what_is_allocated",
    "a_file_may_be_nearly_eight_exbibytes_long",
    # No rename to another directory.
    "directories_count_their_subdirectories",
    "dot_dot_follows_a_moved_directory",
    # No group of who creates a file, but that which the server knows.
    "new_files_belong_to_their_creator_less_the_umask",
    # No extended attributes.
    "attributes",
}
#: What it can not do with 9P2000, either.
NOT_IN_PLAIN = NOT_IN_UNIX | {
    # Files and directories alone, with one name each.
    "odd_names_are_kept_byte_for_byte",
    "a_change_of_names_moves_the_mtime_of_the_directory",
    "a_fifo_carries_data_between_two_processes",
    "a_socket_can_be_bound_and_reached",
    "an_unlinked_file",
    "device_nodes_work_and_keep_their_numbers",
    "hard_links_are_one_file",
    "open_flags_are_obeyed",
    "symlinks_keep_any_target",
    # Who a file belongs to is nobody the kernel knows.
    "a_chown_clears_setuid_and_setgid",
    "a_setgid_directory_hands_on_its_group",
    "chown_sets_either_or_both",
    "in_a_sticky_directory_only_owners_remove",
    # No append, but a write where the end was.
    "appended_lines_of_two_writers",
    # No bits of a mode above the permissions.
    "chmod_sets_all_twelve_bits",
    # No rename to a name that is taken.
    "a_file_that_another_was_renamed_over",
    "renames_replace_what_they_may",
}


def pairs(*programs: str) -> list[Any]:
    """The mount options, program and case of all that can be."""
    return [
        pytest.param(dialect, program, case, id=f"{dialect['version']}-{program}-{case}")
        for dialect, not_there in ((UNIX, NOT_IN_UNIX), (PLAIN, NOT_IN_PLAIN))
        for program in programs
        for case in cases(program)
        if case not in not_there
    ]


@pytest.mark.parametrize(("options", "program", "case"), pairs("names", "orphans", "attributes"))
def test_a_mount(
    guest: Guest, server: Server, options: dict[str, Any], program: str, case: str
) -> None:
    with guest.mount(server, **options) as top:
        guest.python(program, case, top, timeout=120)


@pytest.mark.parametrize(("options", "program", "case"), pairs("sharing"))
def test_two_mounts(
    guest: Guest, server: Server, options: dict[str, Any], program: str, case: str
) -> None:
    with (
        guest.mount(server, "/mnt/a", **options) as a,
        guest.mount(server, "/mnt/b", **options) as b,
    ):
        guest.python(program, case, a, b)


@pytest.mark.parametrize(("options", "program", "case"), pairs("mapping"))
def test_shared_maps(
    guest: Guest, server: Server, options: dict[str, Any], program: str, case: str
) -> None:
    with (
        guest.mount(server, "/mnt/a", cache="mmap", **options) as a,
        guest.mount(server, "/mnt/b", **options) as b,
    ):
        guest.python(program, case, a, b)


@pytest.mark.parametrize("options", [UNIX, PLAIN], ids=["9p2000.u", "9p2000"])
@pytest.mark.parametrize(("cache", "mapping"), [("none", ""), ("mmap", "map"), ("loose", "map")])
def test_a_file_holds_what_was_written(
    guest: Guest, server: Server, options: dict[str, Any], cache: str, mapping: str
) -> None:
    with guest.mount(server, cache=cache, msize=65536, **options) as top:
        guest.python("fsx", top, "1", "1000", *mapping.split())


#: Times in whole seconds; and no fifo, which the kernel lists as a regular file (dt_type in
#: fs/9p/vfs_dir.c), so that find and sha256sum would wait for its data.
SAYABLE = "rm fifo; find . -depth -exec touch -h --date='2001-02-03 04:05:06' {} +"


@pytest.mark.parametrize("cache", ["none", "mmap", "loose"])
def test_tar_brings_a_tree_there_and_back(guest: Guest, server: Server, cache: str) -> None:
    guest.sh(f"{MAKE_TREE}\n{SAYABLE}")
    original = guest.sh(f"set -- /tmp/tree\n{DESCRIBE}")
    with guest.mount(server, cache=cache, **UNIX) as top:
        guest.sh(f"""
            tar --format=posix -C /tmp -cf /tmp/there.tar tree
            tar -C {top} -xpf /tmp/there.tar
            tar -C {top} --compare -f /tmp/there.tar
        """)
    with guest.mount(server, **UNIX) as top:
        assert guest.sh(f"set -- {top}/tree\n{DESCRIBE}") == original
        guest.sh(f"rm -rf {top}/tree /tmp/there.tar")
    with guest.mount(server) as top:
        assert guest.sh(f"ls -A {top}") == ""


def test_files_and_directories_come_there_and_back_in_9p2000(guest: Guest, server: Server) -> None:
    """What is made through it is the same through 9P2000.L, and the other way."""
    guest.sh(f"{MAKE_TREE}\ncd /tmp/tree; find . ! -type d ! -type f -delete; chmod 644 *.py")
    with guest.mount(server, "/mnt/a", **PLAIN) as a, guest.mount(server, "/mnt/b") as b:
        guest.sh(f"""
            cp -r /tmp/tree {a}/one; cp -r /tmp/tree {b}/two
            diff -r {b}/one /tmp/tree; diff -r {a}/two /tmp/tree
            cd {a}/two; mv os.py new.py; chmod 600 new.py; truncate -s 100 new.py
            touch --date='1999-12-31 23:59:59' io.py
        """)
        assert guest.sh(f"stat -c '%s %a' {b}/two/new.py; stat -c %y {b}/two/io.py") == (
            "100 600\n1999-12-31 23:59:59.000000000 +0000\n"
        )
        guest.sh(f"rm -r {a}/one {a}/two; test -z $(ls -A {b})")


def test_users_are_checked_by_the_server(guest: Guest, server: Server) -> None:
    """The kernel asks for each user to be attached; to 9P2000 it can not say who he is."""
    as_user = "setpriv --reuid=1234 --regid=1234 --clear-groups"
    with guest.mount(server, **UNIX) as top:
        guest.sh(f"echo secret >{top}/secret; chmod 600 {top}/secret; chmod 1777 {top}")
        assert guest.run(f"{as_user} cat {top}/secret").status == 1
        guest.sh(f"{as_user} sh -c 'echo data >{top}/mine'")
        assert guest.sh(f"stat -c %u {top}/mine") == "1234\n"


def test_9mount_mounts_it_in_9p2000(guest: Guest, server: Server) -> None:
    """Debian's tool of that name, for users who are not root."""
    if shutil.which("9mount") is None:
        pytest.skip("Debian's package 9mount is missing")
    guest.sh(f"""
        mkdir -p /mnt/n; 9mount -s 'tcp!{SERVER_ADDRESS}!{server.port}' /mnt/n
        grep ' /mnt/n 9p .*noextend' /proc/mounts
        echo data >/mnt/n/file; test "$(cat /mnt/n/file)" = data; mkdir /mnt/n/d
        mv /mnt/n/file /mnt/n/new
        test "$(ls /mnt/n)" = "$(printf 'd\\nnew')"
        umount /mnt/n
    """)

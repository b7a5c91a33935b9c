"""privileges: what is left to who was root; in processes of their own, for it is for good."""

import os
import pwd
import subprocess
import sys
from pathlib import Path

import pytest

from .peer import GUARD

ROOT = Path(__file__).parents[2]
DAEMON = pwd.getpwnam("daemon")

needs_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")

DROP = """
import os, pwd, sys
from server.usage import ConfigError
from server.privileges import drop
for name in sys.argv[1:]:
    try:
        drop(pwd.getpwnam(name))
    except ConfigError as error:
        print(error)
print(os.getresuid(), os.getresgid(), sorted(os.getgroups()))
try:
    os.setresuid(0, 0, 0)
    print("root again")
except PermissionError:
    pass
print(*[line.split()[1] for line in open("/proc/self/status") if line.startswith("Cap")][:3])
"""


def dropped(*names: str) -> list[str]:
    """What a process has that has become these users in turn: ids and groups, capabilities."""
    command = [sys.executable, "-c", DROP, *names]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=GUARD, check=True, cwd=ROOT
    )
    return done.stdout.splitlines()


NONE = "0" * 16


@needs_root
def test_nothing_of_root_is_left() -> None:
    uid, gid = DAEMON.pw_uid, DAEMON.pw_gid
    groups = sorted(os.getgrouplist("daemon", gid))
    ids, capabilities = dropped("daemon")
    assert ids == f"{(uid, uid, uid)} {(gid, gid, gid)} {groups}"
    inheritable, permitted, effective = capabilities.split()
    assert (permitted, effective) == (NONE, NONE)
    assert int(inheritable, 16) == inherited()


def inherited() -> int:
    """The capabilities that this process would give to programs with some of their own."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("CapInh")), 16)


@needs_root
def test_only_root_becomes_another_user() -> None:
    refused, ids, _ = dropped("daemon", "nobody")
    assert refused == "--user: nobody: only root can become another user"
    assert ids.startswith(f"{(DAEMON.pw_uid,) * 3} ")


def test_who_is_that_user_stays_who_he_is() -> None:
    me = pwd.getpwuid(os.getuid()).pw_name
    lines = dropped(me)
    assert lines[0] == f"{os.getresuid()} {os.getresgid()} {sorted(os.getgroups())}"

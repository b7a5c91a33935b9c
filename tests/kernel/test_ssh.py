"""A server behind a real sshd: its files are mounted and copied over an ssh login."""

import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import sshd

from .fuse import ENVIRON, LIMIT, PROGRAM, Served, mounted
from .uml import Result

pytestmark = pytest.mark.kernel


@pytest.fixture(name="login")
def login_(tmp_path: Path) -> Iterator[sshd.Sshd]:
    reason = sshd.why_not()
    if reason is not None:
        pytest.skip(reason)
    with sshd.running(tmp_path) as login:
        yield login


def run(login: sshd.Sshd, *words: str) -> Result:
    """Run the command with that ssh: its exit status and all that it writes."""
    done = subprocess.run(
        [*PROGRAM, *words],
        env={**ENVIRON, "PATH": f"{login.path}:{ENVIRON['PATH']}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    return Result(done.returncode, done.stdout)


def test_files_are_copied_and_listed(login: sshd.Sshd, served: Served, tmp_path: Path) -> None:
    address = f"ssh://{login.where}{served.path}"
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/f").write_bytes(bytes(3_000_000))
    assert run(login, "cp", "-r", "--addr", address, f"{tmp_path}/tree", ":/") == (0, "")
    assert run(login, "ls", "--addr", address, "/tree") == (0, "f\n")
    assert run(login, "cp", "--addr", address, ":/tree/f", f"{tmp_path}/back") == (0, "")
    assert (tmp_path / "back").read_bytes() == bytes(3_000_000)


def test_who_can_not_log_in_is_told(login: sshd.Sshd, served: Served, tmp_path: Path) -> None:
    (tmp_path / "known").write_text("")
    status, told = run(login, "ls", "--addr", f"ssh://{login.where}{served.path}")
    assert status == 2
    assert "Host key verification failed." in told


def test_where_nothing_serves_that_is_told(login: sshd.Sshd, tmp_path: Path) -> None:
    status, told = run(login, "ls", "--addr", f"ssh://{login.where}{tmp_path}/none")
    assert status == 2
    assert f"unix://{tmp_path}/none: No such file or directory" in told


def test_it_is_mounted(login: sshd.Sshd, served: Served, tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    status, told = run(
        login, "mount", "-o", "driver=fuse", f"ssh://{login.where}{served.path}", str(place)
    )
    assert (status, told) == (0, "")
    with mounted(place) as processes:
        assert len(processes) == 1
        data = bytes(range(256)) * 100_000
        (place / "f").write_bytes(data)
        subprocess.run(["cp", place / "f", place / "g"], check=True, timeout=LIMIT)
        assert (place / "g").read_bytes() == data


#: Run by bash: a user mounts it himself, in a namespace where all may, and who may can get there.
ANOTHER_NUMBER = """
set -euo pipefail
mknod {top}/fuse c 10 229
chmod 666 {top}/fuse
mount --bind {top}/fuse /dev/fuse
mount --bind {top} /mnt
user="setpriv --reuid=nobody --regid=nogroup --clear-groups"
reader="--inh-caps=+dac_read_search --ambient-caps=+dac_read_search"  # of keys and programs
$user $reader {program} mount -o driver=fuse {address} /mnt/place
trap "umount /mnt/place" EXIT
$user bash -euo pipefail -c '
    cd /mnt/place
    echo 1 >f
    echo 2 >>f
    mkdir d
    cp f d/f
    chmod 600 f d/f
    test "$(cat f d/f | tr -d "\\n")" = 1212
    test "$(stat -c %u f d | sort -u)" = 0
    test ! -x f
    chmod 700 f
    test -x f
    rm -rf f d
'
"""


def test_who_has_another_number_there_can_use_his_files(
    login: sshd.Sshd, served: Served, tmp_path: Path
) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "place").mkdir()
    shutil.chown(tmp_path / "place", "nobody", "nogroup")
    address = f"ssh://{login.where}{served.path}"
    environ = {key: value for key, value in ENVIRON.items() if not key.startswith("COV")}
    script = ANOTHER_NUMBER.format(top=tmp_path, address=address, program=shlex.join(PROGRAM))
    done = subprocess.run(
        ["unshare", "--mount", "bash", "-c", script],
        env={**environ, "PATH": f"{login.path}:{ENVIRON['PATH']}"},  # nobody measures coverage
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "")

"""dist/tmpfs9p.pyz: the one file runs where there is Python, and nothing else."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

#: The command of Debian that has a Python of the version with which the file was made.
PYTHON = f"python{sys.version_info.major}.{sys.version_info.minor}"


def debian(package: str) -> set[str]:
    """The installed packages that this one needs, itself included."""
    found: set[str] = set()
    todo = [package]
    while todo:
        name = todo.pop()
        done = subprocess.run(
            ["dpkg-query", "-W", "-f", "${Depends},${Pre-Depends}", name],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode == 0 and name not in found:
            found.add(name)
            words = done.stdout.replace("|", ",").split(",")
            todo += [word.split()[0].partition(":")[0] for word in words if word.split()]
    return found


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    """A root folder with Debian's Python, what that needs, and nothing else."""
    if os.getuid() != 0:
        pytest.skip("only root can have another root folder")
    if not Path("/usr/bin", PYTHON).exists():
        pytest.skip(f"the file is for {PYTHON}, which Debian does not have here")
    for folder in ("usr/bin", "usr/lib", "usr/lib64", "usr/sbin", "tmp", "proc", "dev"):
        (tmp_path / folder).mkdir(parents=True)
    for folder in ("bin", "lib", "lib64", "sbin"):
        (tmp_path / folder).symlink_to(f"usr/{folder}")
    packages = sorted(debian(PYTHON) | {"coreutils"})
    # Some are virtual: it has no files of them, and says so.
    listed = subprocess.run(["dpkg", "-L", *packages], capture_output=True, text=True, check=False)
    files = [path for path in listed.stdout.splitlines() if path.startswith("/")]
    wanted = [path for path in files if os.path.isfile(path) and "/share/" not in path]
    pipe = f"tar c --files-from=- | tar x --keep-directory-symlink -C {tmp_path}"
    subprocess.run(pipe, shell=True, cwd="/", input="\n".join(wanted), text=True, check=True)
    (tmp_path / "etc").mkdir(exist_ok=True)
    (tmp_path / "etc/passwd").write_text("root:x:0:0::/:/bin/sh\n")
    return tmp_path


def test_it_runs_in_an_empty_root(single_file: Path, empty: Path) -> None:
    shutil.copy(single_file, empty / "tmpfs9p")
    (empty / "served").mkdir()
    script = """
import os, subprocess, sys
run = ["/tmpfs9p"]
server = subprocess.Popen(
    [*run, "serve", "--size", "4m", "--ram", "1m", "--swap", "/served/swap", "--swap-encrypt",
     "--listen", "unix:///served/t9"], stdout=subprocess.PIPE, text=True)
print(server.stdout.readline().split()[1])
client = [*run, "cp", "--addr", "unix:///served/t9"]
subprocess.run([*client, "-", ":/a"], input=b"hello", check=True)
sys.stdout.flush()
subprocess.run([*run, "cat", "--addr", "unix:///served/t9", "/a"], check=True)
print()
server.terminate()
print(server.wait(30))
"""
    done = subprocess.run(
        [
            "unshare",
            "--mount",
            "sh",
            "-ec",
            f"mount -t proc proc {empty}/proc; mount --bind /dev {empty}/dev; exec chroot {empty} "
            f'/usr/bin/{PYTHON} -c "$1"',
            "sh",
            script,
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "SHIV_ROOT": "/tmp"},
    )
    assert (done.returncode, done.stdout.split("\n")) == (
        0,
        ["unix:///served/t9", "hello", "0", ""],
    ), done.stderr

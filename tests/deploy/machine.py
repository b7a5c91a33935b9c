"""A machine with systemd: this host's own files under an overlay, and namespaces of its own.

systemd is PID 1 there, so that units run as they do on a host: with its sandbox, its sockets, its
watchdog.  What is written there is gone when the machine is; its network is a loopback alone.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

#: Seconds that anything may take.
PATIENCE = 60.0

BOOT = """
set -eu
root=$1 source=$2 cgroup=$3
echo $$ > "$cgroup/cgroup.procs"
exec unshare --cgroup --mount --pid --fork --uts --ipc --net --propagation private bash -c '
set -eu
root=$0 source=$1
mkdir "$root/upper" "$root/work" "$root/new"
mount -t overlay overlay -o "lowerdir=/,upperdir=$root/upper,workdir=$root/work" "$root/new"
cd "$root/new"
mount -t proc proc proc
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs tmpfs dev
mkdir dev/pts dev/shm
for device in null zero full random urandom tty; do cp -a "/dev/$device" dev; done
mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
ln -s pts/ptmx dev/ptmx
mount -t tmpfs tmpfs run
mount -t tmpfs tmpfs tmp
mkdir -p mnt/source
mount --bind -o ro "$source" mnt/source
ip link set lo up
mkdir -p run/old
pivot_root . run/old
umount --lazy /run/old
exec env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin container=test \\
    /lib/systemd/systemd --unit=basic.target --log-target=journal --show-status=no
' "$root" "$source"
"""


def why_not() -> str | None:
    """Why there can be no machine here, if there can not."""
    if sys.platform != "linux" or os.getuid() != 0:
        return "only root can boot a machine"
    if not Path("/lib/systemd/systemd").exists():
        return "no systemd: apt install systemd"
    return None


class Machine:
    """A machine on which ``source`` is at /mnt/source, and can only be read."""

    def __init__(self, source: Path) -> None:
        self._root = Path(tempfile.mkdtemp(prefix="machine-", dir="/var/tmp"))
        self._cgroup = _cgroups() / self._root.name
        self._cgroup.mkdir()
        self._shell = subprocess.Popen(
            ["bash", "-c", BOOT, "boot", self._root, source, self._cgroup],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        try:
            self._init = self._booted()
        except BaseException:
            self.close()
            raise

    def run(self, script: str) -> subprocess.CompletedProcess[str]:
        """Run a bash script as root there, at /mnt/source."""
        inside = ["nsenter", f"--target={self._init}", "--mount", "--pid", "--net", "--cgroup"]
        return subprocess.run(
            [*inside, "bash", "-euo", "pipefail", "-c", f"cd /mnt/source\n{script}"],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
            env={"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
        )

    def sh(self, script: str) -> str:
        """What a script prints, which must succeed."""
        done = self.run(script)
        assert done.returncode == 0, f"{script}\n{done.stdout}{done.stderr}"
        return done.stdout

    def close(self) -> None:
        (self._cgroup / "cgroup.kill").write_text("1")
        self._shell.wait()
        _until(lambda: "populated 0" in (self._cgroup / "cgroup.events").read_text(), "its end")
        for folder, _, _ in os.walk(self._cgroup, topdown=False):
            os.rmdir(folder)
        shutil.rmtree(self._root)

    def _booted(self) -> int:
        """The process that is PID 1 there."""
        children = Path(f"/proc/{self._shell.pid}/task/{self._shell.pid}/children")
        _until(lambda: bool(children.read_text()), "its first process")
        self._init = int(children.read_text().split()[0])
        ask = "systemctl is-system-running --wait || true"
        _until(lambda: self.run(ask).stdout.strip() in ("running", "degraded"), "systemd")
        return self._init


def _cgroups() -> Path:
    """Where the unified hierarchy of cgroups is mounted."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, where, kind, *_ = line.split()
        if kind == "cgroup2":
            return Path(where)
    raise RuntimeError("no cgroup2 is mounted here")


def _until(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"no {what} after {PATIENCE} s")
        time.sleep(0.02)

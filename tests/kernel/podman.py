"""Podman: containers of this machine, with storage of its own and an image that is made here.

Rules
- Nothing is pulled: the image is busybox.  (Of a plain root folder, --rootfs, podman leaves the
  volumes mounted when the container has ended.)
- Containers have no network and few limits, as any machine for tests can give them.
- All of it is gone when the test is over, however that ends.
- Paths are short: from a directory with a name of more than 50 letters, podman cleans up nothing.
"""

import os
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from .uml import SEARCH_PATH, LabError, Result

PACKAGES = {"busybox-static": "/bin/busybox", "podman": "podman", "runc": "runc"}
IMAGE = "localhost/busybox"
APPLETS = ("cat", "dd", "df", "id", "ls", "sh", "sleep", "stat", "touch")
#: Seconds that anything may take.
LIMIT = 120

CONFIGURATION = """\
[containers]
default_ulimits = ["nofile=1024:20000", "nproc=1000:1000"]
netns = "none"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "runc"
volume_plugin_timeout = 60
[engine.volume_plugins]
tmpfs9p = "{plugin}"
"""

STORAGE = """\
[storage]
driver = "vfs"
graphroot = "{directory}/graph"
runroot = "{directory}/run"
"""


def why_not() -> str | None:
    """What keeps this machine from running containers."""
    if os.getuid() != 0:
        return "containers need root"
    missing = [package for package, program in PACKAGES.items()
               if not shutil.which(program, path=SEARCH_PATH)]  # fmt: skip
    return f"Debian's packages {' '.join(missing)} are missing" if missing else None


class Podman:
    """Podman, which finds the volume plugin ``tmpfs9p`` at a socket."""

    def __init__(self, plugin: Path) -> None:
        self._directory = directory = Path(tempfile.mkdtemp(prefix="t9-", dir="/tmp"))
        configuration, storage = directory / "containers.conf", directory / "storage.conf"
        configuration.write_text(CONFIGURATION.format(plugin=plugin))
        storage.write_text(STORAGE.format(directory=directory))
        self._environ = {
            "PATH": SEARCH_PATH,
            "CONTAINERS_CONF": str(configuration),
            "CONTAINERS_STORAGE_CONF": str(storage),
        }
        image = directory / "image.tar"
        with tarfile.open(image, "w") as files:
            files.add("/bin/busybox", "bin/busybox")
            for applet in APPLETS:
                link = tarfile.TarInfo(f"bin/{applet}")
                link.type, link.linkname = tarfile.SYMTYPE, "busybox"
                files.addfile(link)
        self.do("import", str(image), IMAGE)

    def run(self, *words: str) -> Result:
        """Run a command: its exit status, and what it has said."""
        done = subprocess.run(
            ["podman", "--tmpdir", self._directory / "tmp", *words],
            env=self._environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=LIMIT,
            check=False,
        )
        return Result(done.returncode, done.stdout)

    def do(self, *words: str) -> str:
        """Run a command that must succeed: what it has said."""
        status, output = self.run(*words)
        if status:
            raise LabError(f"podman {' '.join(words)}\nexited with {status}:\n{output}")
        return output

    def create(self, volume: str, *options: str) -> None:
        """Make a volume."""
        self.do(
            "volume", "create", "--driver", "tmpfs9p", *(f"--opt={it}" for it in options), volume
        )

    def container(self, volume: str, script: str) -> Result:
        """Run a script in a container of its own, which has the volume at /mnt."""
        return self.run("run", "--rm", "-v", f"{volume}:/mnt", IMAGE, "sh", "-c", script)

    def start(self, name: str, volume: str) -> None:
        """Start a container that waits for :meth:`inside`."""
        given = ("-v", f"{volume}:/mnt", IMAGE, "sleep", "1000000")
        self.do("run", "--detach", "--name", name, *given)

    def inside(self, name: str, script: str) -> str:
        """Run a script that must succeed in a container: what it has said."""
        return self.do("exec", name, "sh", "-c", script)

    def end(self, *names: str) -> None:
        """End and remove containers."""
        self.do("rm", "--force", "--time", "0", *names)

    def close(self) -> None:
        """Remove all there is."""
        self.run("rm", "--force", "--time", "0", "--all")
        self.run("volume", "rm", "--force", "--all")
        shutil.rmtree(self._directory)

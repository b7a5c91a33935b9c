"""Debian's packages that nothing installs: a kernel to boot, and a QEMU newer than the machine's.

    python -m tests.kernel.debian       # fetches what is missing; tests/install-packages does it

Rules
- The machine's own apt and dpkg are not touched: apt runs with sources, lists, state and cache of
  its own, from the mirror that the machine is set up with. It needs no root.
- Each kind is in the user's cache for every checkout, and appears there whole or not at all.
- A program is run by the dynamic loader that it came with, for its libraries are newer too.
"""

import fcntl
import lzma
import os
import re
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tmpfs9p"
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
KERNEL = CACHE / "linux-6.1"
QEMU = CACHE / "qemu-backports"
LIBRARIES = "usr/lib/x86_64-linux-gnu"
FIRMWARE = ("usr/share/qemu", "usr/share/seabios")

#: What a guest loads, in this order: each needs only those before it.
MODULES = (
    *("virtio_ring", "virtio", "virtio_pci_legacy_dev", "virtio_pci_modern_dev", "virtio_pci"),
    *("failover", "net_failover", "virtio_net", "virtio_console"),
    *("9pnet", "9pnet_fd", "9pnet_virtio", "netfs", "fscache", "9p"),
    *("vsock", "vmw_vsock_virtio_transport_common", "vsock_loopback"),
)


def new_qemu() -> list[str]:
    """The words that run the newer QEMU."""
    libraries = QEMU / LIBRARIES
    return [
        *(str(libraries / "ld-linux-x86-64.so.2"), "--library-path", str(libraries)),
        *(str(QEMU / "usr/bin/qemu-system-x86_64"),),
        *(word for place in FIRMWARE for word in ("-L", str(QEMU / place))),
    ]


def fetch() -> None:
    """Have all in the cache.

    Raises:
        LookupError: this machine's apt knows no mirror of Debian.
        subprocess.CalledProcessError: apt or dpkg failed, and has said why.
    """
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _provide(KERNEL, _unpack_kernel)
        _provide(QEMU, _unpack_qemu)


def _provide(place: Path, unpack: Callable[["Apt", Path], None]) -> None:
    """Have one kind in its place."""
    if place.exists():
        return
    with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
        unpacked = Path(scratch, place.name)
        unpacked.mkdir()
        unpack(Apt(Path(scratch)), unpacked)
        unpacked.rename(place)


def _unpack_kernel(apt: "Apt", place: Path) -> None:
    """Debian 12's kernel, ``vmlinux``, and those of its modules that a guest loads."""
    apt.update("bookworm")
    depends = apt.run("apt-cache", "depends", "--important", "linux-image-amd64")
    (package,) = re.findall(r"Depends: (\S+)", depends)
    (archive,) = apt.download("apt-get", "download", package)
    whole = archive.parent / package
    _unpack(archive, whole)
    (compressed,) = whole.glob("boot/vmlinuz-*")
    (place / "vmlinux").write_bytes(decompressed(compressed.read_bytes()))
    for module in MODULES:
        (file,) = whole.rglob(f"{module}.ko")
        shutil.move(file, place)


def _unpack_qemu(apt: "Apt", place: Path) -> None:
    """A QEMU that has ``vhost-user-test-device-pci`` (since 10.2), and what it is linked with."""
    apt.update("trixie", "trixie-backports")
    options = ("--yes", "--download-only", "--no-install-recommends")
    backports = ("--target-release", "trixie-backports")
    for archive in apt.download("apt-get", *options, *backports, "install", "qemu-system-x86"):
        _unpack(archive, place)


def _unpack(archive: Path, place: Path) -> None:
    subprocess.run(["dpkg", "-x", archive, place], check=True)
    archive.unlink()


def decompressed(image: bytes) -> bytes:
    """The kernel in a bzImage, which boots seconds faster under emulation than unpacking itself.

    Source: Documentation/arch/x86/boot.rst, fields setup_sects, payload_offset, payload_length.
    """
    sectors = image[0x1F1]
    offset, length = struct.unpack_from("<II", image, 0x248)
    start = (sectors + 1) * 512 + offset
    return lzma.LZMADecompressor().decompress(image[start : start + length])


class Apt:
    """apt with a private state, in which no package is installed."""

    def __init__(self, scratch: Path) -> None:
        self._scratch = scratch
        self._mirror = _mirror()
        self._environ = os.environ | {"APT_CONFIG": str(scratch / "apt.conf"), "LC_ALL": "C"}
        (scratch / "archives/partial").mkdir(parents=True)
        (scratch / "lists/partial").mkdir(parents=True)
        (scratch / "status").touch()
        (scratch / "apt.conf").write_text(
            f'Dir::State "{scratch}"; Dir::State::status "{scratch}/status";\n'
            f'Dir::Cache "{scratch}";\n'
            f'Dir::Etc::sourcelist "{scratch}/sources.list"; Dir::Etc::sourceparts "/dev/null";\n'
            'Dir::Etc::preferences "/dev/null"; Dir::Etc::preferencesparts "/dev/null";\n'
            'Acquire::Languages "none"; APT::Sandbox::User ""; APT::Architecture "amd64";\n'
        )

    def update(self, *suites: str) -> None:
        """Learn what is in these suites."""
        lines = [f"deb [signed-by={KEYRING}] {self._mirror} {suite} main\n" for suite in suites]
        (self._scratch / "sources.list").write_text("".join(lines))
        self.run("apt-get", "update", "-q")

    def download(self, *words: str) -> list[Path]:
        """Run a command of apt that downloads: the packages."""
        self.run(*words)
        return list((self._scratch / "archives").glob("*.deb"))

    def run(self, *words: str) -> str:
        """Run a command of apt: its output."""
        return subprocess.run(
            words,
            cwd=self._scratch / "archives",
            env=self._environ,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        ).stdout


def _mirror() -> str:
    """Where this machine gets Debian from."""
    words = ("apt-get", "indextargets", "--format", "$(LABEL) $(SITE)", "Created-By: Packages")
    known = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    for line in known.splitlines():
        label, _, site = line.partition(" ")
        if label == "Debian":
            return site
    raise LookupError("apt knows no mirror of Debian: apt-get update")


if __name__ == "__main__":
    fetch()

"""Run in a guest: its kernel mounts what is reached over a unix socket, ssh and TLS.

All ends are in the guest.  A mount is used, and ended by umount(8), after which no process is left.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests import sshd
from tests.server.certificates import Authority

PROGRAM = (sys.executable, "-B", "-m", "server")
LIMIT = 60


def processes() -> set[str]:
    """The command lines of all processes."""
    lines = set()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            lines.add(Path(f"/proc/{pid}/cmdline").read_text())
        except OSError:
            continue
    return {line for line in lines if "connect" in line or "mount\0-o" in line}


def use(address: str, options: str, place: Path, transport: str) -> None:
    """Mount it by the kernel, work, unmount."""
    words = f"driver=kernel{options}"
    subprocess.run([*PROGRAM, "mount", "-o", words, address, place], check=True, timeout=LIMIT)
    mounted = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    (found,) = [line for line in mounted if line[1] == str(place)]
    assert found[2] == "9p", found
    assert f"trans={transport}" in found[3], found
    data = os.urandom(3_000_000)
    (place / transport).write_bytes(data)
    subprocess.run(["cp", place / transport, place / "copy"], check=True, timeout=LIMIT)
    assert (place / "copy").read_bytes() == data
    subprocess.run(["umount", place], check=True, timeout=LIMIT)
    while processes():  # they end when they hear of it
        os.sched_yield()


def main(name: str) -> None:
    top = Path(tempfile.mkdtemp())
    place = top / "place"
    place.mkdir()
    listen = f"unix://{top}/socket"
    authority = Authority(top)
    cert, key = authority.issue("server", "127.0.0.1")
    tls = ["--tls-cert", cert, "--tls-key", key, "--tls-ca", authority.ca]
    tls += ["--listen", "tls://127.0.0.1:5641", "--tls-user", "root@example.org=root"]
    words = [*PROGRAM, "serve", "--listen", listen, *tls]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        assert server.stdout.readline().startswith(b"ready: ")
        if name == "unix":
            use(listen, "", place, "unix")
        elif name == "ssh":
            with sshd.running(top, PROGRAM) as login:
                os.environ["PATH"] = f"{login.path}:{os.environ['PATH']}"
                use(f"ssh://{login.where}{top}/socket", "", place, "fd")
        else:
            cert, key = authority.issue("root", "root@example.org")
            options = f",cert={cert},key={key},ca={authority.ca}"
            use("tls://127.0.0.1:5641", options, place, "fd")
        server.terminate()


if __name__ == "__main__":
    main(*sys.argv[1:])

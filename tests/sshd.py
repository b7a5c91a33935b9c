"""A real sshd on loopback, and an ssh that logs in to it without a password.

Rules
- Keys, configuration and port are its own; nothing of the machine's is read or changed.
- It knows one user, who runs it, and one key.
"""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from getpass import getuser
from pathlib import Path

PACKAGES = {"openssh-client": "ssh", "openssh-server": "/usr/sbin/sshd"}
SSHD = Path("/usr/sbin/sshd")

SERVER_CONFIG = """\
ListenAddress 127.0.0.1
Port {port}
HostKey {top}/host
AuthorizedKeysFile {top}/user.pub
AuthenticationMethods publickey
PermitRootLogin prohibit-password
StrictModes no
UsePAM no
PidFile none
SetEnv PATH={top}/bin:/usr/bin:/bin
Subsystem sftp /usr/lib/openssh/sftp-server
LogLevel ERROR
"""
CLIENT_CONFIG = """\
IdentityFile {top}/user
IdentitiesOnly yes
UserKnownHostsFile {top}/known
GlobalKnownHostsFile none
StrictHostKeyChecking yes
BatchMode yes
LogLevel ERROR
"""


class Sshd:
    """One that runs.

    Attributes:
        where: USER@HOST:PORT, as addresses have it.
        path: to be put in front of PATH: it has that ``ssh``.
        config: for ``ssh -F``.
    """

    def __init__(self, directory: Path, port: int) -> None:
        self.where = f"{getuser()}@127.0.0.1:{port}"
        self.port = port
        self.path = directory / "client"
        self.config = directory / "ssh_config"


def why_not() -> str | None:
    """What keeps this machine from running one."""
    if not SSHD.exists() or shutil.which("ssh") is None:
        return f"Debian's packages {' '.join(PACKAGES)} are missing"
    return None


@contextlib.contextmanager
def running(
    directory: Path, program: tuple[str, ...] = (sys.executable, "-m", "server")
) -> Iterator[Sshd]:
    """One that runs meanwhile; ``program`` is what users find there as ``tmpfs9p``."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    for name in ("host", "user"):
        command = "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", directory / name
        subprocess.run(command, check=True)
    key = (directory / "host.pub").read_text()
    (directory / "known").write_text(f"[127.0.0.1]:{port} {key}")
    (directory / "sshd_config").write_text(SERVER_CONFIG.format(top=directory, port=port))
    (directory / "ssh_config").write_text(CLIENT_CONFIG.format(top=directory))
    words = " ".join(program)
    repository = Path(__file__).parents[1]
    _script(directory / "bin/tmpfs9p", f'cd {repository}; exec {words} "$@"')
    _script(directory / "client/ssh", f'exec /usr/bin/ssh -F {directory}/ssh_config "$@"')
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # sshd insists on it
    process = subprocess.Popen([SSHD, "-D", "-e", "-f", directory / "sshd_config"])
    with process:
        try:
            _wait_for(port, process)
            yield Sshd(directory, port)
        finally:
            process.terminate()


def _script(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    while True:
        assert process.poll() is None, f"sshd ended with {process.returncode}"
        with (
            contextlib.suppress(ConnectionRefusedError),
            socket.create_connection(("127.0.0.1", port)) as ready,
        ):
            assert ready.recv(4) == b"SSH-"
            ready.sendall(b"SSH-2.0-waits\r\n")  # else it complains
            return

"""Engine: the other end of the volume plugin's API, and the plugin in a process of its own."""

import contextlib
import http.client
import json
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .peer import GUARD
from .test_main import COMMAND, ENVIRON, Running, serving


class Refused(Exception):  # noqa: N818 it is what the plugin has said
    """The plugin has refused; says what it has told."""


class Connection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("plugin", timeout=GUARD)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(GUARD)
        self.sock.connect(str(self._path))


def post(socket: Path, path: str, body: bytes = b"") -> tuple[int, Any]:
    """The status and the body that answer a request."""
    with contextlib.closing(Connection(socket)) as connection:
        connection.request("POST", path, body)
        response = connection.getresponse()
        return response.status, json.loads(response.read())


class Site:
    """A server, a plugin, and what they have in a directory.

    Attributes:
        server: the running server.
        mounts: where the plugin mounts volumes.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.control = str(directory / "control")
        self.address = f"unix://{directory}/served"
        self.socket = directory / "plugin"
        self.dir = directory / "volumes"
        self.mounts = self.dir / "mounts"
        self._servers = contextlib.ExitStack()
        self._plugin: subprocess.Popen[str] | None = None

    def serve(self) -> None:
        """Start a server, empty."""
        options = ("--size", "16m", "--listen", self.address, "--control", self.control)
        self.server: Running = self._servers.enter_context(serving(*options))
        self.server.ready()

    def plug(self, *options: str) -> None:
        """Start the plugin."""
        given = ("--addr", self.address, "--control", self.control, "--socket", str(self.socket))
        with self._log.open("a") as log:
            self._plugin = subprocess.Popen(
                [*COMMAND, "volume-plugin", *given, "--dir", str(self.dir), *options],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=ENVIRON,
            )
        assert self._plugin.stdout is not None
        assert self._plugin.stdout.readline() == f"ready: {self.socket}\n", self.log()

    def unplug(self, number: signal.Signals = signal.SIGTERM) -> int:
        """End the plugin; its exit status."""
        assert self._plugin is not None
        self._plugin.send_signal(number)
        self._plugin.communicate(timeout=GUARD)
        return self._plugin.returncode

    def close(self) -> None:
        """End all, and unmount what a test may have left."""
        if self._plugin is not None and self._plugin.poll() is None:
            try:
                assert self.unplug() == 0
            finally:
                self._plugin.kill()
        for path in self.mounted():
            subprocess.run(["umount", "--lazy", path], check=True)
        self._servers.close()
        assert "Traceback" not in self.log()

    @property
    def _log(self) -> Path:
        return self._directory / "log"

    def log(self) -> str:
        """What all plugins have logged."""
        return self._log.read_text() if self._log.exists() else ""

    def ask(self, what: str, **fields: Any) -> Any:
        """What the plugin answers.

        Raises:
            Refused: it has.
        """
        body = json.dumps(fields).encode()
        status, reply = post(self.socket, f"/VolumeDriver.{what}", body)
        if status != 200:
            raise Refused(reply["Err"])
        assert reply.pop("Err") == ""
        return reply

    def mount(self, name: str, holder: str = "one") -> Path:
        """Mount a volume: where that is."""
        return Path(self.ask("Mount", Name=name, ID=holder)["Mountpoint"])

    def unmount(self, name: str, holder: str = "one") -> None:
        """The same container needs it no more."""
        self.ask("Unmount", Name=name, ID=holder)

    def status(self, name: str) -> Any:
        """The status of a volume."""
        return self.ask("Get", Name=name)["Volume"]["Status"]

    def mounted(self) -> list[str]:
        """The mounts that there are, one twice if it is there twice."""
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
        return [line.split()[4] for line in lines if line.split()[4].startswith(str(self.dir))]


@contextlib.contextmanager
def site(directory: Path) -> Iterator[Site]:
    """A server and a plugin that both run."""
    made = Site(directory)
    try:
        made.serve()
        made.plug()
        yield made
    finally:
        made.close()

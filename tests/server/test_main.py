"""The command, run as a process of its own."""

import contextlib
import json
import os
import pwd
import re
import shlex
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import pytest

from server.__main__ import described
from server.config import OPTIONS
from server.wire import constants as c
from server.wire import messages as m
from server.wire.codec import Message, parse

from .peer import GUARD

COMMAND = [sys.executable, "-P", "-m", "server"]  # -P: not the one in this directory
ENVIRON = {key: value for key, value in os.environ.items() if not key.startswith("TMPFS9P_")}


def run(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """The command, which is expected to end by itself."""
    return subprocess.run(
        [*COMMAND, *arguments],
        capture_output=True,
        text=True,
        timeout=GUARD,
        env={**ENVIRON, **environ},
        check=False,
    )


class Running:
    """A server in a process of its own."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.pid = process.pid
        self._process = process

    def ready(self) -> tuple[str, str]:
        """The next address that it says it serves, and how to mount it."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        match = re.fullmatch(r"ready: (.+)  (?:mount|connect): (.+)\n", line)
        assert match is not None, f"{line!r} does not say that the server is ready"
        return match[1], match[2]

    def connect(self) -> socket.socket:
        """A connection to the next address that it says it serves."""
        address, _ = self.ready()
        if address.startswith("unix://"):
            sock = socket.socket(socket.AF_UNIX)
            sock.connect(address.removeprefix("unix://"))
            return sock
        host, port = address.removeprefix("tcp://").rsplit(":", 1)
        return socket.create_connection((host, int(port)), timeout=GUARD)

    def tell(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def fails(self) -> tuple[int, str]:
        """Its exit status, and what it said; it is expected to end by itself."""
        _, log = self._process.communicate(timeout=GUARD)
        return self._process.returncode, log

    def stop(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, list[str]]:
        """Its exit status, and the events that it logged."""
        self._process.send_signal(number)
        _, log = self._process.communicate(timeout=GUARD)
        return self._process.returncode, [json.loads(line)["event"] for line in log.splitlines()]


@contextlib.contextmanager
def serving(
    *arguments: str,
    before: Sequence[str] = (),
    pass_fds: Sequence[int] = (),
    environ: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[Running]:
    process = subprocess.Popen(
        [*before, *COMMAND, "serve", "--size", "1m", "--log-format", "json", *arguments],
        pass_fds=pass_fds,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**ENVIRON, **environ},
    )
    with process:
        try:
            yield Running(process)
        finally:
            process.terminate()
            process.communicate(timeout=GUARD)


def ask(sock: socket.socket, message: Message) -> Message:
    """The reply to a request."""
    sock.sendall(message.frame(1))
    with sock.makefile("rb") as replies:
        data = replies.read(4)
        size = struct.unpack("<I", data)[0]
        return parse(data + replies.read(size - 4))[1]


# Information


def test_version() -> None:
    done = run("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"tmpfs9p {described()}\n", "")


@pytest.mark.parametrize("arguments", [["--help"], ["serve", "--help"]])
def test_help_has_examples(arguments: list[str]) -> None:
    done = run(*arguments)
    assert (done.returncode, done.stderr) == (0, "")
    examples = done.stdout[done.stdout.index("examples:") :]
    assert "tmpfs9p serve --size 8g" in examples
    assert "mount -t 9p -o trans=tcp,port=5640,version=9p2000.L" in examples


def test_help_names_every_option_and_its_default() -> None:
    text = "".join(run("serve", "--help").stdout.split())  # lines end within words that have a dash
    for key, option in OPTIONS.items():
        assert "".join(f"--{key}{option.metavar}{option.help}".split()) in text
    for default in ("(default:tcp://127.0.0.1:5640)", "(default:50%)", "(default:1m)"):
        assert default in text
    assert "--configFILE" in text


# Serving


def test_it_says_where_it_serves_and_how_to_mount_it() -> None:
    with serving("--listen", "tcp://127.0.0.1:0", "--msize", "64k") as server:
        address, mount = server.ready()
    port = re.fullmatch(r"tcp://127\.0\.0\.1:(\d+)", address)
    assert port is not None
    assert port[1] != "0"
    options = f"trans=tcp,port={port[1]},version=9p2000.L,msize=65536"
    assert mount == f"mount -t 9p -o {options} 127.0.0.1 /mnt"


def test_it_serves_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "t9.sock"
    with serving("--listen", f"unix://{path}", "--msize", "16m") as server:
        options = "trans=unix,version=9p2000.L,msize=1048576"
        assert server.ready() == (f"unix://{path}", f"mount -t 9p -o {options} {path} /mnt")
        assert server.stop() == (0, ["stopping"])
    assert not path.exists()


def test_a_mount_command_can_be_pasted_whatever_the_path(tmp_path: Path) -> None:
    path = tmp_path / "with a space"
    with serving("--listen", f"unix://{path}") as server:
        assert shlex.split(server.ready()[1])[-2:] == [str(path), "/mnt"]


def test_it_says_so_for_each_address(tmp_path: Path) -> None:
    path = tmp_path / "t9.sock"
    with serving("--listen", f"unix://{path}", "--listen", "tcp://127.0.0.1:0") as server:
        assert server.ready()[0] == f"unix://{path}"
        assert server.ready()[0].startswith("tcp://127.0.0.1:")


def test_the_options_reach_the_file_system() -> None:
    options = "--listen tcp://127.0.0.1:0 --size 64k --nr-inodes 9 --mode 750 --uid 11 --gid 12"
    with serving(*options.split()) as server, server.connect() as sock:
        ask(sock, m.Tversion(8192, c.VERSION))
        ask(sock, m.Tattach(0, c.NOFID, b"", b"", 0))
        root, numbers = ask(sock, m.Tgetattr(0, c.GETATTR_ALL)), ask(sock, m.Tstatfs(0))
    assert isinstance(root, m.Rgetattr)
    assert (root.mode, root.uid, root.gid) == (0o040750, 11, 12)
    assert isinstance(numbers, m.Rstatfs)
    assert (numbers.blocks, numbers.files) == (16, 9)


def test_environment_and_file_are_read(tmp_path: Path) -> None:
    file = tmp_path / "t9.toml"
    file.write_text('listen = ["tcp://127.0.0.1:0"]\nmsize = "8k"\n')
    with serving("--config", str(file), environ={"TMPFS9P_MSIZE": "16k"}) as server:
        assert "msize=16384" in server.ready()[1]


def test_it_says_that_it_is_ready_however_little_is_logged() -> None:
    with serving("--listen", "tcp://127.0.0.1:0", "--log-level", "error") as server:
        assert server.ready()[0].startswith("tcp://127.0.0.1:")
        assert server.stop() == (0, [])


def test_files_spill_to_a_swap_file_that_nobody_sees(tmp_path: Path) -> None:
    options = f"--listen tcp://127.0.0.1:0 --size 8m --ram 2m --swap {tmp_path}/swap"
    contents = [bytes([i + 1]) * 65536 for i in range(7 * 16)]
    with serving(*options.split()) as server, server.connect() as sock:
        assert not os.listdir(tmp_path)
        ask(sock, m.Tversion(1 << 20, c.VERSION))
        ask(sock, m.Tattach(0, c.NOFID, b"", b"", 0))
        ask(sock, m.Tlcreate(0, b"file", c.O_RDWR, 0o600, 0))
        for place, data in enumerate(contents):
            assert ask(sock, m.Twrite(0, place * 65536, data)) == m.Rwrite(65536)
        for place, data in enumerate(contents):
            assert ask(sock, m.Tread(0, place * 65536, 65536)) == m.Rread(data)
        assert server.stop()[0] == 0


# Stopping


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_success(number: signal.Signals) -> None:
    with serving("--listen", "tcp://127.0.0.1:0") as server:
        server.ready()
        assert server.stop(number) == (0, ["stopping"])


def test_a_signal_ends_the_connections_too() -> None:
    with serving("--listen", "tcp://127.0.0.1:0") as server, server.connect() as sock:
        assert ask(sock, m.Tversion(8192, c.VERSION)) == m.Rversion(8192, c.VERSION)
        assert server.stop() == (0, ["client connected", "stopping", "client gone"])
        assert sock.recv(1) == b""


# Under a service manager


@contextlib.contextmanager
def activated(sockets: dict[str, socket.socket], *arguments: str) -> Iterator[Running]:
    """A server to which these sockets are passed, as systemd does it."""
    moves = [f"{3 + i}<&{sock.fileno()}" for i, sock in enumerate(sockets.values())]
    told = f"LISTEN_PID=$$ LISTEN_FDS={len(sockets)} LISTEN_FDNAMES={':'.join(sockets)}"
    shell = ["bash", "-c", f'{told} exec "$@" {" ".join(moves)}', "bash"]
    numbers = [sock.fileno() for sock in sockets.values()]
    with serving(*arguments, before=shell, pass_fds=numbers) as server:
        yield server


def test_sockets_that_are_passed_are_served(tmp_path: Path) -> None:
    path = tmp_path / "t9.sock"
    with (
        socket.create_server(("127.0.0.1", 0)) as tcp,
        socket.socket(socket.AF_UNIX) as unix,
    ):
        unix.bind(str(path))
        unix.listen()
        with activated({"tcp": tcp, "unix": unix}, "--listen", "fd://") as server:
            for sock in (server.connect(), server.connect()):
                with sock:
                    version = ask(sock, m.Tversion(8192, c.VERSION))
                    assert version == m.Rversion(8192, c.VERSION)
            environ = Path(f"/proc/{server.pid}/environ").read_bytes()
            assert b"LISTEN_FDS" in environ  # it was there, whatever has become of it
            assert server.stop()[0] == 0
        assert path.exists()  # for the next server


def test_sockets_are_chosen_by_their_names() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as one,
        socket.create_server(("127.0.0.1", 0)) as two,
        activated({"one": one, "two": two}, "--listen", "fd://two") as server,
    ):
        assert server.ready()[0] == f"tcp://127.0.0.1:{two.getsockname()[1]}"
        assert "sockets were passed that no --listen takes" in server.stop()[1]


def test_a_socket_that_is_passed_lets_nobody_in_who_is_not_allowed() -> None:
    with (
        socket.create_server(("0.0.0.0", 0)) as sock,
        activated({"a": sock}, "--listen", "fd://") as server,
    ):
        status, why = server.fails()
        assert status == 2
        assert f"tcp://0.0.0.0:{sock.getsockname()[1]}: others than this machine could" in why


def test_without_a_socket_of_that_name_it_exits_2() -> None:
    done = run("serve", "--size", "1m", "--listen", "fd://mine")
    why = "no such socket was passed; this takes systemd, or the like"
    assert (done.returncode, done.stderr) == (2, f"tmpfs9p: fd://mine: {why}\n")


@pytest.fixture
def notices(tmp_path: Path) -> Iterator[socket.socket]:
    """Where the service manager listens."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.settimeout(GUARD)
        yield sock


def heard(sock: socket.socket) -> str:
    """The next that the service manager hears, but for that the server is alive."""
    while (text := sock.recv(4096)) == b"WATCHDOG=1":
        pass
    return text.partition(b"\n")[0].decode()


def test_the_service_manager_hears_what_the_server_does(
    notices: socket.socket, tmp_path: Path
) -> None:
    file, control = tmp_path / "t9.toml", str(tmp_path / "control")
    file.write_text("[export.a]\nsize = '64k'\n")
    options = f"--listen tcp://127.0.0.1:0 --ram 4m --control {control} --config {file}"
    told = {"NOTIFY_SOCKET": str(notices.getsockname()), "WATCHDOG_USEC": "4000000"}
    with serving(*options.split(), environ=told) as server:
        assert heard(notices) == "READY=1"
        assert notices.recv(4096) == b"WATCHDOG=1"
        file.write_text("mode = '700'\nnr-inodes = 7\n[export.b]\nsize = '64k'\n")
        server.tell(signal.SIGHUP)
        assert [heard(notices), heard(notices)] == ["RELOADING=1", "READY=1"]
        run("export", "add", "c", "--control", control)
        listed = json.loads(run("export", "ls", "--json", "--control", control).stdout)
        assert [(it["name"], it["nr_inodes"]) for it in listed] == [("/", 7), ("b", 7), ("c", 7)]
        file.write_text("nonsense = 1\n")
        server.tell(signal.SIGHUP)
        assert [heard(notices), heard(notices)] == ["RELOADING=1", "READY=1"]
        status, events = server.stop()
        assert heard(notices) == "STOPPING=1"
    assert status == 0
    assert events == [
        *("export removed", "export not changed", "export changed", "export added"),
        *("configuration reloaded", "configuration not reloaded, the old one stays", "stopping"),
    ]


# What can not be


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["serve", "--size", "much"], "tmpfs9p: --size: 'much' is not allowed; it takes"),
        (["serve", "--listen", "here"], "tmpfs9p: --listen: 'here' is not allowed; it takes"),
        (["serve", "--mode", "999"], "tmpfs9p: --mode: '999' is not allowed; it takes"),
        (["serve", "--config", "/missing.toml"], "tmpfs9p: --config: /missing.toml: No such file"),
        (["serve", "--listen", "unix:///missing/t9"], "tmpfs9p: unix:///missing/t9: No such file"),
        (["serve", "--listen", "tcp://a..b:1"], "tmpfs9p: tcp://a..b:1: "),
        (
            ["serve", "--size", "1m", "--listen", "tcp://0.0.0.0:0"],
            "tmpfs9p: tcp://0.0.0.0:0: others than this machine could connect; say who may",
        ),
        (["serve", "--size", "16777216t"], "tmpfs9p: --size: "),
        (["serve", "--size", "9" * 30], "tmpfs9p: --size: "),
        (["serve", "--size", "8m", "--ram", "1m"], "tmpfs9p: --ram: 1048576 is less than --size"),
        (
            ["serve", "--size", "8m", "--ram", "1m", "--swap", "/missing/swap"],
            "tmpfs9p: --swap: /missing/swap: No such file",
        ),
        (["serve", "--nonsense"], "unrecognized arguments: --nonsense"),
        (["serve", "--size"], "--size: expected one argument"),
        (["nonsense"], "invalid choice: 'nonsense'"),
        ([], "the following arguments are required: COMMAND"),
    ],
    ids=lambda it: " ".join(it) if isinstance(it, list) else "",
)
def test_what_can_not_be_exits_2_with_one_clear_message(arguments: list[str], message: str) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_an_address_space_that_the_host_refuses_exits_2() -> None:
    done = run("serve", "--size", "128t", "--listen", "tcp://127.0.0.1:0")
    assert done.returncode == 2
    assert "tmpfs9p: --size: " in done.stderr
    assert "Cannot allocate memory" in done.stderr


def test_ram_that_the_host_refuses_is_named_where_it_is_not_all(tmp_path: Path) -> None:
    swap = tmp_path / "swap"
    given = f"--size 129t --ram 128t --swap {swap} --swap-size 1m"
    done = run("serve", *given.split())
    assert (done.returncode, "tmpfs9p: --ram: " in done.stderr) == (2, True)
    assert not swap.exists()


def test_a_file_that_is_there_is_not_taken_for_swap(tmp_path: Path) -> None:
    swap = tmp_path / "precious"
    swap.write_text("data")
    done = run("serve", "--size", "8m", "--ram", "1m", "--swap", str(swap))
    assert done.returncode == 2
    assert done.stderr == f"tmpfs9p: --swap: {swap}: File exists\n"
    assert swap.read_text() == "data"


def test_a_bad_environment_exits_2() -> None:
    done = run("serve", TMPFS9P_MSIZE="1")
    assert done.returncode == 2
    assert done.stderr.startswith("tmpfs9p: TMPFS9P_MSIZE: '1' is not allowed; it takes a size")


def test_an_address_in_use_exits_2_and_gives_up_the_others(tmp_path: Path) -> None:
    path = tmp_path / "t9.sock"
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = f"tcp://127.0.0.1:{other.getsockname()[1]}"
        done = run("serve", "--size", "1m", "--listen", f"unix://{path}", "--listen", taken)
    assert done.returncode == 2
    assert done.stderr.endswith(f"tmpfs9p: {taken}: Address already in use\n")
    assert not path.exists()


# As somebody else


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_a_server_that_root_has_started_serves_as_somebody_else(tmp_path: Path) -> None:
    daemon = pwd.getpwnam("daemon")
    sock, control = tmp_path / "t9.sock", tmp_path / "control"
    arguments = [
        *("--user", "daemon", "--listen", f"unix://{sock}", "--control", str(control)),
        *("--size", "4m", "--ram", "1m", "--swap", str(tmp_path / "swap")),
    ]
    # Whom it becomes may not write what was measured of it here.
    unmeasured = {"COVERAGE_PROCESS_CONFIG": ""}
    with serving(*arguments, environ=unmeasured) as server, server.connect() as client:
        status = Path(f"/proc/{server.pid}/status").read_text().splitlines()
        held = {key: value.split() for key, _, value in (line.partition(":") for line in status)}
        assert set(held["Uid"]) == {str(daemon.pw_uid)}
        assert set(held["Gid"]) == {str(daemon.pw_gid)}
        assert [held[key] for key in ("CapPrm", "CapEff", "CapAmb")] == [["0" * 16]] * 3
        for path in (sock, control):
            assert (path.stat().st_uid, path.stat().st_gid) == (daemon.pw_uid, daemon.pw_gid)
        ask(client, m.Tversion(1 << 20, c.VERSION))
        ask(client, m.Tattach(0, c.NOFID, b"", b"", 0))
        attributes = ask(client, m.Tgetattr(0, c.GETATTR_ALL))
        assert isinstance(attributes, m.Rgetattr)
        assert (attributes.uid, attributes.gid) == (daemon.pw_uid, daemon.pw_gid)
        ask(client, m.Tlcreate(0, b"file", c.O_RDWR, 0o600, 0))
        size = 64 << 10
        for place in range(48):  # three times its RAM
            written = ask(client, m.Twrite(0, place * size, bytes([place]) * size))
            assert written == m.Rwrite(size)
        for place in range(48):
            assert ask(client, m.Tread(0, place * size, size)) == m.Rread(bytes([place]) * size)
        assert run("export", "ls", "--control", str(control)).returncode == 0
        assert server.stop()[0] == 0


def test_a_user_that_is_none_exits_2() -> None:
    done = run("serve", "--size", "1m", "--user", "nobody that there is")
    assert (done.returncode, done.stdout) == (2, "")
    allowed = "the name or number of a user here"
    assert done.stderr == (
        f"tmpfs9p: --user: 'nobody that there is' is not allowed; it takes {allowed}\n"
    )


# Metrics


def http(path: Path, what: str) -> bytes:
    """The answer to a request at a unix socket."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(GUARD)
        sock.connect(str(path))
        sock.sendall(f"GET {what} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        with sock.makefile("rb") as answer:
            return answer.read()


def test_metrics_are_served_beside_clients(tmp_path: Path) -> None:
    path = tmp_path / "metrics"
    options = ["--listen", "tcp://127.0.0.1:0", "--metrics", f"unix://{path}"]
    with serving(*options) as server, server.connect() as sock:
        ask(sock, m.Tversion(8192, c.VERSION))
        assert b'tmpfs9p_requests_total{type="Tversion"} 1.0' in http(path, "/metrics")
        assert http(path, "/readyz").startswith(b"HTTP/1.1 200")
        status, events = server.stop()
    assert status == 0
    assert events[0] == "metrics are served"
    assert not path.exists()


def test_a_server_that_stops_is_not_ready_but_well(tmp_path: Path) -> None:
    path = tmp_path / "metrics"
    options = ["--listen", "tcp://127.0.0.1:0", "--metrics", f"unix://{path}"]
    with serving(*options) as server, server.connect() as sock:
        sock.sendall(m.Tversion(8192, c.VERSION).frame(c.NOTAG)[:9])  # which is waited for
        while b"\ntmpfs9p_connections 1.0\n" not in http(path, "/metrics"):
            pass
        server.tell(signal.SIGTERM)
        while http(path, "/readyz").startswith(b"HTTP/1.1 200"):
            pass
        assert http(path, "/readyz").startswith(b"HTTP/1.1 503")
        assert http(path, "/healthz").startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("module", ["aiohttp", "prometheus_client"])
def test_metrics_take_their_libraries(module: str, tmp_path: Path) -> None:
    (tmp_path / f"{module}.py").write_text(f"raise ModuleNotFoundError(name={module!r})")
    search = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = run("serve", "--size", "1m", "--metrics", "tcp://127.0.0.1:0", PYTHONPATH=search)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"tmpfs9p: --metrics: no module {module}; pip install 'tmpfs9p[metrics]'\n"
    )


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("tls://127.0.0.1:1", "'tls://127.0.0.1:1' is not allowed; it takes tcp://HOST:PORT or"),
        ("127.0.0.1:1", "it takes tcp://HOST:PORT or unix:///PATH"),
        ("tcp://0.0.0.0:0", "others than this machine could connect; say who may: add --allow"),
        ("unix:///missing/socket", "No such file or directory"),
    ],
)
def test_metrics_where_they_can_not_be_exit_2(address: str, why: str) -> None:
    listen = ["--listen", "tcp://127.0.0.1:0"]
    done = run("serve", "--size", "1m", "--metrics", address, *listen)
    assert (done.returncode, done.stdout) == (2, "")
    assert why in done.stderr
    assert "Traceback" not in done.stderr

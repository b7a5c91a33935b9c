"""deploy/systemd: what systemd's own tools say of the units, and what they do under systemd."""

import json
import pwd
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from server.config import load, size
from server.config_command import most_memory

from .conftest import DEPLOY, ROOT, documented
from .machine import Machine

UNITS = ["tmpfs9p.service", "tmpfs9p.socket", "tmpfs9p.slice"]
#: The most that `systemd-analyze security` may give; 10 is no protection at all.
EXPOSURE = 2.0
CONFIG = "/etc/tmpfs9p/tmpfs9p.toml"
SOCKET = "unix:///run/tmpfs9p/tmpfs9p.sock"

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="no systemd: apt install systemd"
)


def analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemd-analyze", *arguments], capture_output=True, text=True, check=False, timeout=60
    )


# What its tools say


@needs_systemd
def test_the_sandbox_is_tight() -> None:
    done = analyze("security", "--offline=yes", "--no-pager", DEPLOY / "systemd/tmpfs9p.service")
    match = re.search(r"Overall exposure level for tmpfs9p.service: (\d+\.\d)", done.stdout)
    assert match is not None, done.stdout + done.stderr
    assert float(match[1]) <= EXPOSURE


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """A root folder in which the units and what they start are where they belong."""
    shutil.copytree("/usr/lib/systemd/system", tmp_path / "usr/lib/systemd/system", symlinks=True)
    units = tmp_path / "etc/systemd/system"
    units.mkdir(parents=True)
    for unit in UNITS:
        shutil.copy(DEPLOY / "systemd" / unit, units)
    for program in ("usr/local/bin/tmpfs9p", "bin/kill"):
        path = tmp_path / program
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(0o755)
    return tmp_path


@needs_systemd
def test_the_units_are_whole(installed: Path) -> None:
    done = analyze("verify", "--man=no", f"--root={installed}", *UNITS)
    assert (done.returncode, done.stderr) == (0, "")


@needs_systemd
def test_a_unit_that_is_not_whole_is_noticed(installed: Path) -> None:
    (installed / "usr/local/bin/tmpfs9p").unlink()
    assert analyze("verify", "--man=no", f"--root={installed}", *UNITS).returncode != 0


def test_the_slice_has_room_for_what_the_configuration_may_take_and_little_more() -> None:
    text = (DEPLOY / "systemd/tmpfs9p.slice").read_text()
    match = re.search(r"^MemoryMax=(\w+)$", text, re.MULTILINE)
    assert match is not None
    need = most_memory(load({}, {}, DEPLOY / "tmpfs9p.toml"))
    assert need <= size(match[1]) <= 1.2 * need


# What they do


@pytest.fixture(scope="module")
def host(machine: Machine) -> Machine:
    """A machine on which it was installed as the documentation says."""
    machine.sh(documented("systemd"))
    return machine


def shown(host: Machine, *names: str) -> dict[str, str]:
    """Properties of the service."""
    wanted = ",".join(names)
    lines = host.sh(f"systemctl show --property={wanted} tmpfs9p.service").splitlines()
    return dict(line.split("=", 1) for line in lines)


def wait_for(host: Machine, condition: str) -> None:
    host.sh(f"for i in $(seq 600); do if {condition}; then exit 0; fi; sleep 0.05; done; exit 1")


def test_it_serves_when_it_is_started(host: Machine) -> None:
    state = shown(host, "ActiveState", "StatusText", "User", "ControlGroup")
    assert state == {
        "ActiveState": "active",
        "StatusText": "exports served: 1",
        "User": "tmpfs9p",
        "ControlGroup": "/tmpfs9p.slice/tmpfs9p.service",
    }
    host.sh(f"echo hello | tmpfs9p cp --addr {SOCKET} - :/a")
    assert host.sh("tmpfs9p cat --addr tcp://127.0.0.1:5640 /a") == "hello\n"


def test_it_has_nothing_that_it_does_not_need(host: Machine) -> None:
    pid = shown(host, "MainPID")["MainPID"]
    status = host.sh(f"cat /proc/{pid}/status")
    held = dict(re.findall(r"^(\w+):\s+(.*)$", status, re.MULTILINE))
    assert [held[key] for key in ("CapPrm", "CapEff", "CapBnd")] == ["0" * 16] * 3
    assert (held["NoNewPrivs"], held["Seccomp"]) == ("1", "2")
    environ = host.sh(f"tr '\\0' '\\n' < /proc/{pid}/environ")
    assert "NOTIFY_SOCKET" in environ


def test_every_user_is_himself(host: Machine) -> None:
    nobody = pwd.getpwnam("nobody").pw_uid
    for address in (SOCKET, "tcp://127.0.0.1:5640"):
        name = f":/of-{address[:3]}"
        as_nobody = "setpriv --reuid=nobody --regid=nogroup --clear-groups"
        # He has no home that he could write, where the file would unpack itself.
        host.sh(f"echo x | SHIV_ROOT=/tmp/shiv {as_nobody} tmpfs9p cp --addr {address} - {name}")
        stat = host.sh(f"tmpfs9p stat --addr {SOCKET} {name[1:]}")
        assert re.search(rf"Uid: \(? *{nobody}\b", stat), stat


def test_a_reload_takes_on_what_has_changed(host: Machine) -> None:
    host.sh(f"printf '[export.scratch]\\nsize = \"64m\"\\n' >> {CONFIG}; systemctl reload tmpfs9p")
    wait_for(host, "systemctl show -p StatusText tmpfs9p | grep -q 'served: 2'")
    listed = json.loads(host.sh("tmpfs9p export ls --json --control /run/tmpfs9p/control"))
    assert [(it["name"], it["size"]) for it in listed] == [("/", 2 << 30), ("scratch", 64 << 20)]
    host.sh(f"echo nonsense = 1 >> {CONFIG}; systemctl reload tmpfs9p")
    wait_for(host, "systemctl show -p StatusText tmpfs9p | grep -q 'nonsense: no such key'")
    assert host.sh(f"tmpfs9p cat --addr {SOCKET} /a") == "hello\n"
    host.sh(f"sed -i '/nonsense/d' {CONFIG}; systemctl reload tmpfs9p")
    wait_for(host, "systemctl show -p StatusText tmpfs9p | grep -qx 'StatusText=exports served: 2'")


def test_a_restart_keeps_the_sockets_and_takes_what_is_configured(host: Machine) -> None:
    swap = 'ram = "64m"\\nswap = ["/var/lib/tmpfs9p/swap"]\\nswap-size = "128m"'
    host.sh(f"sed -i '1i {swap}' {CONFIG}; systemctl stop tmpfs9p.service")
    host.sh("systemctl is-active tmpfs9p.socket")
    # The socket starts it: who connects waits.
    assert host.sh(f"tmpfs9p ls --addr {SOCKET} /") == ""
    host.sh(
        f"head -c 100m /dev/urandom > /run/large; tmpfs9p cp --addr {SOCKET} /run/large :/large"
    )
    assert (
        host.sh(f"tmpfs9p cat --addr {SOCKET} /large | cmp - /run/large && echo same") == "same\n"
    )


def test_a_server_that_is_stuck_is_started_again(host: Machine) -> None:
    host.sh(
        "mkdir -p /run/systemd/system/tmpfs9p.service.d;"
        "printf '[Service]\\nWatchdogSec=1\\n' > /run/systemd/system/tmpfs9p.service.d/soon.conf;"
        "systemctl daemon-reload; systemctl restart tmpfs9p.service;"
        "systemctl kill --signal=STOP tmpfs9p.service"
    )
    wait_for(host, "systemctl show -p NRestarts tmpfs9p | grep -qx NRestarts=1")
    assert host.sh(f"tmpfs9p ls --addr {SOCKET} /") == ""
    assert "watchdog" in host.sh("journalctl --no-pager -u tmpfs9p.service")


def test_it_ends_well(host: Machine) -> None:
    host.sh("systemctl stop tmpfs9p.socket tmpfs9p.service")
    assert shown(host, "ActiveState", "Result", "ExecMainStatus") == {
        "ActiveState": "inactive",
        "Result": "success",
        "ExecMainStatus": "0",
    }
    assert host.run(f"tmpfs9p ls --addr {SOCKET} /").returncode != 0


def test_what_it_listens_at_is_what_the_documentation_says() -> None:
    text = (ROOT / "docs/operations.md").read_text()
    socket = (DEPLOY / "systemd/tmpfs9p.socket").read_text()
    for where in re.findall(r"^ListenStream=(\S+)$", socket, re.MULTILINE):
        assert f"`{where}`" in text

"""Containers of podman on volumes of ``tmpfs9p volume-plugin``."""

import json
import os
import re
import shlex
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.control import ask
from tests.server.engine import Site, site

from . import fuse
from .podman import Podman, why_not
from .uml import REPOSITORY

pytestmark = pytest.mark.kernel


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Site]:
    reason = fuse.why_not() or why_not()
    if reason is not None:
        pytest.skip(reason)
    with site(tmp_path) as here:
        yield here


@pytest.fixture
def podman(here: Site) -> Iterator[Podman]:
    podman = Podman(here.socket)
    yield podman
    podman.close()


def exports(here: Site) -> list[str]:
    return [export["name"] for export in ask(here.control, "export ls", {})]


def processes(here: Site) -> list[str]:
    """The processes that serve mounts."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            line = Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
        except OSError:
            continue
        if " mount " in line and str(here.mounts) in line:
            found.append(line)
    return found


def test_containers_share_a_volume_and_leave_nothing_behind(here: Site, podman: Podman) -> None:
    podman.create("v", "size=4m")
    for name in ("one", "two"):
        podman.start(name, "v")
    assert len(here.mounted()) == len(processes(here)) == 1
    for turn in range(3):
        podman.inside("one", f"echo {turn} from one >/mnt/file")
        assert podman.inside("two", "cat /mnt/file; echo more >>/mnt/file") == f"{turn} from one\n"
        assert podman.inside("one", "cat /mnt/file") == f"{turn} from one\nmore\n"
    status, output = podman.run("volume", "rm", "v")
    assert status != 0
    assert "is being used by the following container(s)" in output
    podman.end("one")
    assert podman.inside("two", "cat /mnt/file") == "2 from one\nmore\n"
    podman.end("two")
    assert (here.mounted(), processes(here)) == ([], [])
    assert podman.container("v", "cat /mnt/file") == (0, "2 from one\nmore\n")
    podman.do("volume", "rm", "v")
    assert (here.mounted(), processes(here), exports(here)) == ([], [], ["/"])
    assert os.listdir(here.mounts) == []


def test_a_volume_has_what_its_options_say(here: Site, podman: Podman) -> None:
    podman.create("v", "size=1m", "mode=0750", "uid=7", "gid=8")
    stated = podman.container(
        "v", "stat -c '%a %u %g' /mnt; df -P /mnt | { read _; read _ n _; echo $n; }"
    )
    assert stated == (0, "750 7 8\n1024\n")
    podman.create("read", "readonly=true")
    status, output = podman.container("read", "touch /mnt/file")
    assert (status, output) == (1, "touch: /mnt/file: Read-only file system\n")
    told = json.loads(podman.do("volume", "inspect", "v"))[0]
    assert (told["Driver"], told["Status"]["size"]) == ("tmpfs9p", 1 << 20)


def test_a_full_volume_is_enospc_inside(here: Site, podman: Podman) -> None:
    podman.create("v", "size=1m")
    fill = "dd if=/dev/zero of=/mnt/file bs=64k count=100"
    _, output = podman.container("v", f"{fill}; stat -c %s /mnt/file; rm -f /mnt/file")
    assert "No space left on device" in output
    assert "1048576\n" in output
    assert podman.container("v", "echo room >/mnt/new; cat /mnt/new") == (0, "room\n")


def test_the_plugin_is_killed_while_containers_run(here: Site, podman: Podman) -> None:
    podman.create("v")
    podman.start("one", "v")
    podman.inside("one", "echo before >/mnt/file")
    here.unplug(signal.SIGKILL)
    assert podman.inside("one", "cat /mnt/file; echo meanwhile >/mnt/file") == "before\n"
    here.plug()
    podman.start("two", "v")
    assert podman.inside("two", "cat /mnt/file") == "meanwhile\n"
    assert len(here.mounted()) == len(processes(here)) == 1
    podman.end("one", "two")
    assert (here.mounted(), processes(here)) == ([], [])
    podman.do("volume", "rm", "v")
    assert exports(here) == ["/"]


def test_the_server_is_restarted_while_containers_run(here: Site, podman: Podman) -> None:
    podman.create("v")
    podman.start("one", "v")
    podman.inside("one", "echo before >/mnt/file")
    assert here.server.stop()[0] == 0
    here.serve()
    here.unplug()
    here.plug()
    assert "the server had lost a volume: made again, empty" in here.log()
    assert podman.inside("one", "ls /mnt; echo after >/mnt/new") == ""
    podman.start("two", "v")
    assert podman.inside("two", "cat /mnt/new") == "after\n"
    podman.end("one", "two")
    assert (here.mounted(), processes(here)) == ([], [])


@pytest.mark.parametrize(
    ("option", "why"),
    [
        ("colour=red", "colour: no such option; there are: size, ram, nr-inodes, mode, uid, gid"),
        ("size=much", "size: 'much' is not allowed; it takes a number of bytes"),
        ("size=1t", "is more than the RAM"),
    ],
)
def test_podman_tells_what_can_not_be(here: Site, podman: Podman, option: str, why: str) -> None:
    status, output = podman.run("volume", "create", "--driver", "tmpfs9p", "--opt", option, "v")
    assert status != 0
    assert why in output
    assert podman.do("volume", "ls", "--quiet") == ""


def test_the_documented_commands_do_what_they_say(here: Site, podman: Podman) -> None:
    text = (REPOSITORY / "docs" / "containers.md").read_text()
    commands = re.findall(r"^    podman (.*)$", text, re.MULTILINE)
    outputs = [podman.do(*shlex.split(it.replace("size=1g", "size=1m"))) for it in commands]
    assert outputs == ["scratch\n", "", "hello\n", "scratch\n"]
    assert exports(here) == ["/"]

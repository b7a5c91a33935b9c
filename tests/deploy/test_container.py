"""deploy/container: the image that its Containerfile makes, run by podman as compose.yaml has it.

The build takes the network (Debian's and Python's packages), and a minute or two: it is kept in
build/image for as long as the Containerfile and the source stay the same.
"""

import fcntl
import hashlib
import json
import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from server.config import load, size
from server.config_command import most_memory
from tests.server.test_main import run, serving

from .conftest import DEPLOY, ROOT
from .image import Stage, build, instructions, words

FOLDER = DEPLOY / "container"
CONTAINERFILE = FOLDER / "Containerfile"
COMPOSE: dict[str, Any] = yaml.safe_load((FOLDER / "compose.yaml").read_text())
SERVICE: dict[str, Any] = COMPOSE["services"]["tmpfs9p"]
#: As podman works where there is no systemd and no registry.
PODMAN = ["podman", "--runtime=runc", "--cgroup-manager=cgroupfs"]
LIMITS = ["--ulimit=nofile=1024:20000", "--ulimit=nproc=1000:1000"]
#: The code is the same, and build/compiled has shown that it can be compiled.
ARGUMENTS = {"TMPFS9P_COMPILE": "0"}


def why_not() -> str | None:
    if os.getuid() != 0:
        return "only root can build an image here"
    missing = [it for it in ("mmdebstrap", "podman", "runc") if shutil.which(it) is None]
    return f"no {', '.join(missing)}: apt install mmdebstrap podman runc" if missing else None


def fingerprint() -> str:
    """Of all that the image is made of."""
    files = [
        CONTAINERFILE,
        ROOT / "pyproject.toml",
        ROOT / "setup.py",
        Path(__file__).with_name("image.py"),
    ]
    for package in ("client", "server", "tmpfs_core"):
        files += sorted((ROOT / package).rglob("*.py"))
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in files))
    return digest.hexdigest()


@pytest.fixture(scope="session")
def image() -> Stage:
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    folder = ROOT / "build/image"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        kept, made_of = folder / "kept.json", fingerprint()
        if not kept.exists() or json.loads(kept.read_text())["of"] != made_of:
            kept.unlink(missing_ok=True)
            built = build(CONTAINERFILE, ROOT, folder, ARGUMENTS)
            told = {"env": built.env, "workdir": built.workdir, "metadata": built.metadata}
            kept.write_text(json.dumps(told | {"root": str(built.root), "of": made_of}))
        told = json.loads(kept.read_text())
    return Stage(Path(told["root"]), told["env"], told["workdir"], told["metadata"])


def podman(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PODMAN, *map(str, arguments)], capture_output=True, text=True, check=False, timeout=60
    )


def options(image: Stage, environ: dict[str, str]) -> list[str]:
    """How podman runs an image as compose.yaml has it: nobody's root, and nothing to write."""
    env = [f"--env={key}={value}" for key, value in (image.env | environ).items()]
    given = [f"--user={SERVICE['user']}", "--read-only", "--network=none", *LIMITS]
    given += [f"--cap-drop={it}" for it in SERVICE["cap_drop"]]
    given += [f"--security-opt={it}" for it in SERVICE["security_opt"]]
    assert SERVICE["read_only"]
    entry = json.dumps(words(image, "ENTRYPOINT"))
    return [*env, *given, f"--entrypoint={entry}"]


@pytest.fixture
def server(image: Stage, tmp_path: Path) -> Iterator[str]:
    """The name of a container that serves as compose.yaml has it."""
    name = f"tmpfs9p-test-{os.getpid()}"
    swap = tmp_path / "swap"
    swap.mkdir()
    os.chown(swap, 5640, 5640)
    volume = f"--volume={swap}:{SERVICE['volumes'][0].split(':')[1]}"
    given = [f"--name={name}", "--detach", volume, *options(image, SERVICE["environment"])]
    done = podman("run", *given, "--rootfs", image.root, *SERVICE["command"])
    assert done.returncode == 0, done.stderr
    yield name
    podman("rm", "--force", "--time=0", name)


def inside(name: str, *command: str) -> subprocess.CompletedProcess[str]:
    return podman("exec", name, *command)


def healthy(image: Stage, name: str) -> None:
    """Wait until its health check succeeds."""
    check = shlex.join(words(image, "HEALTHCHECK"))
    loop = f"for i in $(seq 100); do {check} && exit 0; sleep 0.1; done; exit 1"
    done = inside(name, "sh", "-c", loop)
    assert done.returncode == 0, done.stderr + podman("logs", name).stderr


def test_it_serves_as_the_compose_file_says(image: Stage, server: str) -> None:
    healthy(image, server)
    script = """
set -e
seq 100000 > /dev/shm/a
tmpfs9p cp /dev/shm/a :/a
tmpfs9p cat /a | cmp - /dev/shm/a
id -u
! test -w /
grep CapEff /proc/1/status
"""
    done = inside(server, "sh", "-c", script)
    nothing = f"CapEff:\t{'0' * 16}"
    assert (done.returncode, done.stdout.splitlines()) == (0, ["5640", nothing]), done.stderr
    assert podman("stop", server).returncode == 0
    code = podman("inspect", "--format={{.State.ExitCode}}", server).stdout
    assert code == "0\n", podman("logs", server).stderr


def test_a_server_that_does_not_answer_is_not_healthy(image: Stage) -> None:
    check = words(image, "HEALTHCHECK")
    given = [*options(image, {}), f"--entrypoint={json.dumps(check)}"]
    done = podman("run", "--rm", *given, "--rootfs", image.root)
    assert done.returncode == 1
    assert "tcp://127.0.0.1:5640" in done.stderr


def test_it_lets_nobody_in_unless_it_is_said_who(image: Stage) -> None:
    rootfs = ["--rootfs", str(image.root), *words(image, "CMD"), "--size=1m"]
    done = podman("run", "--rm", *options(image, {}), *rootfs)
    assert done.returncode == 2
    assert "others than this machine could connect; say who may" in done.stderr


def test_it_can_mount_and_encrypt_and_has_no_tools_to_build(image: Stage) -> None:
    modules = "import client.fuse.operations, cryptography, uvloop, structlog"
    rootfs = ["--entrypoint=/opt/tmpfs9p/bin/python", "--rootfs", str(image.root)]
    done = podman("run", "--rm", *options(image, {}), *rootfs, "-c", modules)
    assert (done.returncode, done.stderr) == (0, "")
    assert not list(image.root.glob("usr/bin/*gcc*"))
    assert not list(image.root.glob("opt/tmpfs9p/bin/pip*"))


def test_it_mounts_as_the_sidecar_of_the_example_pod_does(image: Stage) -> None:
    pod = yaml.safe_load((DEPLOY / "kubernetes/example-pod.yaml").read_text())
    (sidecar,) = pod["spec"]["initContainers"]
    assert sidecar["securityContext"] == {"privileged": True, "runAsUser": 0, "runAsGroup": 0}
    name, place = f"tmpfs9p-test-mount-{os.getpid()}", sidecar["volumeMounts"][0]["mountPath"]
    environ = [f"--env={key}={value}" for key, value in image.env.items()]
    with serving("--listen", "tcp://127.0.0.1:0") as server:
        address, _ = server.ready()
        arguments = [address if it.startswith("tcp://") else it for it in sidecar["args"]]
        given = [
            f"--name={name}",
            "--detach",
            "--privileged",
            "--network=host",
            "--user=0:0",
            *LIMITS,
        ]
        entry = f"--entrypoint={json.dumps(words(image, 'ENTRYPOINT'))}"
        volumes = [f"--tmpfs={place}", *environ, entry]
        done = podman("run", *given, *volumes, "--rootfs", image.root, *arguments)
        assert done.returncode == 0, done.stderr
        try:
            check = shlex.join(sidecar["startupProbe"]["exec"]["command"])
            fuse = f"{check} && grep -E ' {place} (fuse|9p)' /proc/mounts"
            loop = f"for i in $(seq 100); do {fuse} && exit 0; sleep 0.1; done; exit 1"
            mounted = inside(name, "sh", "-c", loop)
            assert mounted.returncode == 0, podman("logs", name).stderr
            wrote = inside(name, "sh", "-c", f"echo hello > {place}/a")
            assert wrote.returncode == 0, wrote.stderr
            assert run("cat", "--addr", address, "/a").stdout == "hello\n"
            inside(name, *sidecar["lifecycle"]["preStop"]["exec"]["command"])
            assert podman("wait", name).stdout == "0\n"
        finally:
            podman("rm", "--force", "--time=0", name)


# What needs no image


def test_what_is_copied_is_what_is_not_ignored() -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    kept = {line.removeprefix("!") for line in ignored if line.startswith("!")}
    copied = [rest.split()[:-1] for word, rest in instructions(CONTAINERFILE) if word == "COPY"]
    from_here = [paths for paths in copied if not paths[0].startswith("--")]
    assert kept == {path for paths in from_here for path in paths}
    assert all((ROOT / path).exists() for path in kept)


def test_the_server_of_the_compose_file_has_the_memory_that_it_may_take() -> None:
    config = load(*given(SERVICE), None)
    need = most_memory(config)
    assert need <= size(SERVICE["mem_limit"]) <= 1.2 * need
    assert config.swap[0].startswith(SERVICE["volumes"][0].split(":")[1] + "/")
    (network,) = COMPOSE["networks"]["files"]["ipam"]["config"]
    assert [str(it) for it in config.allow] == [network["subnet"]]


def given(service: dict[str, Any]) -> tuple[dict[str, list[str]], dict[str, str]]:
    """What a service of the compose file says to the command, as ``load`` takes it."""
    command, *rest = service["command"]
    assert command == "serve"
    pairs = [word.removeprefix("--").partition("=") for word in rest]
    return {key: [value] for key, _, value in pairs}, service["environment"]


def test_the_parts_of_the_compose_file_fit_together() -> None:
    services = COMPOSE["services"]
    built = services["tmpfs9p"]["build"]
    assert (FOLDER / built["context"] / built["dockerfile"]).resolve() == CONTAINERFILE
    assert (FOLDER / built["context"]).resolve() == ROOT
    assert services["example"]["image"] == services["tmpfs9p"]["image"]
    assert services["example"]["depends_on"] == {"tmpfs9p": {"condition": "service_healthy"}}
    for service in services.values():
        assert set(service["networks"]) <= set(COMPOSE["networks"])
        assert {it.split(":")[0] for it in service.get("volumes", [])} <= set(COMPOSE["volumes"])
        assert not {"privileged", "ports"} & set(service)

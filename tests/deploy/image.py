"""The image of deploy/container without a registry: its Containerfile, carried out in root folders.

``podman build`` takes a base image, which is fetched.  Here the base is what that image is made of,
Debian's minimal system, and the steps are those of the Containerfile, in chroot(8).

Rules of this file:

* Each instruction of the Containerfile is carried out or kept as metadata; one that is unknown here
  is an error, and so is a form that is not used there.
* What a build needs to reach the network here (certificates, settings of pip) is lent to RUN, which
  can only read it.
"""

import json
import os
import shlex
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

#: The base image, and what Debian calls it.
BASES = {"debian:bookworm-slim": "bookworm"}
#: Of this host, where there are; they are not part of the image.
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"  # which packages rewrite: it is lent as another
LENT = {
    CERTIFICATES: "/run/certificates.crt",
    **{
        it: it
        for it in ("/etc/resolv.conf", "/etc/pip.conf", "/etc/xdg/pip", "/opt/pypi", "/opt/wheels")
    },
}
LENT_VARIABLES = ("SSL_", "PIP_", "http_proxy", "https_proxy", "no_proxy")

RUN = """
set -eu
root=$1; shift
mount -t proc proc "$root/proc"
mount --bind /dev "$root/dev"
while [ $# -gt 0 ]; do
    place=$root$2
    if [ -d "$1" ]; then mkdir -p "$place"; else mkdir -p "$(dirname "$place")"; fi
    [ -e "$place" ] || : > "$place"
    mount --bind "$1" "$place"
    mount -o remount,bind,ro "$place"
    shift 2
done
exec chroot "$root" /bin/sh -c "cd $WORKDIR && $STEP"
"""


@dataclass
class Stage:
    """A root folder, and what the image says beside it."""

    root: Path
    env: dict[str, str] = field(default_factory=lambda: {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"})
    workdir: str = "/"
    metadata: dict[str, str] = field(default_factory=dict)


def instructions(file: Path) -> list[tuple[str, str]]:
    """Those of a Containerfile: the word, and the rest of the line."""
    lines = [line for line in file.read_text().splitlines() if not line.startswith("#")]
    whole = "\n".join(lines).replace("\\\n", "").splitlines()
    return [
        (word, rest.strip()) for word, _, rest in (line.partition(" ") for line in whole) if word
    ]


def build(file: Path, context: Path, folder: Path, arguments: dict[str, str]) -> Stage:
    """The last stage of a Containerfile, as ``podman build --build-arg ...`` would make it.

    Args:
        folder: where; the base stays there for the next time, and what else is there goes.
    """
    for old in folder.glob("[0-9]"):
        shutil.rmtree(old)
    stages: dict[str, Stage] = {}
    stage = Stage(folder)
    for word, rest in instructions(file):
        if word == "FROM":
            base, *name = rest.split(" AS ")
            stage = Stage(folder / str(len(stages)))
            _unpack(base, folder, stage.root)
            stages[name[0] if name else ""] = stage
        elif word == "RUN":
            _run(stage, rest)
        elif word == "COPY":
            _copy(stage, shlex.split(rest), context, stages)
        elif word == "WORKDIR":
            stage.workdir = rest
            (stage.root / rest.lstrip("/")).mkdir(parents=True, exist_ok=True)
        elif word in ("ARG", "ENV"):
            key, _, value = rest.partition("=")
            stage.env[key] = arguments.get(key, value) if word == "ARG" else value
        elif word in ("USER", "EXPOSE", "HEALTHCHECK", "ENTRYPOINT", "CMD"):
            stage.metadata[word] = rest
        else:
            raise ValueError(f"{word}: no such instruction is known here")
    for other in stages.values():
        if other is not stage:
            shutil.rmtree(other.root)
    return stage


def words(stage: Stage, instruction: str) -> list[str]:
    """The command of ENTRYPOINT, CMD or HEALTHCHECK, which is a list in JSON."""
    text = stage.metadata[instruction]
    return [str(word) for word in json.loads(text[text.index("[") :])]


def _unpack(base: str, folder: Path, root: Path) -> None:
    """A new root folder of a base image."""
    archive = folder / "base.tar"
    if not archive.exists():
        make = ["mmdebstrap", "--quiet", "--variant=minbase", BASES[base], str(archive)]
        subprocess.run(make, check=True, stdin=subprocess.DEVNULL)
    root.mkdir()
    subprocess.run(["tar", "xf", archive, "-C", root], check=True)


def _run(stage: Stage, step: str) -> None:
    lent = [path for pair in LENT.items() if os.path.exists(pair[0]) for path in pair]
    variables = {key: it for key, it in os.environ.items() if key.startswith(LENT_VARIABLES)}
    if CERTIFICATES in lent:
        variables |= dict.fromkeys(("PIP_CERT", "SSL_CERT_FILE"), LENT[CERTIFICATES])
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", RUN, "run", str(stage.root), *lent],
        env={**variables, **stage.env, "WORKDIR": stage.workdir, "STEP": step},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"RUN {step}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")


def _copy(stage: Stage, paths: list[str], context: Path, stages: dict[str, Stage]) -> None:
    *sources, target = paths
    if sources[0].startswith("--from="):
        context = stages[sources.pop(0).removeprefix("--from=")].root
    place = stage.root / stage.workdir.lstrip("/") / target.lstrip("/")
    for source in (context / source.lstrip("/") for source in sources):
        if source.is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(source, place, symlinks=True, dirs_exist_ok=True, ignore=ignored)
        else:
            shutil.copy(source, place)

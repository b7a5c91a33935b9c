"""deploy/kubernetes: valid by the schemas of Kubernetes, and its parts fit together.

The base is put together by kubectl, which is Kubernetes' own.
"""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from server.config import Config, load, size
from server.config_command import most_memory
from tests.server.test_main import COMMAND

from .conftest import DEPLOY
from .image import instructions

FOLDER = DEPLOY / "kubernetes"
POD: dict[str, Any] = yaml.safe_load((FOLDER / "example-pod.yaml").read_text())
#: Of Kubernetes: the oldest that has what is used here, and the newest whose schemas there are.
VERSIONS = ("1.29", kubernetes_validate.latest_version())


@pytest.fixture(scope="module")
def objects() -> dict[str, dict[str, Any]]:
    """What ``kubectl apply -k`` would make, by kind."""
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("no kubectl: apt install kubernetes-client")
    done = subprocess.run(
        [kubectl, "kustomize", FOLDER], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    return {it["kind"]: it for it in yaml.safe_load_all(done.stdout)}


@pytest.fixture(scope="module")
def pod(objects: dict[str, dict[str, Any]]) -> Any:
    """What the Deployment makes pods of."""
    return objects["Deployment"]["spec"]["template"]


@pytest.fixture
def config(objects: dict[str, dict[str, Any]], tmp_path: Path) -> Config:
    """What the server of the Deployment runs with."""
    file = tmp_path / "tmpfs9p.toml"
    file.write_text(objects["ConfigMap"]["data"]["tmpfs9p.toml"])
    return load({}, image_environment(), file)


def image_environment() -> dict[str, str]:
    found = instructions(DEPLOY / "container/Containerfile")
    return dict(rest.split("=", 1) for word, rest in found if word == "ENV")


def quantity(text: str) -> int:
    """Bytes, as Kubernetes writes them."""
    return size(text.removesuffix("i").lower())


@pytest.mark.parametrize("version", VERSIONS)
def test_all_is_valid(objects: dict[str, dict[str, Any]], version: str) -> None:
    assert set(objects) == {"ConfigMap", "Deployment", "NetworkPolicy", "Service"}
    for it in (*objects.values(), POD):
        kubernetes_validate.validate(it, version, strict=True)


def test_what_is_not_valid_is_noticed(objects: dict[str, dict[str, Any]]) -> None:
    broken = {**objects["Service"], "spec": {"ports": [{"port": "many"}]}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, VERSIONS[0], strict=True)


def test_the_pods_of_the_deployment_are_those_that_are_meant(
    objects: dict[str, dict[str, Any]], pod: Any
) -> None:
    labels = pod["metadata"]["labels"].items()
    assert objects["Deployment"]["spec"]["replicas"] == 1
    for selector in (
        objects["Deployment"]["spec"]["selector"]["matchLabels"],
        objects["Service"]["spec"]["selector"],
        objects["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"],
    ):
        assert selector
        assert selector.items() <= labels
    (rule,) = objects["NetworkPolicy"]["spec"]["ingress"]
    (peer,) = rule["from"]
    assert peer["podSelector"]["matchLabels"].items() <= POD["metadata"]["labels"].items()


def test_ports_are_those_that_are_served(
    objects: dict[str, dict[str, Any]], pod: Any, config: Config
) -> None:
    (server,) = pod["spec"]["containers"]
    (port,) = server["ports"]
    (address,) = config.listen
    assert str(address) == f"tcp://0.0.0.0:{port['containerPort']}"
    (service,) = objects["Service"]["spec"]["ports"]
    (rule,) = objects["NetworkPolicy"]["spec"]["ingress"]
    assert service["targetPort"] == rule["ports"][0]["port"] == port["name"]
    (sidecar,) = POD["spec"]["initContainers"]
    name = objects["Service"]["metadata"]["name"]
    assert f"tcp://{name}:{service['port']}" in sidecar["args"]


def test_the_configuration_is_where_it_is_read(
    objects: dict[str, dict[str, Any]], pod: Any, config: Config
) -> None:
    (server,) = pod["spec"]["containers"]
    places = {it["mountPath"]: it["name"] for it in server["volumeMounts"]}
    volumes = {it["name"]: it for it in pod["spec"]["volumes"]}
    assert server["args"][:2] == ["serve", "--config"]
    folder, _, name = server["args"][2].rpartition("/")
    held = volumes[places[folder]]["configMap"]["name"]
    assert held == objects["ConfigMap"]["metadata"]["name"]
    assert name in objects["ConfigMap"]["data"]
    assert config.swap[0].rpartition("/")[0] in places


def test_there_is_room_for_what_the_server_may_take(pod: Any, config: Config) -> None:
    (server,) = pod["spec"]["containers"]
    limit = quantity(server["resources"]["limits"]["memory"])
    assert most_memory(config) <= limit <= 1.2 * most_memory(config)
    (swap,) = [it["emptyDir"] for it in pod["spec"]["volumes"] if "emptyDir" in it]
    assert config.swap_size <= quantity(swap["sizeLimit"]) <= 1.2 * config.swap_size


def test_the_server_is_restricted(pod: Any) -> None:
    """As the Pod Security Standard "restricted" has it, and it can write nothing but swap."""
    (server,) = pod["spec"]["containers"]
    of_pod, own = pod["spec"]["securityContext"], server["securityContext"]
    assert of_pod["runAsNonRoot"]
    assert of_pod["seccompProfile"] == {"type": "RuntimeDefault"}
    assert own["capabilities"] == {"drop": ["ALL"]}
    assert (own["allowPrivilegeEscalation"], own["readOnlyRootFilesystem"]) == (False, True)
    users = [
        rest for word, rest in instructions(DEPLOY / "container/Containerfile") if word == "USER"
    ]
    assert users == [f"{of_pod['runAsUser']}:{of_pod['runAsGroup']}"]


def commands(pod: Any) -> Iterator[list[str]]:
    """What is run in the containers of the image, by arguments and by probes."""
    for container in [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]:
        if "tmpfs9p" in container["image"]:
            yield ["tmpfs9p", *container["args"]]
            for key, probe in container.items():
                if key.endswith("Probe"):
                    yield probe["exec"]["command"]


def test_every_command_is_one(pod: Any) -> None:
    found = [*commands(pod), *commands(POD)]
    assert len(found) == 6
    for program, *arguments in found:
        if program == "mountpoint":
            assert shutil.which(program)
            continue
        assert program == "tmpfs9p"
        done = subprocess.run(
            [*COMMAND, arguments[0], "--help"], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0
        for option in arguments[1:]:
            if option.startswith("-"):
                assert re.search(rf"(^|[\s,]){option}\b", done.stdout), option


def test_the_mount_is_handed_on() -> None:
    (sidecar,), (work,) = POD["spec"]["initContainers"], POD["spec"]["containers"]
    (ours,), (theirs,) = sidecar["volumeMounts"], work["volumeMounts"]
    assert ours["name"] == theirs["name"] == POD["spec"]["volumes"][0]["name"]
    assert (ours["mountPropagation"], theirs["mountPropagation"]) == (
        "Bidirectional",
        "HostToContainer",
    )
    assert ours["mountPath"] == sidecar["args"][-1]
    assert sidecar["securityContext"]["privileged"]
    assert sidecar["restartPolicy"] == "Always"
    for part in (sidecar["startupProbe"], sidecar["lifecycle"]["preStop"]):
        assert part["exec"]["command"][-1] == ours["mountPath"]

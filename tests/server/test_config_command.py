"""config_command: ``tmpfs9p config check``, as a process of its own."""

from pathlib import Path

import pytest

from server.config import load
from server.config_command import most_memory

from .test_main import run

MIB = 1 << 20


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "t9.toml"


def test_a_configuration_that_can_be_is_told_in_figures(file: Path) -> None:
    file.write_text(
        "size = '8m'\nram = '2m'\nswap = '/missing/swap'\nswap-size = '6m'\nnr-inodes = '1k'\n"
        "client-memory = '16m'\nmax-connections = 64\n[export.a]\nnr-inodes = '3k'\n"
    )
    done = run("config", "check", str(file))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "exports: /, /a",
        "files: 16 MiB at most, all exports",
        "RAM for them: 2 MiB; swap: 6 MiB",
        f"memory of the server: {2 + 102 + 16 + 1 + 8} MiB at most",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "size = 'much'",
        "size = '8m'\nram = '1m'",
        "[export.a]\nnonsense = 1",
        "not TOML",
        "listen = 'tls://127.0.0.1:0'\ntls-cert = '/no'\ntls-key = '/no'\ntls-ca = '/no'\n"
        "tls-user = { 'a' = 0 }",
    ],
)
def test_one_that_can_not_be_is_told_as_serve_does(file: Path, text: str) -> None:
    file.write_text(text)
    served, checked = run("serve", "--config", str(file)), run("config", "check", str(file))
    assert (checked.returncode, checked.stdout) == (2, "")
    assert checked.stderr.startswith("tmpfs9p: ")
    assert (served.returncode, served.stderr) == (2, checked.stderr)


def test_the_environment_counts_as_it_does_for_serve(file: Path) -> None:
    file.write_text("size = '1m'\n")
    done = run("config", "check", str(file), TMPFS9P_SIZE="2m")
    assert "files: 2 MiB at most" in done.stdout
    assert run("config", "check", str(file), TMPFS9P_SIZE="two").returncode == 2


def test_memory_is_as_the_readme_has_it() -> None:
    """The formula under "Limits", term by term."""
    text = (Path(__file__).parents[2] / "README.md").read_text()
    terms = text[text.index("the server takes at most") :].split("\n\n")[1].split("\n")
    config = load({"size": ["1g"], "nr-inodes": ["1m"]}, {}, None)
    values = {
        "60 MiB": 60 * MIB,
        "38 MiB": 38 * MIB,
        "4 MiB": 4 * MIB,
        "--client-memory": config.limits.client_memory,
        "--max-connections * 16 KiB": config.limits.max_connections * 16384,
        "--nr-inodes * 2 KiB": 2048 << 20,
    }
    named = [term.strip().removeprefix("+ ").split("   ")[0].strip() for term in terms]
    assert sorted(named) == sorted(values)
    assert most_memory(config) == (1 << 30) + sum(values.values())

"""deploy/tmpfs9p.toml: it has every key, and what it says of their defaults is so."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from server.config import EXPORT_OPTIONS, OPTIONS, Option, load

from .conftest import DEPLOY

SAMPLE = DEPLOY / "tmpfs9p.toml"
#: The options, and those of an export.
GENERAL, OF_EXPORTS = SAMPLE.read_text().split("#[export.scratch]\n")
KEYS = [
    *[(GENERAL, key, option) for key, option in OPTIONS.items() if key != "export"],
    *[(OF_EXPORTS, key, option) for key, option in EXPORT_OPTIONS.items()],
]
IDS = [f"{'export.' * (text is OF_EXPORTS)}{key}" for text, key, _ in KEYS]
#: Those whose default depends on the host or on others.
DERIVED = {"nr-inodes", *(key for key in EXPORT_OPTIONS if key in OPTIONS and key != "allow")}


def default_of(text: str, key: str) -> str:
    """What the comment right above this key says of its default."""
    found = re.findall(rf"^# Default: (.*)\.\n#?{key} = ", text, re.MULTILINE)
    assert len(found) == 1, f"{key} is there {len(found)} times with its default"
    return str(found[0])


def read(option: Option, value: str) -> Any:
    """A value of TOML as the option has it."""
    given = tomllib.loads(f"key = {value}")["key"]
    return option.parse(str(given).lower() if isinstance(given, bool) else str(given))


@pytest.mark.parametrize(("text", "key", "option"), KEYS, ids=IDS)
def test_every_key_is_there_with_its_default(text: str, key: str, option: Option) -> None:
    said = default_of(text, key)
    if text is OF_EXPORTS and key in OPTIONS:
        shared = {"ram": "it shares the server's", "allow": "all of them"}
        assert said == shared.get(key, "that of the key above")
    elif option.default is None or key == "nr-inodes":
        assert said[0].isalpha()
    else:
        assert read(option, said) == option.parse(option.default)


def test_there_are_no_other_keys() -> None:
    for text, options in ((GENERAL, OPTIONS), (OF_EXPORTS, EXPORT_OPTIONS)):
        assert set(re.findall(r"^#?([a-z-]+) = ", text, re.MULTILINE)) <= set(options)


def test_a_setting_that_is_not_made_shows_the_default_if_there_is_one() -> None:
    for text, key, option in KEYS:
        if option.default is None or key in DERIVED or option.is_flag:
            continue
        for value in re.findall(rf"^#{key} = (.*)$", text, re.MULTILINE):
            assert read(option, value) == option.parse(option.default), key


def test_it_can_be_served_as_it_is() -> None:
    config = load({}, {}, SAMPLE)
    assert [str(address) for address in config.listen] == ["fd://"]


def test_all_that_it_shows_can_be_set(tmp_path: Path) -> None:
    """Each of its comments that looks like a setting is one."""
    text = re.sub(r"^#(?=[a-z-]+ = |\[)", "", SAMPLE.read_text(), flags=re.MULTILINE)
    text = text.replace('listen = ["fd://"]', 'listen = ["fd://", "tls://127.0.0.1:5641"]')
    file = tmp_path / "all.toml"
    file.write_text(text)
    config = load({}, {}, file)
    assert [export.name for export in config.exports] == ["", "scratch"]
    assert len(config.swap) == 1

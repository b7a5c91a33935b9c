"""config: where a value comes from, what it may be, and what is said when it may not."""

import os
from pathlib import Path

import pytest

from server.config import (
    MSIZE_MAX,
    OPTIONS,
    Config,
    ConfigError,
    Tcp,
    Unix,
    address,
    host_ram,
    load,
    size,
)
from tmpfs_core.memory import reserve_for

GIB = 1 << 30
MIB = 1 << 20

WITH_SWAP = {"size": ["8m"], "ram": ["2m"], "swap": ["/swap"]}


def from_command_line(**given: str) -> Config:
    return load({key.replace("_", "-"): [text] for key, text in given.items()}, {}, None)


def from_toml(folder: Path, text: str) -> Config:
    file = folder / "t9.toml"
    file.write_text(text)
    return load({}, {}, file)


# Defaults


def test_the_defaults() -> None:
    config = load({}, {}, None)
    assert config == Config(
        listen=(Tcp("127.0.0.1", 5640),),
        size=host_ram() * 50 // 100,
        ram=host_ram() * 50 // 100,
        swap=(),
        swap_size=0,
        swap_encrypt=False,
        nr_inodes=host_ram() // 4096 // 2,
        mode=0o1777,
        uid=os.getuid(),
        gid=os.getgid(),
        msize=1 << 20,
        log_format="console",
        log_level="info",
    )


def test_the_hosts_ram_is_what_the_kernel_says() -> None:
    kib = int(Path("/proc/meminfo").read_text().split()[1])
    assert host_ram() == kib * 1024


# Sources


def test_the_command_line_comes_before_the_environment_before_the_file(tmp_path: Path) -> None:
    file = tmp_path / "t9.toml"
    file.write_text('size = "1m"\nmsize = "8k"\nmode = "700"\n')
    environ = {"TMPFS9P_SIZE": "2m", "TMPFS9P_MSIZE": "16k"}
    config = load({"size": ["3m"]}, environ, file)
    assert (config.size, config.msize, config.mode) == (3 << 20, 16 << 10, 0o700)


def test_the_last_of_several_values_counts() -> None:
    assert load({"size": ["1m", "2m"]}, {}, None).size == 2 << 20


@pytest.mark.parametrize("key", OPTIONS)
def test_every_option_has_the_same_name_everywhere(key: str, tmp_path: Path) -> None:
    text = {
        "listen": "unix:///run/t9",
        "log-format": "json",
        "log-level": "error",
        "mode": "711",
        "swap-encrypt": "true",
    }.get(key, "12345")
    default = WITH_SWAP if "swap" in key or key == "ram" else {}
    others = {other: texts for other, texts in default.items() if other != key}
    file = tmp_path / "t9.toml"
    file.write_text(f'{key} = "{text}"\n')
    configs = [
        load({**others, key: [text]}, {}, None),
        load(others, {"TMPFS9P_" + key.upper().replace("-", "_"): text}, None),
        load(others, {}, file),
    ]
    assert configs[0] == configs[1] == configs[2]
    assert configs[0] != load(default, {}, None)


def test_several_addresses(tmp_path: Path) -> None:
    expected = (Tcp("::1", 1), Unix("/run/t9"))
    texts = ["tcp://[::1]:1", "unix:///run/t9"]
    assert load({"listen": texts}, {}, None).listen == expected
    assert load({}, {"TMPFS9P_LISTEN": ",".join(texts)}, None).listen == expected
    assert from_toml(tmp_path, f"listen = {texts!r}\n").listen == expected


def test_a_toml_file_may_hold_a_flag(tmp_path: Path) -> None:
    text = 'size = "8m"\nram = "2m"\nswap = "/swap"\nswap-encrypt = '
    assert from_toml(tmp_path, f"{text}true\n").swap_encrypt
    assert not from_toml(tmp_path, f"{text}false\n").swap_encrypt


def test_a_toml_file_may_hold_numbers(tmp_path: Path) -> None:
    config = from_toml(tmp_path, "size = 1048576\nnr-inodes = 7\nuid = 5\n")
    assert (config.size, config.nr_inodes, config.uid) == (1 << 20, 7, 5)


@pytest.mark.parametrize(("text", "expected"), [("0o644", 0o644), ("1777", 0o1777), ("true", None)])
def test_a_mode_that_is_a_number_in_toml_is_not_taken_for_another(
    tmp_path: Path, text: str, expected: int | None
) -> None:
    """TOML tells neither 0o644 from 420 nor 1777 from 0o3361: right, or a clear refusal."""
    try:
        mode = from_toml(tmp_path, f"mode = {text}\n").mode
    except ConfigError:
        return
    assert mode == expected


# Values


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("4096", 4096),
        ("8k", 8 << 10),
        ("8K", 8 << 10),
        ("3m", 3 << 20),
        ("2g", 2 * GIB),
        ("1t", 1 << 40),
        ("0", 0),
    ],
)
def test_sizes_have_units(text: str, expected: int) -> None:
    assert size(text) == expected


def test_a_size_may_be_a_share_of_the_hosts_ram() -> None:
    assert size("100%") == host_ram()
    assert size("25%") == host_ram() // 4


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("tcp://127.0.0.1:5640", Tcp("127.0.0.1", 5640)),
        ("tcp://0.0.0.0:0", Tcp("0.0.0.0", 0)),
        ("tcp://host.example:65535", Tcp("host.example", 65535)),
        ("tcp://[::1]:564", Tcp("::1", 564)),
        ("tcp://[fe80::1]:564", Tcp("fe80::1", 564)),
        ("unix:///run/t9.sock", Unix("/run/t9.sock")),
        ("unix:///with space:1", Unix("/with space:1")),
    ],
)
def test_addresses_read_and_write_the_same(text: str, expected: Tcp | Unix) -> None:
    assert address(text) == expected
    assert str(expected) == text


@pytest.mark.parametrize(
    ("key", "text", "expected"),
    [
        ("size", "4096", 4096),
        ("msize", "4096", 4096),
        ("msize", "16m", MSIZE_MAX),
        ("nr-inodes", "1", 1),
        ("nr-inodes", "2k", 2048),
        ("mode", "0", 0),
        ("mode", "7777", 0o7777),
        ("mode", "0755", 0o755),
        ("mode", "0o755", 0o755),
        ("uid", "4294967294", 4294967294),
        ("gid", "0", 0),
        ("log-format", "json", "json"),
        ("log-level", "debug", "debug"),
        ("log-level", "warning", "warning"),
    ],
)
def test_values_at_the_edge_are_taken(key: str, text: str, expected: object) -> None:
    assert getattr(load({key: [text]}, {}, None), key.replace("-", "_")) == expected


BAD = [
    ("listen", "", "tcp://HOST:PORT or unix:///PATH"),
    ("listen", "127.0.0.1:5640", "tcp://HOST:PORT or unix:///PATH"),
    ("listen", "tcp://127.0.0.1", "tcp://HOST:PORT or unix:///PATH"),
    ("listen", "tcp://:5640", "tcp://HOST:PORT or unix:///PATH"),
    ("listen", "tcp://::1:5640", "tcp://HOST:PORT or unix:///PATH"),
    ("listen", "tcp://host:65536", "tcp://HOST:PORT or unix:///PATH"),
    ("listen", "tcp://host:-1", "tcp://HOST:PORT or unix:///PATH"),
    ("listen", "unix://relative", "tcp://HOST:PORT or unix:///PATH"),
    ("listen", "udp://host:1", "tcp://HOST:PORT or unix:///PATH"),
    ("size", "", "a number of bytes, with k, m, g, t or %"),
    ("size", "much", "a number of bytes, with k, m, g, t or %"),
    ("size", "-1", "a number of bytes, with k, m, g, t or %"),
    ("size", "1.5g", "a number of bytes, with k, m, g, t or %"),
    ("size", "1x", "a number of bytes, with k, m, g, t or %"),
    ("size", "4095", "at least one page, 4096 bytes"),
    ("size", "0%", "at least one page, 4096 bytes"),
    ("ram", "much", "a number of bytes, with k, m, g, t or %"),
    ("ram", "4095", "at least one page, 4096 bytes"),
    ("swap-size", "4095", "at least one page, 4096 bytes"),
    ("swap-encrypt", "yes", "true or false"),
    ("nr-inodes", "0", "a number from 1"),
    ("nr-inodes", "50%", "a number from 1"),
    ("nr-inodes", "many", "a number of bytes, with k, m, g, t or %"),
    ("mode", "", "permission bits in octal, 0 to 7777"),
    ("mode", "778", "permission bits in octal, 0 to 7777"),
    ("mode", "17777", "permission bits in octal, 0 to 7777"),
    ("mode", "rwx", "permission bits in octal, 0 to 7777"),
    ("uid", "root", "a number from 0 to 4294967294"),
    ("uid", "-1", "a number from 0 to 4294967294"),
    ("gid", "4294967295", "a number from 0 to 4294967294"),
    ("msize", "4095", "a size from 4096 to 16m"),
    ("msize", "16777217", "a size from 4096 to 16m"),
    ("log-format", "xml", "console or json"),
    ("log-level", "loud", "debug or info or warning or error"),
]


@pytest.mark.parametrize(("key", "text", "allowed"), BAD)
def test_a_bad_value_is_told_with_its_key_and_what_is_allowed(
    tmp_path: Path, key: str, text: str, allowed: str
) -> None:
    variable = "TMPFS9P_" + key.upper().replace("-", "_")
    file = tmp_path / "t9.toml"
    file.write_text(f'{key} = "{text}"\n')
    for source, arguments in (
        (f"--{key}", ({key: [text]}, {}, None)),
        (variable, ({}, {variable: text}, None)),
        (f"{file}: {key}", ({}, {}, file)),
    ):
        with pytest.raises(ConfigError) as caught:
            load(*arguments)
        message = str(caught.value)
        assert message.startswith(f"{source}: {text!r} is not allowed; it takes {allowed}")


def test_more_inodes_than_the_protocol_can_count_are_refused() -> None:
    with pytest.raises(ConfigError, match="nr-inodes"):
        from_command_line(nr_inodes=str(1 << 64))


# RAM and swap


def test_all_is_in_ram_unless_told_otherwise() -> None:
    config = from_command_line(size="8m")
    assert (config.ram, config.swap, config.swap_size) == (8 * MIB, (), 0)


@pytest.mark.parametrize("ram", ["8m", "9m"])
def test_no_more_ram_is_used_than_files_may_take(ram: str) -> None:
    assert from_command_line(size="8m", ram=ram) == from_command_line(size="8m")


def test_swap_holds_what_ram_does_not_with_what_is_kept_free_to_read_into() -> None:
    config = load(WITH_SWAP, {}, None)
    assert (config.ram, config.swap) == (2 * MIB, ("/swap",))
    assert config.swap_size == (8 - 2) * MIB + reserve_for(2 * MIB // 4096) * 4096


def test_swap_may_be_of_any_size_and_in_several_files(tmp_path: Path) -> None:
    given = {key: WITH_SWAP[key] for key in ("size", "ram")}
    file = tmp_path / "t9.toml"
    file.write_text('swap = ["/a", "/b"]\nswap-size = "1m"\n')
    configs = [
        load({**given, "swap": ["/a", "/b"], "swap-size": ["1m"]}, {}, None),
        load(given, {"TMPFS9P_SWAP": "/a,/b", "TMPFS9P_SWAP_SIZE": "1m"}, None),
        load(given, {}, file),
    ]
    assert configs[0] == configs[1] == configs[2]
    assert (configs[0].swap, configs[0].swap_size) == (("/a", "/b"), MIB)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"ram": "2m"}, r"--ram: .* less than --size .* so --swap must be given"),
        ({"swap": "/swap"}, "--swap: without a use, --ram must be less than --size"),
        ({"swap_size": "1m"}, "--swap: without a use, --ram must be less than --size"),
        ({"ram": "8m", "swap": "/swap"}, "--swap: without a use"),
        ({"ram": "2m", "swap_size": "1m"}, "--swap must be given"),
        ({"swap_encrypt": "true"}, "--swap-encrypt: without --swap there is nothing to encrypt"),
    ],
)
def test_ram_and_swap_that_do_not_fit_together_are_refused(
    given: dict[str, str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        from_command_line(size="8m", **given)


def test_each_swap_file_holds_a_page_at_least() -> None:
    given = {**WITH_SWAP, "swap": ["/a", "/b"]}
    with pytest.raises(ConfigError, match="--swap-size: 8191 is less than a page for each --swap"):
        load({**given, "swap-size": ["8191"]}, {}, None)
    assert load({**given, "swap-size": ["8192"]}, {}, None).swap_size == 8192


# Files that can not be


def test_an_unknown_key_is_told_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="sise: no such key; there are: listen, size,"):
        from_toml(tmp_path, 'sise = "1g"\n')


def test_a_table_is_no_value(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="serve: no such key"):
        from_toml(tmp_path, '[serve]\nsize = "1g"\n')


def test_a_file_that_is_no_toml_is_told_with_the_place(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"t9.toml: not TOML: .*line 2"):
        from_toml(tmp_path, 'size = "1g"\nnonsense\n')


def test_a_file_that_is_no_text_is_told(tmp_path: Path) -> None:
    file = tmp_path / "t9.toml"
    file.write_bytes(b'size = "\xff"\n')
    with pytest.raises(ConfigError, match=r"t9.toml: not TOML"):
        load({}, {}, file)


def test_a_file_that_is_missing_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--config: .*missing.toml: No such file"):
        load({}, {}, tmp_path / "missing.toml")


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Is a directory"):
        load({}, {}, tmp_path)


@pytest.mark.parametrize("key", ["size", "listen"])
def test_an_empty_list_is_no_value(tmp_path: Path, key: str) -> None:
    with pytest.raises(ConfigError, match=key):
        from_toml(tmp_path, f"{key} = []\n")

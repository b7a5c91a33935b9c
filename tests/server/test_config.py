"""config: where a value comes from, what it may be, and what is said when it may not."""

import os
import pwd
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path

import pytest

from server.address import Tcp, Unix
from server.config import (
    EXPORT_OPTIONS,
    MSIZE_MAX,
    OPTIONS,
    Config,
    ExportConfig,
    export_of,
    host_ram,
    load,
    size,
)
from server.limits import Limits
from server.usage import ConfigError
from tmpfs_core.memory import reserve_for

GIB = 1 << 30
MIB = 1 << 20

WITH_SWAP = {"size": ["8m"], "ram": ["2m"], "swap": ["/swap"]}
WITH_TLS = {
    "listen": ["tls://0.0.0.0:5641"],
    "tls-cert": ["/cert"],
    "tls-key": ["/key"],
    "tls-ca": ["/ca"],
    "tls-user": ["alice=5"],
}


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
        allow=(),
        tls_cert=None,
        tls_key=None,
        tls_ca=None,
        tls_user=(),
        size=host_ram() * 50 // 100,
        ram=host_ram() * 50 // 100,
        swap=(),
        swap_size=0,
        swap_encrypt=False,
        nr_inodes=host_ram() // 4096 // 2,
        mode=0o1777,
        uid=os.getuid(),
        gid=os.getgid(),
        exports=(
            ExportConfig(
                name="",
                size=host_ram() * 50 // 100,
                ram=None,
                nr_inodes=host_ram() // 4096 // 2,
                mode=0o1777,
                uid=os.getuid(),
                gid=os.getgid(),
                ro=False,
                allow=(),
                squash="none",
                anonuid=65534,
                anongid=65534,
                permissions="auto",
            ),
        ),
        control=None,
        metrics=None,
        user=None,
        msize=1 << 20,
        limits=Limits(),
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


@pytest.mark.parametrize("key", [key for key in OPTIONS if key != "export"])
def test_every_option_has_the_same_name_everywhere(key: str, tmp_path: Path) -> None:
    text = {
        "allow": "10.0.0.0/8",
        "listen": "unix:///run/t9",
        "log-format": "json",
        "log-level": "error",
        "metrics": "unix:///run/t9-metrics",
        "mode": "711",
        "swap-encrypt": "true",
        "client-memory": "128m",
        "tls-user": "bob=6",
        "user": "daemon",
    }.get(key, "12345")
    default = WITH_SWAP if "swap" in key or key == "ram" else WITH_TLS if "tls" in key else {}
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


def test_several_networks(tmp_path: Path) -> None:
    texts = ["10.0.0.0/8", "192.0.2.7", "fd00::/8"]
    expected = tuple(map(ip_network, texts))
    assert load({"allow": texts}, {}, None).allow == expected
    assert load({}, {"TMPFS9P_ALLOW": ",".join(texts)}, None).allow == expected
    assert from_toml(tmp_path, f"allow = {texts!r}\n").allow == expected


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
        ("user", "daemon", pwd.getpwnam("daemon")),
        ("gid", "0", 0),
        ("log-format", "json", "json"),
        ("log-level", "debug", "debug"),
        ("log-level", "warning", "warning"),
    ],
)
def test_values_at_the_edge_are_taken(key: str, text: str, expected: object) -> None:
    assert getattr(load({key: [text]}, {}, None), key.replace("-", "_")) == expected


LISTEN = "tcp://HOST:PORT, tls://HOST:PORT, unix:///PATH or vsock://CID:PORT, or vhost-user:///"
NO_ADDRESSES = [
    *("", "127.0.0.1:5640", "tcp://127.0.0.1", "tcp://:5640", "tcp://::1:5640", "tcp://host:65536"),
    *("tcp://host:-1", "unix://relative", "udp://host:1", "stdio", "stdio://", "vsock://5640"),
    *("vsock://all:5640", "vsock://3:4294967295", "vsock://4294967296:1", "vsock://3:-1"),
]
BAD = [
    *(("listen", text, LISTEN) for text in NO_ADDRESSES),
    ("allow", "cid:some", "networks as 10.0.0.0/8 or fd00::/8, no bits beside their prefix, and"),
    ("allow", "cid:4294967296", "networks as 10.0.0.0/8 or"),
    ("allow", "everybody", "networks as 10.0.0.0/8"),
    ("allow", "10.0.0.1/8", "networks as 10.0.0.0/8 or fd00::/8, no bits beside"),
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
        ({"swap_size": "1m"}, "--swap-size: without a use, --swap must be given"),
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


# TLS


def test_names_in_certificates_are_users(tmp_path: Path) -> None:
    given = {**WITH_TLS, "tls-user": ["alice=5", "a=b=root", "alice=5"]}
    assert load(given, {}, None).tls_user == (("alice", 5), ("a=b", 0), ("alice", 5))
    others = {key: texts for key, texts in WITH_TLS.items() if key != "tls-user"}
    file = tmp_path / "t9.toml"
    file.write_text('[tls-user]\n"Alice, her mail" = 5\n"spiffe://x/a" = "root"\n')
    assert load(others, {}, file).tls_user == (("Alice, her mail", 5), ("spiffe://x/a", 0))


@pytest.mark.parametrize("text", ["alice", "=5", "alice=", "alice=nobody-of-that-name", "a=-1"])
def test_a_name_stands_for_a_user_there_is(text: str) -> None:
    with pytest.raises(ConfigError, match=f"--tls-user: '{text}' is not allowed; it takes NAME="):
        load({**WITH_TLS, "tls-user": [text]}, {}, None)


def test_a_name_stands_for_one_user() -> None:
    with pytest.raises(ConfigError, match="--tls-user: 'alice' is given as user 5 and as 6"):
        load({**WITH_TLS, "tls-user": ["alice=5", "alice=6"]}, {}, None)


@pytest.mark.parametrize("key", ["tls-cert", "tls-key", "tls-ca", "tls-user"])
def test_tls_takes_all_its_options_and_they_take_it(key: str) -> None:
    given = {other: texts for other, texts in WITH_TLS.items() if other != key}
    with pytest.raises(ConfigError, match=f"--{key}: not given; tls://0.0.0.0:5641 takes --tls-c"):
        load(given, {}, None)
    with pytest.raises(ConfigError, match=f"--{key}: without a use, no --listen is tls://"):
        load({key: WITH_TLS[key]}, {}, None)


def test_each_swap_file_holds_a_page_at_least() -> None:
    given = {**WITH_SWAP, "swap": ["/a", "/b"]}
    with pytest.raises(ConfigError, match="--swap-size: 8191 is less than a page for each --swap"):
        load({**given, "swap-size": ["8191"]}, {}, None)
    assert load({**given, "swap-size": ["8192"]}, {}, None).swap_size == 8192


# Exports


def exports(*texts: str, **given: str) -> dict[str, ExportConfig]:
    """The exports of a command line, by name."""
    options = {key.replace("_", "-"): [text] for key, text in given.items()}
    config = load({"size": ["8m"], **options, "export": list(texts)}, {}, None)
    return {export.name: export for export in config.exports}


ALL_KEYS = {
    "size": "64k",
    "ram": "32k",
    "nr-inodes": "9",
    "mode": "750",
    "uid": "11",
    "gid": "12",
    "ro": "true",
    "allow": "10.0.0.0/8+fd00::/8",
    "squash": "root",
    "anonuid": "13",
    "anongid": "14",
    "permissions": "server",
}
WITH_ALL_KEYS = ExportConfig(
    name="scratch",
    size=64 << 10,
    ram=32 << 10,
    nr_inodes=9,
    mode=0o750,
    uid=11,
    gid=12,
    ro=True,
    allow=(ip_network("10.0.0.0/8"), ip_network("fd00::/8")),
    squash="root",
    anonuid=13,
    anongid=14,
    permissions="server",
)
SWAP = {"ram": "2m", "swap": "/swap"}


def test_every_key_of_an_export_has_the_same_name_everywhere(tmp_path: Path) -> None:
    assert set(ALL_KEYS) == set(EXPORT_OPTIONS)
    text = "scratch:" + ",".join(f"{key}={value}" for key, value in ALL_KEYS.items())
    file = tmp_path / "t9.toml"
    table = {**ALL_KEYS, "allow": ["10.0.0.0/8", "fd00::/8"], "ro": True, "uid": 11}
    lines = [f"{key} = {str(it).lower() if it is True else it!r}" for key, it in table.items()]
    file.write_text("\n".join(["[export.scratch]", *lines]))
    given = {key: [value] for key, value in SWAP.items()} | {"size": ["8m"]}
    configs = [
        load({**given, "export": [text]}, {}, None),
        load(given, {"TMPFS9P_EXPORT": text}, None),
        load(given, {}, file),
    ]
    assert configs[0] == configs[1] == configs[2]
    assert configs[0].exports[1] == WITH_ALL_KEYS
    assert export_of(text, load(given, {}, None), "add") == WITH_ALL_KEYS


def test_an_export_has_what_the_options_say_unless_it_says_something_else() -> None:
    found = exports("a", "b:size=1m", mode="700", nr_inodes="7", uid="5", gid="6")
    assert list(found) == ["", "a", "b"]
    assert found["a"] == replace(found[""], name="a")
    assert found["b"] == replace(found["a"], name="b", size=MIB)
    assert (found["a"].size, found["a"].mode, found["a"].nr_inodes) == (8 * MIB, 0o700, 7)
    assert (found["a"].uid, found["a"].gid) == (5, 6)


@pytest.mark.parametrize("text", ["/:ro", "/:ro=true"])
def test_the_default_export_is_one_like_the_others(tmp_path: Path, text: str) -> None:
    from_file = from_toml(tmp_path, 'size = "8m"\n[export."/"]\nro = true\n')
    assert from_file.exports == tuple(exports(text).values())
    assert exports(text)[""].ro
    assert exports("/:size=4m", "a")[""].size == 4 * MIB


def test_an_export_may_be_named_with_a_slash() -> None:
    assert list(exports("/scratch", "b")) == ["", "scratch", "b"]


def test_each_export_comes_from_the_first_source_that_has_it(tmp_path: Path) -> None:
    """An export of a file, and who may attach to it, does not go because another is given."""
    file = tmp_path / "t9.toml"
    file.write_text("[export.a]\nuid = 1\n[export.b]\nuid = 1\n[export.c]\nuid = 1\n")
    environ = {"TMPFS9P_EXPORT": "b:uid=2,gid=2 a:uid=2"}
    config = load({"export": ["a:uid=3", "a:uid=4"]}, environ, file)
    uids = {export.name: export.uid for export in config.exports[1:]}
    assert uids == {"a": 4, "b": 2, "c": 1}


BAD_EXPORTS = [
    ("", "--export: '' is not allowed; it takes / or a name of letters, digits and _.-"),
    (":ro", "--export: '' is not allowed"),
    ("a/b", "--export: 'a/b' is not allowed"),
    ("..", "--export: '..' is not allowed"),
    ("é", "--export: 'é' is not allowed"),
    ("a" * 256, "is not allowed; it takes / or a name"),
    ("a:sise=1m", "--export: a: sise: no such key; there are: size, nr-inodes,"),
    ("a:", None),
    ("a:ro,", "--export: a: : no such key"),
    ("a:size", "--export: a: size: without a value; write size=SIZE"),
    ("a:size=", "--export: a: size: '' is not allowed; it takes a number of bytes"),
    ("a:size=100", "--export: a: size: '100' is not allowed; it takes at least one page"),
    ("a:ro=maybe", "--export: a: ro: 'maybe' is not allowed; it takes true or false"),
    ("a:allow=host", "--export: a: allow: 'host' is not allowed; it takes networks as 10.0.0.0/8"),
    ("a:allow=10.0.0.1/8", "--export: a: allow: '10.0.0.1/8' is not allowed; it takes networks"),
    ("a:allow=10.0.0.0/8+", "--export: a: allow: '' is not allowed"),
    ("a:squash=some", "--export: a: squash: 'some' is not allowed; it takes none or root or all"),
    ("a:anonuid=-1", "--export: a: anonuid: '-1' is not allowed; it takes a number from 0"),
    ("a:anongid=x", "--export: a: anongid: 'x' is not allowed; it takes a number from 0"),
    ("a:permissions=no", "permissions: 'no' is not allowed; it takes auto or client or server"),
]


@pytest.mark.parametrize(("text", "message"), BAD_EXPORTS)
def test_a_bad_export_is_told_with_its_key_and_what_is_allowed(
    text: str, message: str | None
) -> None:
    if message is None:
        assert "a" in exports(text)
        return
    with pytest.raises(ConfigError) as caught:
        exports(text)
    assert message in str(caught.value)


def test_a_bad_export_of_a_file_is_told_with_the_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"t9.toml: export.a: size: 'x' is not allowed"):
        from_toml(tmp_path, "[export.a]\nsize = 'x'\n")
    with pytest.raises(ConfigError, match=r"t9.toml: export.a: sise: no such key"):
        from_toml(tmp_path, "[export.a]\nsise = 'x'\n")
    with pytest.raises(ConfigError, match=r"t9.toml: export.a: mode: 493 .* write it as a string"):
        from_toml(tmp_path, "[export.a]\nmode = 493\n")


# What exports share


def test_by_default_exports_share_ram_for_the_largest_of_them() -> None:
    config = load({"size": ["8m"], "export": ["a", "b:size=16m"]}, {}, None)
    assert (config.ram, config.swap_size) == (16 * MIB, 0)


def test_ram_that_an_export_has_for_itself_is_beside_that(tmp_path: Path) -> None:
    config = load({"size": ["8m"], "export": ["a:ram=3m", "b:size=1m,ram=2m"]}, {}, None)
    assert config.ram == (8 + 3 + 1) * MIB
    sizes = {export.name: (export.size, export.ram) for export in config.exports}
    assert sizes == {"": (8 * MIB, None), "a": (3 * MIB, 3 * MIB), "b": (MIB, MIB)}


def test_swap_holds_what_all_exports_may_take_beyond_ram() -> None:
    config = load({**WITH_SWAP, "export": ["a:size=4m", "b:ram=1m"]}, {}, None)
    kept = 2 * reserve_for(1 * MIB // 4096) * 4096  # in that of b, and in what the others share
    assert config.swap_size == (8 + 4 + 8 - 2) * MIB + kept
    assert config.ram == 2 * MIB


def test_ram_for_later_exports_is_kept_where_they_may_come() -> None:
    given = {"size": ["8m"], "ram": ["32m"]}
    assert load(given, {}, None).ram == 8 * MIB
    assert load({**given, "control": ["/run/c"]}, {}, None).ram == 32 * MIB
    swap = {**given, "control": ["/run/c"], "swap": ["/swap"]}
    with pytest.raises(ConfigError, match="--swap: without a use"):
        load(swap, {}, None)
    assert load({**swap, "swap-size": ["4m"]}, {}, None).swap_size == 4 * MIB


@pytest.mark.parametrize(
    ("texts", "given", "message"),
    [
        (["a:ram=1m"], {"ram": "1m"}, "--ram: 1048576 is less than what exports have for thems"),
        (["a:ram=1m", "b:ram=2m"], {"ram": "2m"}, "--ram: 2097152 is less than what exports"),
        (["a:ram=4m"], {"ram": "8m"}, "4194304 of 8388608 is left to share, which is less than"),
        (["a:size=2m,ram=1m"], {}, "--export: a: ram: 1048576 is less than its size"),
        (["a:size=9m"], {"ram": "8m"}, "--ram: 8388608 is less than --size .* --swap must be"),
    ],
)
def test_exports_that_do_not_fit_are_refused(
    texts: list[str], given: dict[str, str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        exports(*texts, **given)


# Files that can not be


def test_an_unknown_key_is_told_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="sise: no such key; there are: listen, allow, tls-c"):
        from_toml(tmp_path, 'sise = "1g"\n')


def test_a_table_is_no_value(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="serve: no such key"):
        from_toml(tmp_path, '[serve]\nsize = "1g"\n')


@pytest.mark.parametrize("text", ["export = 'a'", "[export]\nsize = '1m'"])
def test_an_export_is_a_table(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=r"t9.toml: export: .* it takes tables, \[export.NAME\]"):
        from_toml(tmp_path, text)


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


def test_client_memory_has_room_for_messages() -> None:
    assert from_command_line(msize="1m", client_memory="16m").limits.client_memory == 16 << 20
    with pytest.raises(
        ConfigError, match=r"--client-memory: 16777215 .* at least 16 times --msize"
    ):
        from_command_line(msize="1m", client_memory="16777215")


@pytest.mark.parametrize("key", ["frame_timeout", "version_timeout"])
def test_only_idle_clients_may_take_for_ever(key: str) -> None:
    assert from_command_line(idle_timeout="0").limits.idle_timeout == 0
    with pytest.raises(ConfigError, match="'0' is not allowed"):
        from_command_line(**{key: "0"})


# Who the server becomes


@pytest.mark.parametrize("text", ["daemon", str(pwd.getpwnam("daemon").pw_uid)])
def test_the_user_whom_the_server_becomes_has_the_root_directory(text: str) -> None:
    daemon = pwd.getpwnam("daemon")
    config = load({"user": [text]}, {}, None)
    assert (config.user, config.uid, config.gid) == (daemon, daemon.pw_uid, daemon.pw_gid)
    assert (config.exports[0].uid, config.exports[0].gid) == (daemon.pw_uid, daemon.pw_gid)
    config = load({"user": [text], "uid": ["5"], "gid": ["6"]}, {}, None)
    assert (config.user, config.uid, config.gid) == (daemon, 5, 6)


@pytest.mark.parametrize("text", ["", "no such user", "4294967294", "4294967295", "-1"])
def test_nobody_becomes_a_user_that_is_none(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load({"user": [text]}, {}, None)
    assert str(caught.value) == (
        f"--user: {text!r} is not allowed; it takes the name or number of a user here"
    )

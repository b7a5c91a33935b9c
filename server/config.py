"""Configuration: every option declared once, for the command line, the environment and TOML.

``--nr-inodes N``, ``TMPFS9P_NR_INODES=N`` and ``nr-inodes = N`` say the same; the first of them
that is given counts, in this order.
"""

import os
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tmpfs_core.memory import reserve_for

from .wire.constants import MSIZE_MIN

MSIZE_MAX = 16 << 20
PAGE = 4096


class ConfigError(Exception):
    """A value that can not be; says which key, which value, and what is allowed."""


@dataclass(frozen=True, slots=True)
class Tcp:
    """A TCP address to listen on."""

    host: str
    port: int

    def __str__(self) -> str:
        return (
            f"tcp://[{self.host}]:{self.port}"
            if ":" in self.host
            else f"tcp://{self.host}:{self.port}"
        )


@dataclass(frozen=True, slots=True)
class Unix:
    """A unix socket to listen on."""

    path: str

    def __str__(self) -> str:
        return f"unix://{self.path}"


Address = Tcp | Unix


def address(text: str) -> Address:
    """``tcp://HOST:PORT`` or ``unix:///PATH``."""
    if text.startswith("unix:///"):
        return Unix(text[len("unix://") :])
    match = re.fullmatch(r"tcp://(?:\[([0-9a-fA-F:.]+)\]|([^:/\[\]]+)):(\d{1,5})", text)
    if match is None or int(match[3]) > 65535:
        raise ValueError("tcp://HOST:PORT or unix:///PATH")
    return Tcp(match[1] or match[2], int(match[3]))


def size(text: str) -> int:
    """Bytes: a number with k, m, g or t (powers of 1024) or %, of the host's RAM."""
    match = re.fullmatch(r"(\d+)([kmgt%]?)", text.lower())
    if match is None:
        raise ValueError("a number of bytes, with k, m, g, t or % (of the host's RAM)")
    number, unit = int(match[1]), match[2]
    if unit == "%":
        return number * host_ram() // 100
    return number << {"": 0, "k": 10, "m": 20, "g": 30, "t": 40}[unit]


def host_ram() -> int:
    """The host's RAM in bytes."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _file_size(text: str) -> int:
    value = size(text)
    if value < PAGE:
        raise ValueError(f"at least one page, {PAGE} bytes")
    return value


def _msize(text: str) -> int:
    value = size(text)
    if not MSIZE_MIN <= value <= MSIZE_MAX:
        raise ValueError(f"a size from {MSIZE_MIN} to {MSIZE_MAX >> 20}m")
    return value


def _count(text: str) -> int:
    value = size(text)
    if not 0 < value < 1 << 63 or "%" in text:
        raise ValueError("a number from 1 to 2^63 - 1, with k, m, g, t")
    return value


def _mode(text: str) -> int:
    if not re.fullmatch(r"(0o)?[0-7]{1,5}", text) or int(text, 8) > 0o7777:
        raise ValueError("permission bits in octal, 0 to 7777")
    return int(text, 8)


def _id(text: str) -> int:
    if not text.isdecimal() or int(text) >= 0xFFFFFFFF:
        raise ValueError("a number from 0 to 4294967294")
    return int(text)


def _flag(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError("true or false")
    return text == "true"


def _one_of(*allowed: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in allowed:
            raise ValueError(" or ".join(allowed))
        return text

    return parse


@dataclass(frozen=True, slots=True)
class Option:
    """One option: how its text is read, its default as text, and whether it may be repeated."""

    parse: Callable[[str], Any]
    default: str | None
    metavar: str
    help: str
    many: bool = False

    @property
    def is_flag(self) -> bool:
        """On the command line it is given or not, and takes no value."""
        return self.parse is _flag


#: The options of ``serve`` by their key.
OPTIONS: dict[str, Option] = {
    "listen": Option(
        address,
        "tcp://127.0.0.1:5640",
        "ADDR",
        "address to listen on, tcp://HOST:PORT or unix:///PATH; may be given several times",
        many=True,
    ),
    "size": Option(
        _file_size, "50%", "SIZE", "bytes that files may take: k, m, g, t, or % of the host's RAM"
    ),
    "ram": Option(
        _file_size,
        None,
        "SIZE",
        "bytes of them that may be in RAM; the rest is in swap (default: all)",
    ),
    "swap": Option(
        str,
        None,
        "PATH",
        "file to make for swap, gone when the server ends; may be given several times",
        many=True,
    ),
    "swap-size": Option(
        _file_size, None, "SIZE", "bytes of swap in all (default: what --ram can not hold)"
    ),
    "swap-encrypt": Option(
        _flag, "false", "", "encrypt swap, with a key that only this process has"
    ),
    "nr-inodes": Option(
        _count,
        str(host_ram() // PAGE // 2),
        "N",
        "number of files and directories (default: one for two pages of the host's RAM)",
    ),
    "mode": Option(_mode, "1777", "MODE", "permissions of the root directory, in octal"),
    "uid": Option(_id, str(os.getuid()), "N", "owner of the root directory"),
    "gid": Option(_id, str(os.getgid()), "N", "group of the root directory"),
    "msize": Option(_msize, "1m", "SIZE", "largest message offered to clients"),
    "log-format": Option(_one_of("console", "json"), "console", "FORMAT", "console or json"),
    "log-level": Option(
        _one_of("debug", "info", "warning", "error"),
        "info",
        "LEVEL",
        "debug, info, warning or error",
    ),
}


@dataclass(frozen=True, slots=True)
class Config:
    """What ``serve`` runs with; sizes in bytes."""

    listen: tuple[Address, ...]
    size: int
    ram: int
    swap: tuple[str, ...]
    swap_size: int
    swap_encrypt: bool
    nr_inodes: int
    mode: int
    uid: int
    gid: int
    msize: int
    log_format: str
    log_level: str


def load(given: Mapping[str, list[str]], environ: Mapping[str, str], file: Path | None) -> Config:
    """The configuration from the command line, the environment and a TOML file.

    Args:
        given: texts from the command line by key.

    Raises:
        ConfigError: an unknown key or a value that can not be.
    """
    from_file = {} if file is None else _read_toml(file)
    values: dict[str, Any] = {}
    for key, option in OPTIONS.items():
        variable = "TMPFS9P_" + key.upper().replace("-", "_")
        if key in given:
            source, texts = f"--{key}", given[key]
        elif variable in environ:
            source, texts = variable, environ[variable].split(",")
        elif key in from_file:
            source, texts = f"{file}: {key}", from_file[key]
        else:
            source, texts = key, [] if option.default is None else [option.default]
        parsed = [_parse(source, option, text) for text in texts]
        values[key.replace("-", "_")] = tuple(parsed) if option.many else (parsed or [None])[-1]
    _settle_swap(values)
    return Config(**values)


def _settle_swap(values: dict[str, Any]) -> None:
    """Fill in how much RAM and swap there is, where that follows from the rest."""
    size, ram = values["size"], values["ram"]
    if ram is None or ram >= size:
        if values["swap"] or values["swap_size"]:
            raise ConfigError(f"--swap: without a use, --ram must be less than --size ({size})")
        values["ram"], values["swap_size"] = size, 0
    elif not values["swap"]:
        raise ConfigError(f"--ram: {ram} is less than --size ({size}), so --swap must be given")
    elif values["swap_size"] is None:
        values["swap_size"] = size - ram + reserve_for(ram // PAGE) * PAGE
    if values["swap_encrypt"] and not values["swap"]:
        raise ConfigError("--swap-encrypt: without --swap there is nothing to encrypt")
    swap_size = values["swap_size"]
    if swap_size // PAGE < len(values["swap"]):
        raise ConfigError(f"--swap-size: {swap_size} is less than a page for each --swap")


def _parse(source: str, option: Option, text: str) -> Any:
    try:
        return option.parse(text)
    except ValueError as error:
        raise ConfigError(f"{source}: {text!r} is not allowed; it takes {error}") from None


def _read_toml(file: Path) -> dict[str, list[str]]:
    try:
        table = tomllib.loads(file.read_text())
    except OSError as error:
        raise ConfigError(f"--config: {file}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"--config: {file}: not TOML: {error}") from None
    unknown = sorted(set(table) - set(OPTIONS))
    if unknown:
        known = ", ".join(OPTIONS)
        raise ConfigError(f"{file}: {unknown[0]}: no such key; there are: {known}")
    return {key: _texts(file, key, value) for key, value in table.items()}


def _texts(file: Path, key: str, value: Any) -> list[str]:
    """A value of TOML as texts, as the command line has them."""
    if value == []:
        raise ConfigError(f"{file}: {key}: [] is not allowed; it takes at least one value")
    if key == "mode" and not isinstance(value, str):  # whether 493 was 493 or 0o755 is not known
        raise ConfigError(f"{file}: mode: {value!r} is not allowed; write it as a string")
    if isinstance(value, bool):
        return [str(value).lower()]
    return [str(item) for item in value] if isinstance(value, list) else [str(value)]

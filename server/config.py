"""Configuration: every option declared once, for the command line, the environment and TOML.

``--nr-inodes N``, ``TMPFS9P_NR_INODES=N`` and ``nr-inodes = N`` say the same; the first of them
that is given counts, in this order.

Rules of this file:

* Exports are told apart by their names: each comes from the first source that has one of its name.
* ``--size``, ``--nr-inodes``, ``--mode``, ``--uid`` and ``--gid`` are what exports have that say
  nothing else; ``/``, the default export, is always there and is one like the others.
* Sizes are limits, within RAM and swap that all exports share.  By default there is RAM for the
  largest of them; if there is swap, it holds what all of them together may take beyond the RAM.
"""

import os
import pwd
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

from tmpfs_core.memory import reserve_for

from .address import Listened, Passed, Stdio, Tcp, Tls, Unix, listened, plain
from .limits import Limits
from .network import Network, network
from .usage import ConfigError
from .wire.constants import MSIZE_MIN

MSIZE_MAX = 16 << 20
PAGE = 4096
#: The largest messages for which there must be room in --client-memory.
MESSAGES = 16
#: The limits unless something else is asked for.
DEFAULT = Limits()


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


def _seconds(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 1 << 31:
        raise ValueError("a number of seconds from 1 to 2147483647")
    return int(text)


def _seconds_or_never(text: str) -> int:
    if not text.isdecimal() or int(text) >= 1 << 31:
        raise ValueError("a number of seconds up to 2147483647, or 0 for no limit")
    return int(text)


def _mode(text: str) -> int:
    if not re.fullmatch(r"(0o)?[0-7]{1,5}", text) or int(text, 8) > 0o7777:
        raise ValueError("permission bits in octal, 0 to 7777")
    return int(text, 8)


def _id(text: str) -> int:
    if not text.isdecimal() or int(text) >= 0xFFFFFFFF:
        raise ValueError("a number from 0 to 4294967294")
    return int(text)


def _user(text: str) -> pwd.struct_passwd:
    try:
        return pwd.getpwuid(_id(text)) if text.isdecimal() else pwd.getpwnam(text)
    except (KeyError, ValueError):
        raise ValueError("the name or number of a user here") from None


def _tls_user(text: str) -> tuple[str, int]:
    name, _, user = text.rpartition("=")
    allowed = "NAME=USER: a name in certificates, and the name or number of a user here"
    if not name or not user:
        raise ValueError(allowed)
    try:
        return name, _id(user) if user.isdecimal() else pwd.getpwnam(user).pw_uid
    except (KeyError, ValueError):
        raise ValueError(allowed) from None


def _one_of(*allowed: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in allowed:
            raise ValueError(" or ".join(allowed))
        return text

    return parse


def _path(text: str) -> str:
    if not text or "\0" in text:
        raise ValueError("a path")
    return text


def _flag(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError("true or false")
    return text == "true"


@dataclass(frozen=True, slots=True)
class Option:
    """One option: how its text is read, its default as text, and whether it may be repeated.

    Attributes:
        separator: what is between the values of one that may be repeated, where they are one text.
    """

    parse: Callable[[str], Any]
    default: str | None
    metavar: str
    help: str
    many: bool = False
    separator: str = ","

    @property
    def is_flag(self) -> bool:
        """On the command line it is given or not, and takes no value."""
        return self.parse is _flag


#: The options of ``serve`` by their key.
OPTIONS: dict[str, Option] = {
    "listen": Option(
        listened,
        "tcp://127.0.0.1:5640",
        "ADDR",
        "address to listen on, tcp://HOST:PORT, tls://HOST:PORT, unix:///PATH, vsock://CID:PORT, "
        "vhost-user:///PATH?tag=TAG, fd://[NAME] for sockets that systemd passes, or stdio:; may "
        "be given several times",
        many=True,
    ),
    "allow": Option(
        network,
        None,
        "CIDR",
        "network whose clients may connect besides those of this machine, or cid:N or cid:any for "
        "virtual machines; may be given several times (default: none)",
        many=True,
    ),
    "tls-cert": Option(
        _path, None, "FILE", "certificate chain to show at tls:// addresses, in PEM (default: none)"
    ),
    "tls-key": Option(_path, None, "FILE", "key to it, without a passphrase (default: none)"),
    "tls-ca": Option(
        _path, None, "FILE", "certificates of who certifies clients, in PEM (default: none)"
    ),
    "tls-user": Option(
        _tls_user,
        None,
        "NAME=USER",
        "whoever has this name in his certificate is that user; may be given several times "
        "(default: none)",
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
    "uid": Option(_id, None, "N", "owner of the root directory (default: the server's own)"),
    "gid": Option(_id, None, "N", "group of the root directory (default: the server's own)"),
    "export": Option(
        str,
        None,
        "NAME[:KEY=VALUE,...]",
        "file system to serve beside the default one, under this name (mount it with aname=NAME); "
        "may be given several times; the keys are in the README",
        many=True,
        separator=" ",
    ),
    "control": Option(
        _path, None, "PATH", "unix socket for tmpfs9p export, status and top (default: none)"
    ),
    "metrics": Option(
        plain,
        None,
        "ADDR",
        "address of /metrics, for Prometheus, /healthz and /readyz, by HTTP: tcp://HOST:PORT or "
        "unix:///PATH (default: none)",
    ),
    "user": Option(
        _user,
        None,
        "USER",
        "name or number of whom the server becomes when its sockets, keys and swap are open "
        "(default: nobody else)",
    ),
    "msize": Option(_msize, "1m", "SIZE", "largest message offered to clients"),
    "max-connections": Option(_count, str(DEFAULT.max_connections), "N", "clients at a time"),
    "max-connections-per-peer": Option(
        _count,
        str(DEFAULT.max_connections_per_peer),
        "N",
        "clients at a time of one address, or of one user on this machine",
    ),
    "max-fids": Option(_count, str(DEFAULT.max_fids), "N", "files that a client may hold"),
    "max-locks": Option(_count, str(DEFAULT.max_locks), "N", "locks that a client may hold"),
    "max-xattr-bytes": Option(
        _count,
        str(DEFAULT.max_xattr_bytes),
        "SIZE",
        "bytes of extended attributes that a client may be reading and writing at a time",
    ),
    "max-requests": Option(
        _count, str(DEFAULT.max_requests), "N", "requests of a client that may wait at a time"
    ),
    "max-request-bytes": Option(
        _count,
        str(DEFAULT.max_request_bytes),
        "SIZE",
        "bytes that they may hold; then no more are received from this client",
    ),
    "max-depth": Option(
        _count, str(DEFAULT.max_depth), "N", "directories that may be above one another"
    ),
    "client-memory": Option(
        _file_size,
        str(DEFAULT.client_memory),
        "SIZE",
        "bytes that all clients together may make the server hold besides files",
    ),
    "frame-timeout": Option(
        _seconds, str(DEFAULT.frame_timeout), "SECONDS", "time to send a request that was begun"
    ),
    "version-timeout": Option(
        _seconds, str(DEFAULT.version_timeout), "SECONDS", "time for a client to say Tversion"
    ),
    "idle-timeout": Option(
        _seconds_or_never,
        str(DEFAULT.idle_timeout),
        "SECONDS",
        "time that a client may be silent; 0: for ever",
    ),
    "log-format": Option(_one_of("console", "json"), "console", "FORMAT", "console or json"),
    "log-level": Option(
        _one_of("debug", "info", "warning", "error"),
        "info",
        "LEVEL",
        "debug, info, warning or error",
    ),
}


#: The keys of exports for which the options of the same names have the defaults.
INHERITED = ("size", "nr-inodes", "mode", "uid", "gid")

#: The keys of an export.
EXPORT_OPTIONS: dict[str, Option] = {
    **{key: OPTIONS[key] for key in INHERITED},
    "ram": OPTIONS["ram"],
    "ro": Option(_flag, "false", "BOOL", "every change is refused"),
    "allow": Option(
        network, None, "CIDR", "networks whose clients may attach", many=True, separator="+"
    ),
    "squash": Option(_one_of("none", "root", "all"), "none", "WHO", "who acts as nobody"),
    "anonuid": Option(_id, "65534", "N", "user id of nobody"),
    "anongid": Option(_id, "65534", "N", "group id of nobody"),
    "permissions": Option(
        _one_of("auto", "client", "server"), "auto", "WHERE", "which side checks permissions"
    ),
}


@dataclass(frozen=True, slots=True)
class ExportConfig:
    """What an export is made with; sizes in bytes.

    Attributes:
        name: empty for the default one.
        ram: that it has for itself; None: it shares that of the server.
    """

    name: str
    size: int
    ram: int | None
    nr_inodes: int
    mode: int
    uid: int
    gid: int
    ro: bool
    allow: tuple[Network, ...]
    squash: str
    anonuid: int
    anongid: int
    permissions: str


class Given(NamedTuple):
    """What was said of an export: where, and the texts of its keys."""

    source: str
    texts: dict[str, list[str]]


@dataclass(frozen=True, slots=True)
class Config:
    """What ``serve`` runs with; sizes in bytes.

    Attributes:
        exports: the default one, then the others in the order in which they were given.
    """

    listen: tuple[Listened | Passed | Stdio, ...]
    allow: tuple[Network, ...]
    tls_cert: str | None
    tls_key: str | None
    tls_ca: str | None
    tls_user: tuple[tuple[str, int], ...]
    size: int
    ram: int
    swap: tuple[str, ...]
    swap_size: int
    swap_encrypt: bool
    nr_inodes: int
    mode: int
    uid: int
    gid: int
    exports: tuple[ExportConfig, ...]
    control: str | None
    metrics: Tcp | Unix | None
    user: pwd.struct_passwd | None
    msize: int
    limits: Limits
    log_format: str
    log_level: str


def load(given: Mapping[str, list[str]], environ: Mapping[str, str], file: Path | None) -> Config:
    """The configuration from the command line, the environment and a TOML file.

    Args:
        given: texts from the command line by key.

    Raises:
        ConfigError: an unknown key or a value that can not be.
    """
    table = {} if file is None else _read_toml(file)
    export_tables = table.pop("export", {})
    from_file = {key: _texts(f"{file}: {key}", key, value) for key, value in table.items()}
    values: dict[str, Any] = {}
    exports: dict[str, Given] = {}
    for key, option in OPTIONS.items():
        variable = _variable(key)
        if key == "export":
            _add_exports(exports, "--export", given.get(key, []))
            _add_exports(exports, variable, environ.get(variable, "").split())
            _add_export_tables(exports, f"{file}: export", export_tables)
            continue
        if key in given:
            source, texts = f"--{key}", given[key]
        elif variable in environ:
            source, texts = variable, environ[variable].split(option.separator)
        elif key in from_file:
            source, texts = f"{file}: {key}", from_file[key]
        else:
            source, texts = key, [] if option.default is None else [option.default]
        values[_field(key)] = _values(source, option, texts)
    user = values["user"]
    if values["uid"] is None:
        values["uid"] = os.getuid() if user is None else user.pw_uid
    if values["gid"] is None:
        values["gid"] = os.getgid() if user is None else user.pw_gid
    defaults = {key: values[_field(key)] for key in INHERITED}
    exports = {"": Given("", {})} | exports
    values["exports"] = tuple(
        _export(name, given, defaults, bool(values["swap"])) for name, given in exports.items()
    )
    _settle(values)
    _check_tls(values)
    if values["client_memory"] < MESSAGES * values["msize"]:
        raise ConfigError(
            f"--client-memory: {values['client_memory']} is not allowed; it takes at least "
            f"{MESSAGES} times --msize ({values['msize']})"
        )
    limits = Limits(**{field.name: values.pop(field.name) for field in fields(Limits)})
    return Config(**values, limits=limits)


def _variable(key: str) -> str:
    """The environment variable of an option."""
    return "TMPFS9P_" + key.upper().replace("-", "_")


def _field(key: str) -> str:
    """The attribute in which the value of an option is."""
    return key.replace("-", "_")


def _values(source: str, option: Option, texts: list[str]) -> Any:
    """The value of an option: all of them if there may be several, else the last."""
    parsed = [_parse(source, option, text) for text in texts]
    return tuple(parsed) if option.many else (parsed or [None])[-1]


# Exports


def export_of(text: str, config: Config, source: str) -> ExportConfig:
    """An export as ``--export`` has it, for a server that runs with ``config``.

    Args:
        source: where the text is from, for what is told of it.

    Raises:
        ConfigError: it can not be.
    """
    exports: dict[str, Given] = {}
    _add_exports(exports, source, [text])
    ((name, given),) = exports.items()
    defaults = {key: getattr(config, _field(key)) for key in INHERITED}
    return _export(name, given, defaults, bool(config.swap))


def export_name(source: str, text: str) -> str:
    """The name of an export, as it is given, without a slash in front."""
    if text != "/" and not re.fullmatch(r"/?[A-Za-z0-9_][A-Za-z0-9_.-]{0,254}", text):
        raise ConfigError(
            f"{source}: {text!r} is not allowed; it takes / or a name of letters, digits and _.-"
        )
    return text.removeprefix("/")


def _add_exports(exports: dict[str, Given], source: str, texts: list[str]) -> None:
    """Enter exports as ``NAME:KEY=VALUE,...`` has them."""
    found: dict[str, Given] = {}
    for text in texts:
        name, _, rest = text.partition(":")
        where = f"{source}: {name}"
        keys: dict[str, list[str]] = {}
        for item in rest.split(",") if rest else []:
            key, given, value = item.partition("=")
            option = _known(where, key, EXPORT_OPTIONS)
            if not given and option.parse is not _flag:
                raise ConfigError(f"{where}: {key}: without a value; write {key}={option.metavar}")
            value = value if given else "true"
            keys[key] = value.split(option.separator) if option.many else [value]
        found[export_name(source, name)] = Given(where, keys)
    exports |= found | exports


def _add_export_tables(exports: dict[str, Given], source: str, tables: Any) -> None:
    """Enter exports as the tables ``[export.NAME]`` of TOML have them."""
    if not isinstance(tables, dict) or not all(isinstance(it, dict) for it in tables.values()):
        raise ConfigError(f"{source}: is not allowed so; it takes tables, [export.NAME]")
    for name, table in tables.items():
        where = f"{source}.{name}"
        for key in table:
            _known(where, key, EXPORT_OPTIONS)
        keys = {key: _texts(f"{where}: {key}", key, value) for key, value in table.items()}
        exports.setdefault(export_name(source, name), Given(where, keys))


def _export(name: str, given: Given, defaults: dict[str, Any], swap: bool) -> ExportConfig:
    source, texts = given
    values: dict[str, Any] = {}
    for key, option in EXPORT_OPTIONS.items():
        if key not in texts and key in defaults:
            values[_field(key)] = defaults[key]
        else:
            default = [] if option.default is None else [option.default]
            values[_field(key)] = _values(f"{source}: {key}", option, texts.get(key, default))
    size, ram = values["size"], values["ram"]
    if ram is not None and not swap and "size" not in texts:
        values["size"] = min(size, ram)
    elif ram is not None and not swap and ram < size:
        raise ConfigError(
            f"{source}: ram: {ram} is less than its size ({size}), so --swap must be given"
        )
    elif ram is not None:
        values["ram"] = min(ram, size)
    return ExportConfig(name=name, **values)


def _settle(values: dict[str, Any]) -> None:
    """Fill in how much RAM and swap there is, where that follows from the rest."""
    exports: Sequence[ExportConfig] = values["exports"]
    sharing = [export.size for export in exports if export.ram is None]
    own = [export.ram for export in exports if export.ram is not None]
    total, largest = sum(export.size for export in exports), max(sharing, default=0)
    ram = largest + sum(own) if values["ram"] is None else values["ram"]
    if ram < sum(own) + PAGE * bool(sharing):
        raise ConfigError(
            f"--ram: {ram} is less than what exports have for themselves ({sum(own)})"
        )
    shared = ram - sum(own)
    more = values["control"] is not None  # exports may come that need it
    if not values["swap"]:
        if values["swap_size"]:
            raise ConfigError("--swap-size: without a use, --swap must be given")
        if values["swap_encrypt"]:
            raise ConfigError("--swap-encrypt: without --swap there is nothing to encrypt")
        if shared < largest:
            left = f"{shared} of {ram} is left to share, which" if own else str(ram)
            raise ConfigError(
                f"--ram: {left} is less than --size ({largest}), so --swap must be given"
            )
        values["swap_size"] = 0
    elif ram >= total and not (more and values["swap_size"]):
        raise ConfigError(
            "--swap: without a use, --ram must be less than --size and the sizes of all other "
            f"exports together ({total})"
        )
    elif values["swap_size"] is None:
        kept = sum(reserve_for(frames // PAGE) for frames in (shared, *own))
        values["swap_size"] = total - ram + kept * PAGE
    values["ram"] = ram if more else min(ram, total)
    swap_size = values["swap_size"]
    if swap_size // PAGE < len(values["swap"]):
        raise ConfigError(f"--swap-size: {swap_size} is less than a page for each --swap")


def _check_tls(values: dict[str, Any]) -> None:
    """Whether what TLS needs is there, and only if it is used."""
    keys = ("tls-cert", "tls-key", "tls-ca", "tls-user")
    used = next((it for it in values["listen"] if isinstance(it, Tls)), None)
    for key in keys:
        if used is None and values[_field(key)]:
            raise ConfigError(f"--{key}: without a use, no --listen is tls://HOST:PORT")
        if used is not None and not values[_field(key)]:
            raise ConfigError(
                f"--{key}: not given; {used} takes {', '.join(map('--'.__add__, keys))}"
            )
    users: dict[str, int] = {}
    for name, uid in values["tls_user"]:
        if users.setdefault(name, uid) != uid:
            raise ConfigError(f"--tls-user: {name!r} is given as user {users[name]} and as {uid}")


# Texts


def _parse(source: str, option: Option, text: str) -> Any:
    try:
        return option.parse(text)
    except ValueError as error:
        raise ConfigError(f"{source}: {text!r} is not allowed; it takes {error}") from None


def _known(source: str, key: str, options: Mapping[str, Option]) -> Option:
    """The option of that key."""
    if key not in options:
        raise ConfigError(f"{source}: {key}: no such key; there are: {', '.join(options)}")
    return options[key]


def _read_toml(file: Path) -> dict[str, Any]:
    try:
        table = tomllib.loads(file.read_text())
    except OSError as error:
        raise ConfigError(f"--config: {file}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"--config: {file}: not TOML: {error}") from None
    for key in sorted(table):
        _known(str(file), key, OPTIONS)
    return table


def _texts(source: str, key: str, value: Any) -> list[str]:
    """A value of TOML as texts, as the command line has them."""
    if value == []:
        raise ConfigError(f"{source}: [] is not allowed; it takes at least one value")
    if key == "mode" and not isinstance(value, str):  # whether 493 was 493 or 0o755 is not known
        raise ConfigError(f"{source}: {value!r} is not allowed; write it as a string")
    if isinstance(value, bool):
        return [str(value).lower()]
    if isinstance(value, dict) and key == "tls-user":
        return [f"{name}={user}" for name, user in value.items()]
    return [str(item) for item in value] if isinstance(value, list) else [str(value)]

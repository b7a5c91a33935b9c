"""Reload: a running server takes on what has changed in its configuration (SIGHUP).

Rules of this file:

* A configuration that is no good changes nothing; the log says why.
* Only what is configured otherwise than before is touched: what has become of exports over the
  control socket stays.
* What could not be taken on is told in the log, and tried again with the next reload.
"""

import asyncio
import errno
from collections.abc import Callable
from dataclasses import fields, replace
from typing import NoReturn

import structlog

from .certificates import certificates_of
from .config import INHERITED, Config, ExportConfig
from .listener import Server
from .manager import Manager
from .store import Store
from .usage import ConfigError

log = structlog.get_logger()

#: What can be taken on, beside exports, by its attribute of :class:`.Config`.
TAKEN_ON = (
    *(key.replace("-", "_") for key in INHERITED),  # defaults of exports
    *("tls_cert", "tls_key", "tls_ca", "tls_user"),
    *("log_format", "log_level"),
)
#: What an export has from the beginning to the end.
FIXED = ("ram", "mode", "uid", "gid")


class Reload:
    """Reloads when it is asked to.

    Args:
        read: the configuration as it is now.
        configure_logging: has the log be of this format, from this level up.

    Attributes:
        config: what the server runs with.
    """

    def __init__(
        self,
        config: Config,
        read: Callable[[], Config],
        configure_logging: Callable[[str, str], None],
        store: Store,
        server: Server,
        manager: Manager,
    ) -> None:
        self.config = config
        self._read = read
        self._configure_logging = configure_logging
        self._store = store
        self._server = server
        self._manager = manager
        self._asked = asyncio.Event()

    def ask(self) -> None:
        """Reload soon; however often it is asked meanwhile, once."""
        self._asked.set()

    async def run(self) -> NoReturn:
        """Reload whenever that is asked for."""
        while True:
            await self._asked.wait()
            self._asked.clear()
            self._manager.reloading()
            status = self.status
            try:
                await self._reload()
                status = self.status
            except ConfigError as error:
                log.error("configuration not reloaded, the old one stays", why=str(error))
                status += f"; configuration not reloaded: {error}"
            except Exception as error:
                log.error("reloading failed unexpectedly", exc_info=error)
            self._manager.ready(status)

    @property
    def status(self) -> str:
        """What the server does, in a line."""
        return f"exports served: {sum(1 for _ in self._store.exports)}"

    async def _reload(self) -> None:
        """Take on what has changed.

        Raises:
            ConfigError: it is no good; nothing has changed.
        """
        new = self._read()
        certificates = certificates_of(new)
        if self._server.certificates is not None and certificates is not None:
            self._server.certificates = certificates
            log.info("certificates reloaded")
        self._configure_logging(new.log_format, new.log_level)
        exports = await self._take_on(new)
        taken_on = {key: getattr(new, key) for key in TAKEN_ON}
        self.config = replace(self.config, exports=exports, **taken_on)
        kept = _differing(self.config, new)
        if kept:
            log.warning("only a restart changes these", keys=kept)
        log.info("configuration reloaded")

    async def _take_on(self, new: Config) -> tuple[ExportConfig, ...]:
        """Have the exports of ``new``; those that there are, as far as they were configured."""
        old = {export.name: export for export in self.config.exports}
        wanted = {export.name: export for export in new.exports}
        exports = dict(old)
        for name in old:
            if name not in wanted and await self._remove(name):
                del exports[name]
        for name, export in wanted.items():
            if name not in old and await self._add(export):
                exports[name] = export
            elif name in old and export != old[name]:
                exports[name] = self._change(old[name], export)
        return tuple(exports.values())

    async def _add(self, export: ExportConfig) -> bool:
        try:
            await self._store.add(export)
        except OSError as error:
            log.error("export not added", export=f"/{export.name}", why=error.strerror)
            return False
        log.info("export added", export=f"/{export.name}")
        return True

    async def _remove(self, name: str) -> bool:
        try:
            await self._store.remove(name, force=False)
        except OSError as error:
            if error.errno != errno.ENOENT:
                log.warning("export not removed", export=f"/{name}", why=error.strerror)
                return False
        log.info("export removed", export=f"/{name}")
        return True

    def _change(self, old: ExportConfig, new: ExportConfig) -> ExportConfig:
        """Change an export; as what it is configured now."""
        try:
            refused = self._store.change(new)
        except OSError as error:
            log.warning("export not changed", export=f"/{new.name}", why=error.strerror)
            return old
        fixed = [key for key in FIXED if getattr(new, key) != getattr(old, key)]
        refused |= dict.fromkeys(fixed, "only a new export can have another")
        for key, why in refused.items():
            log.warning("export not changed", export=f"/{new.name}", key=key, why=why)
        changed = replace(new, **{key: getattr(old, key) for key in refused})
        if changed != old:
            log.info("export changed", export=f"/{new.name}")
        return changed


def _differing(one: Config, other: Config) -> list[str]:
    """The keys of which two configurations have different values, but for exports."""
    values = [
        {
            field.name: getattr(it, field.name)
            for it in (config, config.limits)
            for field in fields(it)
        }
        for config in (one, other)
    ]
    return [
        key.replace("_", "-")
        for key in values[0]
        if key not in ("limits", "exports") and values[0][key] != values[1][key]
    ]

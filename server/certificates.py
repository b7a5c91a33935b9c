"""Certificates: what an end of TLS shows of itself, and whom it believes.

Rules of this file:

* Both ends show a certificate and check the other's, with TLS 1.3 and nothing older.
* No session is resumed: each connection is checked against the authorities that are trusted then.
* Nobody is asked for a passphrase: a key that has one is refused.
* A client is the user of the names in its certificate: its common names, and those of its
  alternative names that are of DNS, mail or a URI.  They must be exactly as configured.
"""

import os
import ssl
import stat
from collections.abc import Mapping
from typing import Any, NoReturn

import structlog

from .config import Config
from .usage import ConfigError

log = structlog.get_logger()

#: The kinds of alternative names that can stand for a user, as :mod:`ssl` has them.
KINDS = ("DNS", "email", "URI")


class Certificates:
    """What a server shows to clients, and who they are.

    Args:
        cert, key, ca: paths of files in PEM: its certificate chain, the key to that, and the
            authorities that certify clients.
        users: user ids by name.

    Raises:
        ConfigError: a file can not be read, or is not what it must be.
    """

    def __init__(self, cert: str, key: str, ca: str, users: Mapping[str, int]) -> None:
        self._users = users
        self.context = context_of(ssl.PROTOCOL_TLS_SERVER, "tls-", cert, key, ca)
        self.context.num_tickets = 0
        if os.stat(key).st_mode & stat.S_IROTH:
            log.warning("the key is readable by every user", path=key)

    def user_of(self, certificate: Mapping[str, Any]) -> tuple[str, int]:
        """Name and user of who has shown this certificate, as ``SSLObject.getpeercert`` has it.

        Raises:
            PermissionError: it is nobody's, or that of several users.
        """
        names = names_in(certificate)
        known = [name for name in names if name in self._users]
        if not known:
            raise PermissionError(f"no --tls-user has a name of its certificate: {names}")
        users = {self._users[name] for name in known}
        if len(users) > 1:
            raise PermissionError(f"the names of its certificate are of several users: {known}")
        return known[0], users.pop()


def certificates_of(config: Config) -> Certificates | None:
    """What is configured for TLS, if it is used.

    Raises:
        ConfigError: a file can not be read, or is not what it must be.
    """
    if config.tls_cert is None or config.tls_key is None or config.tls_ca is None:
        return None
    return Certificates(config.tls_cert, config.tls_key, config.tls_ca, dict(config.tls_user))


def names_in(certificate: Mapping[str, Any]) -> list[str]:
    """The names in a certificate that can stand for a user, each once."""
    subject = [item for group in certificate.get("subject", ()) for item in group]
    common = [value for kind, value in subject if kind == "commonName"]
    others = certificate.get("subjectAltName", ())
    return list(dict.fromkeys(common + [value for kind, value in others if kind in KINDS]))


def context_of(protocol: int, prefix: str, cert: str, key: str, ca: str) -> ssl.SSLContext:
    """A context for one end of TLS; ``prefix`` is that of the options' names.

    Raises:
        ConfigError: a file can not be read, or is not what it must be.
    """
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    _trust(ssl.SSLContext(protocol), f"--{prefix}cert", cert)  # it says what is wrong with it
    _trust(context, f"--{prefix}ca", ca)
    try:
        with open(key, "rb"):
            context.load_cert_chain(cert, key, password=_no_passphrase)
    except ssl.SSLError:
        what = f"the key to {cert} in PEM, without a passphrase"
        raise ConfigError(f"--{prefix}key: {key} is not allowed; it takes {what}") from None
    except OSError as error:
        raise ConfigError(f"--{prefix}key: {key}: {error.strerror}") from None
    return context


def _trust(context: ssl.SSLContext, option: str, path: str) -> None:
    try:
        context.load_verify_locations(path)
    except ssl.SSLError:
        raise ConfigError(
            f"{option}: {path} is not allowed; it takes certificates in PEM"
        ) from None
    except OSError as error:
        raise ConfigError(f"{option}: {path}: {error.strerror}") from None


def _no_passphrase() -> NoReturn:
    raise ssl.SSLError("the key has a passphrase")

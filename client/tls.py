"""TLS: whom the client believes, and what it shows of itself, from files in PEM.

Rules of this file:

* TLS 1.3 and nothing older.  Without ``ca``, who the system trusts is trusted.
* Nobody is asked for a passphrase: a key that has one is refused.
"""

import argparse
import os
import ssl
from typing import NoReturn

FILES = {
    "cert": "certificate chain to show, in PEM",
    "key": "key to it, without a passphrase",
    "ca": "certificates of who certifies the server",
}


def context(cert: str | None, key: str | None, ca: str | None) -> ssl.SSLContext:
    """What to speak TLS with.

    Args:
        cert, key: the certificate chain to show, and the key to it.
        ca: certificates of who certifies the server.

    Raises:
        ValueError: a file can not be read, or is not what it must be.
    """
    if (cert is None) != (key is None):
        raise ValueError("a certificate needs its key, and a key its certificate")
    try:
        made = ssl.create_default_context(cafile=ca)
    except (OSError, ssl.SSLError) as error:
        raise ValueError(f"{ca}: no certificates in PEM: {error.strerror or error}") from None
    made.minimum_version = ssl.TLSVersion.TLSv1_3
    if cert is not None:
        try:
            made.load_cert_chain(cert, key, _no_passphrase)
        except (OSError, ssl.SSLError) as error:
            why = error.strerror or error
            raise ValueError(f"{cert}, {key}: no certificate and its key in PEM: {why}") from None
    return made


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Enter ``--cert``, ``--key`` and ``--ca``."""
    for name, text in FILES.items():
        parser.add_argument(
            f"--{name}",
            metavar="FILE",
            default=from_environment(name),
            help=f"for tls://: {text} (default: {_variable(name)} of the environment)",
        )


def from_environment(name: str) -> str | None:
    """The file that the environment names, if it does."""
    return os.environ.get(_variable(name))


def _variable(name: str) -> str:
    return f"TMPFS9P_{name.upper()}"


def _no_passphrase() -> NoReturn:
    raise ssl.SSLError("the key has a passphrase")

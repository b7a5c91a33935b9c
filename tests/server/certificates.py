"""Certificates for tests: an authority, a server's, and those of clients, as files."""

import ssl
from pathlib import Path

import trustme


class Authority:
    """An authority, and the files of whom it has certified, in ``folder``.

    Attributes:
        ca: path of its own certificate.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._authority = trustme.CA()
        self.ca = str(folder / "ca.pem")
        self._authority.cert_pem.write_to_path(self.ca)

    def issue(self, file: str, *names: str, common: str | None = None) -> tuple[str, str]:
        """Certify who has these alternative names and this common one: certificate and key."""
        issued = self._authority.issue_cert(*names, common_name=common)
        cert, key = str(self._folder / f"{file}.pem"), str(self._folder / f"{file}.key")
        issued.cert_chain_pems[0].write_to_path(cert)
        issued.private_key_pem.write_to_path(key)
        Path(key).chmod(0o600)
        return cert, key

    def client(self, *names: str, common: str | None = None) -> ssl.SSLContext:
        """What a client of these names speaks TLS with, who trusts this authority."""
        context = ssl.create_default_context(cafile=self.ca)
        context.load_cert_chain(*self.issue("client", *names, common=common))
        return context

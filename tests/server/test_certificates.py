"""certificates: which files are taken, and who is the user of a certificate."""

import os
import ssl
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from server.certificates import Certificates, context_of, names_in
from server.usage import ConfigError

from .certificates import Authority

Files = tuple[str, str, str]


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def files(authority: Authority) -> Files:
    """Paths of a certificate, its key, and the authority of clients."""
    return *authority.issue("server", "localhost"), authority.ca


def subject(*names: str) -> tuple[tuple[tuple[str, str], ...], ...]:
    return tuple((("commonName", name),) for name in names)


# Who it is


@pytest.mark.parametrize(
    ("certificate", "names"),
    [
        ({}, []),
        ({"subject": subject("alice")}, ["alice"]),
        ({"subject": ((("organizationName", "alice"),),)}, []),
        ({"subject": subject("alice", "bob")}, ["alice", "bob"]),
        (
            {
                "subject": subject("alice"),
                "subjectAltName": (
                    ("DNS", "alice"),
                    ("email", "a@b.org"),
                    ("URI", "spiffe://b.org/a"),
                    ("IP Address", "192.0.2.7"),
                    ("Registered ID", "1.2.3"),
                ),
            },
            ["alice", "a@b.org", "spiffe://b.org/a"],
        ),
    ],
)
def test_names_are_common_ones_and_those_of_dns_mail_and_uris(
    certificate: dict[str, object], names: list[str]
) -> None:
    assert names_in(certificate) == names


@pytest.mark.parametrize(
    ("names", "user"),
    [
        (["alice"], ("alice", 5)),
        (["unknown", "alice"], ("alice", 5)),
        (["alice", "alice@b.org"], ("alice", 5)),
        (["root"], ("root", 0)),
    ],
)
def test_a_certificate_is_of_the_user_whose_names_it_has(
    files: Files, names: list[str], user: tuple[str, int]
) -> None:
    users = {"alice": 5, "alice@b.org": 5, "bob": 6, "root": 0}
    assert Certificates(*files, users).user_of({"subject": subject(*names)}) == user


@pytest.mark.parametrize(
    ("names", "why"),
    [
        ([], "no --tls-user has a name of its certificate"),
        (["carol"], "no --tls-user has a name of its certificate: .'carol'"),
        (["Alice"], "no --tls-user"),
        (["alice\0"], "no --tls-user"),
        (["alice", "bob"], "of several users: .'alice', 'bob'"),
        (["bob", "root"], "of several users"),
    ],
)
def test_a_certificate_of_nobody_or_of_several_is_refused(
    files: Files, names: list[str], why: str
) -> None:
    certificates = Certificates(*files, {"alice": 5, "bob": 6, "root": 0})
    with pytest.raises(PermissionError, match=why):
        certificates.user_of({"subject": subject(*names)})


# Files


def test_nothing_older_than_tls_1_3_is_spoken_and_nothing_resumed(
    files: Files,
) -> None:
    context = Certificates(*files, {}).context
    assert context.minimum_version == ssl.TLSVersion.TLSv1_3
    assert context.verify_mode == ssl.CERT_REQUIRED
    assert context.num_tickets == 0


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("kind", ["missing", "folder", "no PEM"])
def test_a_file_that_is_no_good_is_named(
    files: Files, tmp_path: Path, place: int, kind: str
) -> None:
    option = ("--tls-cert", "--tls-key", "--tls-ca")[place]
    path = tmp_path / "other"
    if kind == "folder":
        path.mkdir()
    elif kind == "no PEM":
        path.write_text("something else\n")
    cert, key, ca = (str(path) if at == place else file for at, file in enumerate(files))
    why = {"missing": ": No such file", "folder": ": Is a dir", "no PEM": " is not allowed; it"}
    with pytest.raises(ConfigError, match=f"{option}: {path}{why[kind]}"):
        Certificates(cert, key, ca, {})


def test_a_key_to_another_certificate_is_refused(files: Files, authority: Authority) -> None:
    cert, _, ca = files
    key = authority.issue("other", "localhost")[1]
    with pytest.raises(ConfigError, match=r"--tls-key: .*other.key is not allowed; it takes the"):
        Certificates(cert, key, ca, {})


#: A key with a passphrase, of nobody: openssl genpkey -algorithm ed25519 -aes256 -pass pass:secret
ENCRYPTED = """\
-----BEGIN ENCRYPTED PRIVATE KEY-----
MIGbMFcGCSqGSIb3DQEFDTBKMCkGCSqGSIb3DQEFDDAcBAhlT32QCD3kbAICCAAw
DAYIKoZIhvcNAgkFADAdBglghkgBZQMEASoEEOuswUCAKVBnF8BDRK2q3q8EQLld
XgRL+SDWVNK1k4hAOXEhpK6zGeTfzXFqZ1OJKndqBvNF1WlsZKR8Z5li5cx3pyEx
5xZ46eUeUaiTRhVFaAE=
-----END ENCRYPTED PRIVATE KEY-----
"""


def test_a_key_with_a_passphrase_is_refused_and_nobody_is_asked(
    files: Files, tmp_path: Path
) -> None:
    cert, _, ca = files
    key = tmp_path / "encrypted.key"
    key.write_text(ENCRYPTED)
    with pytest.raises(ConfigError, match=r"--key: .* is not allowed; .* without a passphrase"):
        context_of(ssl.PROTOCOL_TLS_CLIENT, "", cert, str(key), ca)


@pytest.mark.parametrize(("mode", "warnings"), [(0o600, 0), (0o640, 0), (0o644, 1)])
def test_a_key_that_every_user_can_read_is_worth_a_warning(
    files: Files, mode: int, warnings: int
) -> None:
    os.chmod(files[1], mode)
    with capture_logs() as logs:
        Certificates(*files, {})
    assert [line["path"] for line in logs] == [files[1]] * warnings

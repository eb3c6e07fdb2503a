"""A `ca_file` that TLS cannot use is found when the files are read, at its line."""

from __future__ import annotations

import os
import ssl
from pathlib import Path

import pytest

from proxy.config import ConfigError
from proxy.config.certificates import wrong_ca_file
from proxy.config.load import load
from tests.certificates import authority


def test_a_file_of_certificates_is_fine(tmp_path: Path) -> None:
    """One or several, with text between them."""
    one, two = authority("One"), authority("Two")
    path = tmp_path / "ca.pem"
    path.write_bytes(b"# ours\n" + one.certificate + b"\n\n" + two.certificate)
    assert wrong_ca_file(str(path)) is None


def test_what_cannot_be_used_says_why(tmp_path: Path) -> None:
    """In a few words."""
    made = authority("One")
    damaged = made.certificate.replace(b"\nM", b"\nN", 1)
    request = made.certificate.replace(b"CERTIFICATE", b"CERTIFICATE REQUEST")
    contents = {
        "empty": b" \n",
        "key": made.key,
        "binary": ssl.PEM_cert_to_DER_cert(made.certificate.decode()),
        "text": b"hello\n",
        "page": b"<html>not found</html>",
        "damaged": damaged,
        "cut": made.certificate[:200],
        "request": request,
        "other": b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "loop").symlink_to("loop")
    found = {name: str(wrong_ca_file(str(tmp_path / name))) for name in (*contents, "missing", "loop", ".")}
    assert found == {
        "empty": "is empty",
        "key": "holds a private key, not a certificate in PEM form",
        "binary": "is in binary form (DER or PKCS #12); convert it to PEM with openssl",
        "text": "holds no certificate in PEM form (-----BEGIN CERTIFICATE-----)",
        "page": "holds no certificate in PEM form (-----BEGIN CERTIFICATE-----)",
        "damaged": "cannot be used: a certificate in it is damaged",
        "cut": "cannot be used: a certificate in it is damaged",
        "request": "holds a certificate request, not a certificate in PEM form",
        "other": "holds something else, not a certificate in PEM form",
        "missing": "cannot be used: no such file or directory",
        "loop": found["loop"],
        ".": "is a folder; name a file of certificates in PEM form",
    }
    assert found["loop"].startswith("cannot be used: ")
    assert wrong_ca_file("a\0b") == "is not the name of a file"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_says_so(tmp_path: Path) -> None:
    """That of another user."""
    path = tmp_path / "ca.pem"
    path.write_bytes(authority("One").certificate)
    path.chmod(0)
    assert wrong_ca_file(str(path)) == "cannot be used: permission denied"


def test_it_is_found_when_the_files_are_read(tmp_path: Path) -> None:
    """Each at its line, of providers without a key too; not of one that is switched off."""
    path = tmp_path / "routing_rules.yaml"
    path.write_text(
        "version: 1\nproviders:\n"
        "  openai: {ca_file: nowhere.pem}\n"
        "  groq: {enabled: false, ca_file: nowhere.pem}\n"
        "  mistral: {ca_file: nowhere.pem}\n"
    )
    with pytest.raises(ConfigError) as refused:
        load(path, None, {})
    assert [str(each).removeprefix(str(path)) for each in refused.value.problems] == [
        ":3:21: providers.openai.ca_file: cannot be used: no such file or directory",
        ":5:22: providers.mistral.ca_file: cannot be used: no such file or directory",
    ]

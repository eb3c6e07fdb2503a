"""Performs I/O: reads the file that `ca_file` names, and reports why it cannot be used."""

from __future__ import annotations

import ssl
from pathlib import Path

from proxy.config.problems import Problem
from proxy.config.references import problem_at
from proxy.config.settings import Config

MAX_BYTES = 10_000_000


def certificate_problems(config: Config) -> list[Problem]:
    """Problems for unusable certificate files, of every provider that is not switched off."""
    found = []
    for name, provider in config.providers.items():
        if provider.ca_file and provider.enabled and (wrong := wrong_ca_file(provider.ca_file)):
            found.append(problem_at(config, ("providers", name, "ca_file"), wrong))
    return found


def wrong_ca_file(name: str) -> str | None:
    """The reason to refuse a file of certificates; None if TLS can use it."""
    try:
        with Path(name).open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except IsADirectoryError:
        return "is a folder; name a file of certificates in PEM form"
    except OSError as error:
        return f"cannot be used: {(error.strerror or type(error).__name__).lower()}"
    except ValueError:  # a zero byte
        return "is not the name of a file"
    return _wrong_content(data) or _wrong_certificates(data)


def _wrong_content(data: bytes) -> str | None:
    if not data.strip():
        return "is empty"
    if len(data) > MAX_BYTES:
        return f"is larger than {MAX_BYTES // 1_000_000} MB"
    if b"-----BEGIN " not in data:
        if data[:1] == b"\x30":
            return "is in binary form (DER or PKCS #12); convert it to PEM with openssl"
        return "holds no certificate in PEM form (-----BEGIN CERTIFICATE-----)"
    if b"CERTIFICATE-----" not in data:
        kinds = {b"PRIVATE KEY-----": "a private key", b"CERTIFICATE REQUEST-----": "a certificate request"}
        what = next((kinds[end] for end in kinds if end in data), "something else")
        return f"holds {what}, not a certificate in PEM form"
    return None


def _wrong_certificates(data: bytes) -> str | None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(cadata=data.decode("ascii", "replace"))
    except (OSError, ValueError):  # ssl.SSLError is an OSError
        return "cannot be used: a certificate in it is damaged"
    return None if context.cert_store_stats()["x509"] else "holds no certificate in PEM form"

"""Certificates made on the spot: authorities, and servers that they vouch for, or nobody does."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from functools import cache
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from msgspec import Struct

_DAY = timedelta(days=1)


class Made(Struct, frozen=True):
    """A certificate with its key, both in PEM form."""

    certificate: bytes
    key: bytes

    def server_context(self, folder: Path) -> ssl.SSLContext:
        """For a server that shows this certificate. `folder`: for its files."""
        path = folder / "server.pem"
        path.write_bytes(self.certificate + self.key)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)
        return context


@cache
def authority(name: str) -> Made:
    """One that signs for itself."""
    return _made(name, None, (-_DAY, 30 * _DAY), None)


@cache
def server(host: str, issuer: str | None, from_days: int = -1, to_days: int = 30) -> Made:
    """One for this host. `issuer`: the authority's name; None: it signs for itself."""
    return _made("server", host, (from_days * _DAY, to_days * _DAY), authority(issuer) if issuer else None)


def _made(name: str, host: str | None, valid: tuple[timedelta, timedelta], issuer: Made | None) -> Made:
    key = ec.generate_private_key(ec.SECP256R1())
    own = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    signer, by = key, own
    if issuer is not None:
        signer = serialization.load_pem_private_key(issuer.key, None)  # type: ignore[assignment]
        by = x509.load_pem_x509_certificate(issuer.certificate).subject
    serial = x509.random_serial_number()
    builder = x509.CertificateBuilder(by, own, key.public_key(), serial, now + valid[0], now + valid[1])
    builder = builder.add_extension(x509.BasicConstraints(ca=host is None, path_length=None), critical=True)
    identity = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    of_signer = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())
    builder = builder.add_extension(identity, critical=False).add_extension(
        of_signer, critical=False
    )  # 3.13 wants them
    if host is None:
        builder = builder.add_extension(_signs_only(), critical=True)
    else:
        builder = builder.add_extension(x509.SubjectAlternativeName([_name(host)]), critical=False)
    signed = builder.sign(signer, hashes.SHA256())
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return Made(signed.public_bytes(pem), key.private_bytes(pem, pkcs8, serialization.NoEncryption()))


def _name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _signs_only() -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )

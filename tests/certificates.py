"""Certificates of an authority of the tests' own, and the contexts of servers that show them."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

if TYPE_CHECKING:
    from pathlib import Path

    import trustme


def write_authority(authority: trustme.CA, folder: Path) -> str:
    """Write the root certificate as a ``ca_file``; return its path."""
    path = folder / "ca.pem"
    authority.cert_pem.write_to_path(path)
    return str(path)


def serving(certificate: trustme.LeafCert, **options: int) -> ssl.SSLContext:
    """Return the context of a server with this certificate; ``options`` are attributes of the context."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    for name, value in options.items():
        setattr(context, name, value)
    return context


def expired(authority: trustme.CA, host: str) -> trustme.LeafCert:
    return authority.issue_cert(host, not_after=datetime.now(UTC) - timedelta(days=1))


def without_intermediate(authority: trustme.CA, host: str, folder: Path) -> ssl.SSLContext:
    """Return the context of a server that forgot the certificate between its own and the root."""
    leaf = authority.create_child_ca().issue_cert(host)
    pem = folder / "leaf-only.pem"
    pem.write_bytes(leaf.private_key_pem.bytes() + leaf.cert_chain_pems[0].bytes())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    return context


def self_signed(host: str, folder: Path) -> ssl.SSLContext:
    """Return the context of a server whose certificate nobody else has signed."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, host)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = folder / "self.pem"
    pem.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    return context


def encrypted_key(certificate: trustme.LeafCert, password: str, folder: Path) -> tuple[str, str]:
    """Write a certificate and its key, encrypted; return the paths of both."""
    key = serialization.load_pem_private_key(certificate.private_key_pem.bytes(), None)
    key_file, certificate_file = folder / "client.key", folder / "client.pem"
    key_file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(password.encode()),
        )
    )
    certificate_file.write_bytes(certificate.cert_chain_pems[0].bytes())
    return str(certificate_file), str(key_file)

"""Temporary certificates for an engine that uses TLS and for its clients."""

import datetime
import ipaddress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LIFETIME = datetime.timedelta(days=1)


@dataclass(frozen=True)
class Certificates:
    """Directories with ca.pem, cert.pem and key.pem, as docker expects them.

    The client certificate in `untrusted` is signed by another authority.
    """

    server: Path
    client: Path
    untrusted: Path


@dataclass(frozen=True)
class Authority:
    """A certificate authority."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate


def make_certificates(directory: Path, address: str) -> Certificates:
    """Create the certificates for a server at an IP address."""
    authority, other = _authority("sandpool tests"), _authority("another authority")
    made = Certificates(directory / "server", directory / "client", directory / "untrusted")
    _write(made.server, authority, authority, ExtendedKeyUsageOID.SERVER_AUTH, address)
    _write(made.client, authority, authority, ExtendedKeyUsageOID.CLIENT_AUTH)
    _write(made.untrusted, other, authority, ExtendedKeyUsageOID.CLIENT_AUTH)
    return made


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _builder(subject: str, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + LIFETIME)
    )


def _authority(subject: str) -> Authority:
    key = ec.generate_private_key(ec.SECP256R1())
    builder = _builder(subject, _name(subject), key)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    return Authority(key, builder.sign(key, hashes.SHA256()))


def _write(
    directory: Path, signer: Authority, trusted: Authority, usage: x509.ObjectIdentifier, address: str = ""
) -> None:
    directory.mkdir(parents=True)
    key = ec.generate_private_key(ec.SECP256R1())
    builder = _builder("sandpool test", signer.certificate.subject, key)
    builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
    if address:
        names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))])
        builder = builder.add_extension(names, critical=False)
    pem = serialization.Encoding.PEM
    (directory / "ca.pem").write_bytes(trusted.certificate.public_bytes(pem))
    (directory / "cert.pem").write_bytes(builder.sign(signer.key, hashes.SHA256()).public_bytes(pem))
    plain = serialization.NoEncryption()
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain)
    (directory / "key.pem").touch(mode=0o600)
    (directory / "key.pem").write_bytes(secret)

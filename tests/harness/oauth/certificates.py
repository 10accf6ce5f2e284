"""Certificate authority for tests, with server and client certificates."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

Key = ec.EllipticCurvePrivateKey


class Authority:
    """A certificate authority. Its files are in `directory`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "tests")])
        made = self._made(self._name, self._key).add_extension(
            x509.BasicConstraints(ca=True, path_length=None), critical=True
        )
        self.ca = self._kept("ca", made)

    def vouched(self, name: str, days: float = 1) -> tuple[str, str]:
        """Issue a certificate for a name. Return the paths of the certificate and the key.

        With `days` below zero, it has expired.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        made = self._made(subject, key, days).add_extension(
            x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False
        )
        kept = self._directory / f"{name}.key"
        form = (Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        kept.write_bytes(key.private_bytes(*form))
        return self._kept(name, made), str(kept)

    def _made(self, subject: x509.Name, key: Key, days: float = 1) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=30))
            .not_valid_after(now + timedelta(days=days))
        )

    def _kept(self, name: str, made: x509.CertificateBuilder) -> str:
        path = self._directory / f"{name}.pem"
        path.write_bytes(made.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM))
        return str(path)

"""The certificate of a listener, from PEM files that are read again when they are replaced."""

import logging
import ssl
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509

from toolbus_common.observability.metrics import CERTIFICATE_EXPIRY, CERTIFICATE_NOT_RELOADED
from toolbus_common.tls_files import ReplacedFiles, TlsFileError, no_password, reason_of

log = logging.getLogger(__name__)

SOON_SECONDS = 7 * 86_400


class ServerCertificate(ReplacedFiles):
    """The certificate of a listener with its key, and the authority of client certificates.

    With `client_ca`, each client must have a certificate of this authority. A certificate that has
    expired does not replace one that is valid.

    Raises:
        TlsFileError: a file cannot be used.

    """

    def __init__(self, prefix: str, certificate: str, key: str, client_ca: str = "") -> None:
        self._certificate, self._key, self._client_ca = certificate, key, client_ca
        self.expires = datetime.max.replace(tzinfo=UTC)
        super().__init__(prefix, certificate, key, client_ca)
        if self.expires <= datetime.now(UTC):
            log.error("tls.expired", extra={"expired": f"{self.expires:%Y-%m-%d %H:%M} UTC"})

    def check(self, listener: str) -> None:
        """Read replaced files, and show the state in the metrics of the listener."""
        _ = self.context
        CERTIFICATE_EXPIRY.labels(listener).set(self.expires.timestamp())
        CERTIFICATE_NOT_RELOADED.labels(listener).set(bool(self.fault))

    def problem(self) -> str:
        """Return what the operator must do about the certificate; empty if nothing."""
        _ = self.context
        if self.fault:
            return f"the replaced certificate is not in use: {self.fault}"
        left = (self.expires - datetime.now(UTC)).total_seconds()
        if left > SOON_SECONDS:
            return ""
        state = "expires" if left > 0 else "expired"
        return (
            f"the certificate {state} on {self.expires:%Y-%m-%d %H:%M} UTC; replace the files of "
            f"{self._prefix}_CERT and {self._prefix}_KEY, which needs no restart"
        )

    def _read(self) -> ssl.SSLContext:
        expires = self._end_of_certificate()
        now = datetime.now(UTC)
        if expires <= now < self.expires and hasattr(self, "_context"):
            raise TlsFileError(
                f"{self._prefix}_CERT: {self._certificate} expired on {expires:%Y-%m-%d}; set a "
                "renewed certificate."
            )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_RENEGOTIATION
        context.set_alpn_protocols(["http/1.1"])
        try:
            context.load_cert_chain(self._certificate, self._key, password=no_password)
        except (OSError, ValueError) as error:
            raise TlsFileError(
                f"{self._prefix}_CERT and _KEY: {self._certificate} and {self._key} cannot be "
                f"used together ({reason_of(error)}); set readable PEM files, the certificate "
                "with its chain and its key without a password."
            ) from error
        if self._client_ca:
            self._require_certificates(context)
        self.expires = expires
        return context

    def _require_certificates(self, context: ssl.SSLContext) -> None:
        try:
            context.load_verify_locations(self._client_ca)
        except (OSError, ValueError) as error:
            raise TlsFileError(
                f"{self._prefix}_CLIENT_CA: {self._client_ca} cannot be used "
                f"({reason_of(error)}); set a readable PEM file with the certificates of the "
                "clients' authority."
            ) from error
        context.verify_mode = ssl.CERT_REQUIRED

    def _end_of_certificate(self) -> datetime:
        """Return when the first certificate of the file expires."""
        try:
            data = Path(self._certificate).read_bytes()
            return x509.load_pem_x509_certificates(data)[0].not_valid_after_utc
        except (OSError, ValueError) as error:
            reason = reason_of(error) if isinstance(error, OSError) else "no PEM certificate"
            raise TlsFileError(
                f"{self._prefix}_CERT: {self._certificate} cannot be used ({reason}); set a "
                "readable PEM file with the certificate and its chain."
            ) from error

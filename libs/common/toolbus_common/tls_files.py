"""TLS settings of one connection from PEM files, which are read again when they are replaced."""

import logging
import ssl
from pathlib import Path

log = logging.getLogger(__name__)

Stamp = tuple[tuple[int, int, int], ...]


class TlsFileError(Exception):
    """A file with certificates cannot be used. The message names the setting and the file."""


class TlsFiles:
    """The files of a client: trusted authorities, and its own certificate with the key.

    `prefix` is the beginning of the settings' names. `ca` replaces the authorities of the system.
    `context` is created again after a file has changed, for the connections from then on. If the
    new files cannot be used, the earlier ones stay in use.

    Raises:
        TlsFileError: a file cannot be used.

    """

    def __init__(self, prefix: str, ca: str = "", certificate: str = "", key: str = "") -> None:
        self._prefix = prefix
        self._ca, self._certificate, self._key = ca, certificate, key
        self._stamp = self._newest()
        self._context = self._read()

    @property
    def context(self) -> ssl.SSLContext:
        """The settings for a new connection."""
        stamp = self._newest()
        if stamp != self._stamp:
            self._stamp = stamp
            try:
                self._context = self._read()
                log.info("tls.reloaded", extra={"setting": self._prefix})
            except TlsFileError as error:
                log.error("tls.not_reloaded", extra={"reason": str(error)})  # noqa: TRY400
        return self._context

    def _newest(self) -> Stamp:
        """Return what identifies the contents of the files; missing files have zeros."""
        found = []
        for name in filter(None, (self._ca, self._certificate, self._key)):
            try:
                stat = Path(name).stat()
            except OSError:
                found.append((0, 0, 0))
            else:
                found.append((stat.st_ino, stat.st_mtime_ns, stat.st_size))
        return tuple(found)

    def _read(self) -> ssl.SSLContext:
        try:
            context = ssl.create_default_context(cafile=self._ca or None)
        except (OSError, ValueError) as error:
            raise TlsFileError(
                f"{self._prefix}_CA: {self._ca} cannot be used ({reason_of(error)}); set a "
                "readable PEM file with the certificates of the authority."
            ) from error
        if bool(self._certificate) != bool(self._key):
            missing = "KEY" if self._certificate else "CERT"
            raise TlsFileError(
                f"{self._prefix}_{missing} is not set; a client certificate needs both "
                f"{self._prefix}_CERT and {self._prefix}_KEY."
            )
        if self._certificate:
            try:
                context.load_cert_chain(self._certificate, self._key, password=no_password)
            except (OSError, ValueError) as error:
                raise TlsFileError(
                    f"{self._prefix}_CERT and _KEY: {self._certificate} and {self._key} cannot be "
                    f"used together ({reason_of(error)}); set readable PEM files, the certificate "
                    "with its chain and its key without a password."
                ) from error
        return context


def no_password() -> str:
    """Refuse a key with a password, for which the library would ask on the terminal."""
    raise ValueError("the key has a password")


def reason_of(error: Exception) -> str:
    """Return the cause without a path."""
    if isinstance(error, ssl.SSLError):
        return error.reason or "no PEM certificate"
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)

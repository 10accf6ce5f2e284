"""TLS settings from PEM files, which are read again when they are replaced."""

import logging
import ssl
from abc import ABC, abstractmethod
from pathlib import Path

log = logging.getLogger(__name__)

Stamp = tuple[tuple[int, int, int], ...]


class TlsFileError(Exception):
    """A file with certificates cannot be used. The message names the setting and the file."""


class ReplacedFiles(ABC):
    """PEM files of one purpose. `prefix` is the beginning of the settings' names.

    `context` is created again after a file has changed, for the connections from then on. If the
    new files cannot be used, the earlier ones stay in use, and `fault` contains the reason.

    Raises:
        TlsFileError: a file cannot be used.

    """

    def __init__(self, prefix: str, *names: str) -> None:
        self._prefix, self._names = prefix, tuple(filter(None, names))
        self.fault = ""
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
                self.fault = ""
                log.info("tls.reloaded", extra={"setting": self._prefix})
            except TlsFileError as error:
                self.fault = str(error)
                log.error("tls.not_reloaded", extra={"reason": self.fault})  # noqa: TRY400
        return self._context

    def _newest(self) -> Stamp:
        """Return what identifies the contents of the files; missing files have zeros."""
        found = []
        for name in self._names:
            try:
                stat = Path(name).stat()
            except OSError:
                found.append((0, 0, 0))
            else:
                found.append((stat.st_ino, stat.st_mtime_ns, stat.st_size))
        return tuple(found)

    @abstractmethod
    def _read(self) -> ssl.SSLContext:
        """Return the settings with the present files. Raises `TlsFileError`."""


class TlsFiles(ReplacedFiles):
    """The files of a client: trusted authorities, and its own certificate with the key.

    `ca` replaces the authorities of the system.
    """

    def __init__(self, prefix: str, ca: str = "", certificate: str = "", key: str = "") -> None:
        self._ca, self._certificate, self._key = ca, certificate, key
        super().__init__(prefix, ca, certificate, key)

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

"""TLS settings of outgoing connections: trusted authorities and the client certificate."""

import os
import ssl
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from tempfile import NamedTemporaryFile

from toolbus_common.egress.url_target import EgressError

UNREADABLE_CA = "TOOLBUS_EGRESS_CA is not a readable PEM file; set the path of a PEM file"


@dataclass(frozen=True)
class Tls:
    """TLS settings of one client. All paths refer to PEM files.

    `extra` contains additional trusted authorities for all servers. `ca` replaces all authorities
    for this client. `certificate` is sent to servers that request a certificate, and `key` is its
    private key. If both come from secrets, `shown` contains them as one PEM text instead.
    """

    extra: str = ""
    ca: str = ""
    certificate: str = ""
    key: str = ""
    shown: str = field(default="", repr=False)

    @cached_property
    def context(self) -> ssl.SSLContext:
        """The SSL context, created at first use.

        Raises `EgressError`, whose message contains the name of the setting but not the path.
        """
        context = self._trust_context()
        if self.shown:
            _load_client_pair(context, self.shown)
        if self.certificate:
            try:
                context.load_cert_chain(self.certificate, self.key or None, password=_no_password)
            except (OSError, ValueError) as error:
                raise EgressError(
                    "its certificate and key cannot be loaded together without a password; set "
                    "PEM files that the executor can read"
                ) from error
        return context

    def check(self) -> None:
        """Raise `EgressError` if the files are not usable."""
        _ = self.context

    def _trust_context(self) -> ssl.SSLContext:
        try:
            context = ssl.create_default_context(cafile=self.ca or None)
        except OSError as error:
            raise EgressError(
                "its ca cannot be read; set a PEM file that the executor can read"
            ) from error
        if self.extra and not self.ca:
            try:
                context.load_verify_locations(self.extra)
            except OSError as error:
                raise EgressError(UNREADABLE_CA) from error
        return context


SYSTEMS = Tls()  # the system's authorities only


def _load_client_pair(context: ssl.SSLContext, text: str) -> None:
    """Load a certificate and its key from a PEM text, without a file on disk (on Linux)."""
    try:
        with written_certificate(text.encode()) as path:
            context.load_cert_chain(path, password=_no_password)
    except (OSError, ValueError) as error:
        raise EgressError(
            "its client certificate and key cannot be used together; refer to a pair in PEM "
            "form, the key without a password"
        ) from error


def _no_password() -> str:
    """Raise an error for an encrypted key, because the password is not known."""
    raise ValueError("encrypted")


@contextmanager
def written_certificate(text: bytes) -> Iterator[str]:
    """Yield the path of a file with the certificate. On Linux the file is only in memory."""
    if sys.platform != "linux":
        with NamedTemporaryFile() as file:  # only the owner can read it
            file.write(text)
            file.flush()
            yield file.name
        return
    descriptor = os.memfd_create("toolbus")
    try:
        with os.fdopen(os.dup(descriptor), "wb") as file:
            file.write(text)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)

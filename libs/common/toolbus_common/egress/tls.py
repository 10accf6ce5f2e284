"""TLS towards who is called: whom to trust beside the system's authorities, and who we are."""

import os
import ssl
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from tempfile import NamedTemporaryFile

from toolbus_common.egress.url_target import EgressError


@dataclass(frozen=True)
class Tls:
    """`extra` are the authorities every server may have, `ca` those of this one, instead.

    `certificate` and `key` are shown to who asks for them. All are files in PEM form. `shown` are
    the two as one text instead, where they are kept as secrets are.
    """

    extra: str = ""
    ca: str = ""
    certificate: str = ""
    key: str = ""
    shown: str = field(default="", repr=False)

    @cached_property
    def context(self) -> ssl.SSLContext:
        """Made once. Raises `EgressError`; the clause names a setting and no path."""
        context = self._trusting()
        if self.shown:
            _show(context, self.shown)
        if self.certificate:
            try:
                context.load_cert_chain(self.certificate, self.key or None, password=_unasked)
            except (OSError, ValueError) as error:
                raise EgressError(
                    "its certificate and key cannot be read together, without a password; name "
                    "PEM files the executor can read"
                ) from error
        return context

    def check(self) -> None:
        """Raises `EgressError` for files that are of no use."""
        _ = self.context

    def _trusting(self) -> ssl.SSLContext:
        try:
            context = ssl.create_default_context(cafile=self.ca or None)
        except OSError as error:
            raise EgressError(
                "its ca cannot be read; name a PEM file the executor can read"
            ) from error
        if self.extra and not self.ca:
            try:
                context.load_verify_locations(self.extra)
            except OSError as error:
                raise EgressError("TOOLBUS_EGRESS_CA names no PEM file that can be read") from error
        return context


SYSTEMS = Tls()  # the system's authorities, and nothing of ours


def _show(context: ssl.SSLContext, text: str) -> None:
    """Have it show the certificate and key of a text, which lies in no directory."""
    try:
        with written_certificate(text.encode()) as path:
            context.load_cert_chain(path, password=_unasked)
    except (OSError, ValueError) as error:
        raise EgressError(
            "its client's certificate and key cannot be used together; refer to a pair in PEM "
            "form, the key without a password"
        ) from error


def _unasked() -> str:
    """An encrypted key is refused: nobody is there to be asked for its password."""
    raise ValueError("encrypted")


@contextmanager
def written_certificate(text: bytes) -> Iterator[str]:
    """A path to read it at. Where the system can, it lies in memory and on no disk."""
    if sys.platform != "linux":
        with NamedTemporaryFile() as file:  # readable by its owner alone
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

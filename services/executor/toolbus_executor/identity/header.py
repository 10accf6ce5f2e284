"""Signed identity header of requests to one server."""

from dataclasses import dataclass, field, replace
from time import time
from typing import Any

from toolbus_common.contracts import CallAdmitted
from toolbus_common.crypto.dpop.client import bare
from toolbus_common.errors import UnavailableError
from toolbus_executor.identity.claims import claims_of, with_lifetime
from toolbus_executor.identity.keys import IdentityKeys


@dataclass(frozen=True)
class Identity:
    """Identity header of the requests to `audience`.

    The header of a call identifies the caller. The header of any other request identifies Toolbus.
    """

    name: str
    keys: IdentityKeys = field(repr=False)
    audience: str = ""

    def at(self, url: str) -> "Identity":
        """Return the identity for another audience.

        The audience is `url` without user information, query and fragment.
        """
        scheme, found, rest = bare(url).partition("://")
        authority, slash, path = rest.partition("/")
        location = f"{scheme}{found}{authority.rpartition('@')[2]}{slash}{path}"
        return replace(self, audience=location.rstrip("/"))

    def header(self, call: CallAdmitted | None = None) -> tuple[str, str]:
        """Return name and value of the header for a call, or for a request of Toolbus itself.

        Raises:
            UnavailableError: there is no key, or policy has not applied `identity` to the call yet.

        """
        signer = self.keys.now()
        claims = {"sub": signer.issuer} if call is None else _claims(call)
        claims_now = with_lifetime(claims, signer.issuer, self.audience, int(time()))
        return self.name, signer.signed(claims_now)

    def line(self, call: CallAdmitted | None = None) -> bytes:
        """Return the header for a call, or for Toolbus itself, as a line of a request."""
        return "{}: {}\r\n".format(*self.header(call)).encode("ascii")

    def completed(self, request: bytes) -> bytes:
        """Return the request with the header of Toolbus itself, unless it contains the header."""
        first, end, rest = request.partition(b"\r\n")
        if self._line_start in request[: request.index(b"\r\n\r\n")]:
            return request
        return b"%b%b%b%b" % (first, end, self.line(), rest)

    @property
    def _line_start(self) -> bytes:
        return f"\r\n{self.name}: ".encode("ascii")


def _claims(call: CallAdmitted) -> dict[str, Any]:
    if call.identity is None:
        raise UnavailableError(
            "The server's `identity` was configured a moment ago; retry shortly.", sent=False
        )
    return claims_of(call, call.identity)

"""One server's header that says who calls."""

from dataclasses import dataclass, field, replace
from time import time
from typing import Any

from toolbus_common.contracts import CallAdmitted
from toolbus_common.crypto.dpop.client import bare
from toolbus_common.errors import UnavailableError
from toolbus_executor.identity.claims import claims_of, lasting
from toolbus_executor.identity.keys import IdentityKeys


@dataclass(frozen=True)
class Identity:
    """A header of each request to `audience`: of a call it says who calls, of others that we do."""

    name: str
    keys: IdentityKeys = field(repr=False)
    audience: str = ""

    def at(self, url: str) -> "Identity":
        """The same for what lies there, and nothing else; a password in its URL is nobody's."""
        scheme, found, rest = bare(url).partition("://")
        authority, slash, path = rest.partition("/")
        place = f"{scheme}{found}{authority.rpartition('@')[2]}{slash}{path}"
        return replace(self, audience=place.rstrip("/"))

    def header(self, call: CallAdmitted | None = None) -> tuple[str, str]:
        """Name and value for a call, or for a request of our own.

        Raises:
            UnavailableError: there is no key, or policy has not heard yet that there must be one.

        """
        signer = self.keys.now()
        claims = {"sub": signer.issuer} if call is None else _claims(call)
        told = lasting(claims, signer.issuer, self.audience, int(time()))
        return self.name, signer.signed(told)

    def line(self, call: CallAdmitted | None = None) -> bytes:
        """The same as a line of a request's head."""
        return "{}: {}\r\n".format(*self.header(call)).encode("ascii")

    def completed(self, request: bytes) -> bytes:
        """The request, with this header in our own name unless it says who calls."""
        first, end, rest = request.partition(b"\r\n")
        if self._mark in request[: request.index(b"\r\n\r\n")]:
            return request
        return b"%b%b%b%b" % (first, end, self.line(), rest)

    @property
    def _mark(self) -> bytes:
        return f"\r\n{self.name}: ".encode("ascii")


def _claims(call: CallAdmitted) -> dict[str, Any]:
    if call.identity is None:
        raise UnavailableError(
            "The server is to be told who calls since a moment ago; retry shortly.", sent=False
        )
    return claims_of(call, call.identity)

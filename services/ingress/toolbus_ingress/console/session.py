"""The browser's session: the person's credential, encrypted in a cookie.

The cookie is the only copy of the credential. Every page sends it to the REST APIs, which check it
each time, so a revoked key or a changed role ends the session at once.
"""

import hmac
import secrets
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from time import time
from typing import TypeVar

from toolbus_ingress.http.request_guard import Headers
from toolbus_ingress.sessions.sealed_claims import Claims, ClaimSealer

SESSION_SECONDS = 12 * 3600  # the lifetime of a sign-in link's key
C = TypeVar("C", bound=Claims)


class ConsoleSession(Claims, frozen=True):
    """A signed-in browser. `linked` is set if the key was made for a sign-in link.

    `account` is set if the credential is the access token of a person's account.

    `token` is in every form, so that no other site can send a form in the person's name.
    """

    credential: str
    token: str
    expires: float
    linked: bool = False
    account: bool = False


@dataclass(frozen=True, slots=True)
class SealedCookie:
    """A cookie with encrypted claims. `secure` is set if browsers reach the gateway over https.

    With the prefix `__Host-`, browsers accept the cookie from this host alone, so that no other
    host of the domain can replace it.
    """

    sealer: ClaimSealer
    secure: bool
    plain_name: str = "toolbus_console"

    @property
    def name(self) -> str:
        """The name of the cookie."""
        return f"__Host-{self.plain_name}" if self.secure else self.plain_name

    def open(self, headers: Headers, kind: type[C]) -> C | None:
        """Return the claims of a request, or None."""
        try:
            cookies = SimpleCookie(headers.get(b"cookie", b"").decode("latin-1"))
        except CookieError:
            return None
        sealed = cookies.get(self.name)
        return self.sealer.open(sealed.value, kind) if sealed is not None else None

    def close(self, claims: Claims, seconds: int) -> str:
        """Return the Set-Cookie value of these claims."""
        return self._cookie(self.sealer.close(claims), seconds)

    def end(self) -> str:
        """Return the Set-Cookie value that removes the cookie."""
        return self._cookie("", 0)

    def _cookie(self, value: str, seconds: int) -> str:
        secure = "; Secure" if self.secure else ""
        return f"{self.name}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Lax{secure}"


@dataclass(frozen=True, slots=True)
class SessionCookie(SealedCookie):
    """Reads and writes the cookie of the session."""

    def read(self, headers: Headers) -> ConsoleSession | None:
        """Return the session of a request, or None."""
        session = self.open(headers, ConsoleSession)
        return session if session is not None and session.expires > time() else None

    def begin(
        self,
        credential: str,
        seconds: int = SESSION_SECONDS,
        *,
        linked: bool = False,
        account: bool = False,
    ) -> str:
        """Return the Set-Cookie value of a new session."""
        token = secrets.token_urlsafe(24)
        session = ConsoleSession(credential, token, time() + seconds, linked, account)
        return self.close(session, seconds)


def is_own_form(session: ConsoleSession, token: str) -> bool:
    """Return whether a form was made for this session."""
    return hmac.compare_digest(session.token.encode(), token.encode())

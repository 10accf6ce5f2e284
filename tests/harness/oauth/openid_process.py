"""Process of an OpenID provider, and control requests to it."""

import sys
import time
from typing import Any, Self

from harness.engines.http_engine import HttpEngine, redirect_of
from harness.oauth import openid_provider
from harness.services.authorization_service import BASE, RESOURCE


class Provider(HttpEngine):
    """A process of `harness.oauth.openid_provider`."""

    def command(self) -> list[str]:
        """Return the command line."""
        return [sys.executable, str(openid_provider.__file__), str(self.port)]

    @property
    def url(self) -> str:
        """The URL of the issuer."""
        return self.origin

    def say(self, path: str = "/say", **fields: Any) -> dict[str, Any]:
        """Send a control request, and return the response."""
        answer: dict[str, Any] = self.exchange("POST", path, fields)
        return answer

    def minted(self, typ: str = "at+jwt", **changes: Any) -> str:
        """Return an access token with these claims, signed by the provider."""
        now = int(time.time())
        claims = {
            "iss": self.url, "sub": "s-1", "aud": RESOURCE, "exp": now + 600, "iat": now,
            "client_id": "an-agent", "groups": ["staff"], "login": "ann", **changes,
        }  # fmt: skip
        return str(self.say("/mint", claims=claims, typ=typ)["token"])

    def seen(self) -> list[str]:
        """Return the paths of the received requests."""
        return list(self.exchange("GET", "/seen"))

    def exchanges(self) -> list[dict[str, str]]:
        """Return the received token exchanges."""
        return list(self.exchange("GET", "/exchanges"))

    def as_ever(self) -> Self:
        """Reset the provider to its default behaviour."""
        self.say("/as-ever")
        return self

    def keys(self) -> dict[str, Any]:
        """Return the provider's public keys."""
        keys: dict[str, Any] = self.exchange("GET", "/keys")
        return keys

    def arrive(self, location: str) -> str:
        """Follow the browser's redirect to the provider. Return the URL of the next redirect."""
        return redirect_of(location).removeprefix(BASE)


def issuer(provider: Provider, **more: Any) -> dict[str, Any]:
    """Return the configuration of this issuer."""
    return {
        "url": provider.url, "algorithms": ["ES256"], "client_id": openid_provider.CLIENT,
        "secret": openid_provider.SECRET, "user": "login", **more,
    }  # fmt: skip

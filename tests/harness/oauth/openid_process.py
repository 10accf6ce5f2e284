"""An OpenID provider's process, and what tests say to it."""

import sys
import time
from typing import Any, Self

from harness.engines.http_engine import HttpEngine, sent_on
from harness.oauth import openid_provider
from harness.services.authorization_service import BASE, RESOURCE


class Provider(HttpEngine):
    """A process of `harness.oauth.openid_provider`."""

    def command(self) -> list[str]:
        """It listens on our port."""
        return [sys.executable, str(openid_provider.__file__), str(self.port)]

    @property
    def url(self) -> str:
        """Its issuer."""
        return self.origin

    def say(self, path: str = "/say", **told: Any) -> dict[str, Any]:
        """Tell it how to behave, or have it sign something."""
        answer: dict[str, Any] = self.exchange("POST", path, told)
        return answer

    def minted(self, typ: str = "at+jwt", **changes: Any) -> str:
        """An access token of its own."""
        now = int(time.time())
        claims = {
            "iss": self.url, "sub": "s-1", "aud": RESOURCE, "exp": now + 600, "iat": now,
            "client_id": "an-agent", "groups": ["staff"], "login": "ann", **changes,
        }  # fmt: skip
        return str(self.say("/mint", claims=claims, typ=typ)["token"])

    def seen(self) -> list[str]:
        """The paths it was asked for."""
        return list(self.exchange("GET", "/seen"))

    def exchanges(self) -> list[dict[str, str]]:
        """What it was asked to vouch for."""
        return list(self.exchange("GET", "/exchanges"))

    def as_ever(self) -> Self:
        """Have it behave as it did at first."""
        self.say("/as-ever")
        return self

    def keys(self) -> dict[str, Any]:
        """The keys it signs with."""
        keys: dict[str, Any] = self.exchange("GET", "/keys")
        return keys

    def arrive(self, location: str) -> str:
        """Go where a browser is sent, and come back with where it is sent then."""
        return sent_on(location).removeprefix(BASE)


def issuer(provider: Provider, **more: Any) -> dict[str, Any]:
    """What is declared of it."""
    return {
        "url": provider.url, "algorithms": ["ES256"], "client_id": openid_provider.CLIENT,
        "secret": openid_provider.SECRET, "user": "login", **more,
    }  # fmt: skip

"""Devices without a browser (RFC 8628): a code that is shown, and a person who brings it."""

import hmac
import secrets
from dataclasses import dataclass, field
from time import time
from typing import Any

from msgspec.structs import replace

from toolbus_oauth.clients.registry import hash_of
from toolbus_oauth.storage.records import Device, Person, Wish
from toolbus_oauth.storage.store import Store
from toolbus_oauth.web.errors import OAuthError, invalid_grant
from toolbus_oauth.web.rate_limit import Pace

SECONDS = 600.0
INTERVAL = 5
MOST_A_MINUTE = 120
_LETTERS = "BCDFGHJKLMNPQRSTVWXZ"  # no vowels, so no words
_LENGTH = 8


@dataclass(frozen=True, slots=True)
class Devices:
    """Those that wait."""

    issuer: str
    brief: Store
    pace: Pace = field(default_factory=lambda: Pace(MOST_A_MINUTE))

    async def begin(self, wish: Wish) -> dict[str, Any]:
        """A device begins to wait. Raises `OAuthError` when too many do."""
        self.pace.keep()
        user_code = "".join(secrets.choice(_LETTERS) for _ in range(_LENGTH))
        shown = f"{user_code[:4]}-{user_code[4:]}"
        secret = secrets.token_urlsafe(24)
        waiting = replace(wish, device=shown)
        device = Device(user_code, hash_of(secret), waiting, time() + SECONDS)
        await self.brief.put(user_code, device)
        page = f"{self.issuer}/oauth/device"
        return {
            "device_code": f"{user_code}.{secret}",
            "user_code": shown,
            "verification_uri": page,
            "verification_uri_complete": f"{page}?user_code={shown}",
            "expires_in": int(SECONDS),
            "interval": INTERVAL,
        }

    async def wish(self, told: str) -> Wish | None:
        """What the device with this code wishes, while it waits."""
        device = await self.brief.get(Device, _plain(told))
        if device is None or device.state != "pending" or device.expires < time():
            return None
        return device.wish

    async def decide(self, told: str, person: Person, *, allowed: bool) -> bool:
        """Answer the device; False when it no longer waits."""
        device, revision = await self.brief.seen(Device, _plain(told))
        if device is None or device.state != "pending" or device.expires < time():
            return False
        state = "allowed" if allowed else "denied"
        decided = replace(device, state=state, person=person)
        return await self.brief.swap(device.user_code, decided, revision)

    async def redeem(self, code: str, client_id: str) -> tuple[Wish, Person]:
        """What was allowed, once. Raises `OAuthError`, also while nobody has decided."""
        user_code, _, secret = code.partition(".")
        device, revision = await self.brief.seen(Device, user_code)
        if (
            device is None
            or device.wish.client_id != client_id
            or not hmac.compare_digest(hash_of(secret), device.secret_hash)
            or device.state == "used"
        ):
            raise invalid_grant("This device code is none of ours, or was used.")
        if device.expires < time():
            raise OAuthError("expired_token", "Nobody decided in time; begin anew.")
        if device.state == "denied":
            raise OAuthError("access_denied", "The person said no.")
        if device.person is None:
            await self._wait(device, revision)
        if not await self.brief.swap(user_code, replace(device, state="used"), revision):
            raise invalid_grant("This device code was used.")
        assert device.person is not None  # noqa: S101 - _wait raises
        return device.wish, device.person

    async def _wait(self, device: Device, revision: int) -> None:
        now = time()
        if now - device.asked < INTERVAL:
            raise OAuthError("slow_down", f"Ask every {INTERVAL} s at most.")
        await self.brief.swap(device.user_code, replace(device, asked=now), revision)
        raise OAuthError("authorization_pending", "Nobody has decided yet.")


def _plain(told: str) -> str:
    return "".join(each for each in told.upper() if each in _LETTERS)

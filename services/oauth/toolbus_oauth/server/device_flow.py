"""Device authorization grant (RFC 8628): a user code that a person enters in a browser."""

import hmac
import secrets
from dataclasses import dataclass, field
from time import time
from typing import Any

from msgspec.structs import replace

from toolbus_oauth.clients.registry import hash_of
from toolbus_oauth.storage.records import AuthorizationRequest, Device, Person
from toolbus_oauth.storage.store import Store
from toolbus_oauth.web.errors import OAuthError, invalid_grant
from toolbus_oauth.web.rate_limit import RateLimit

SECONDS = 600.0
INTERVAL = 5
MAX_PER_MINUTE = 120
_LETTERS = "BCDFGHJKLMNPQRSTVWXZ"  # no vowels, so that codes do not form words
_LENGTH = 8


@dataclass(frozen=True, slots=True)
class DeviceFlow:
    """Pending device authorizations."""

    issuer: str
    brief: Store
    rate_limit: RateLimit = field(default_factory=lambda: RateLimit(MAX_PER_MINUTE))

    async def begin(self, auth_request: AuthorizationRequest) -> dict[str, Any]:
        """Start a device authorization. Raises `OAuthError` when the rate limit is exceeded."""
        self.rate_limit.keep()
        user_code = "".join(secrets.choice(_LETTERS) for _ in range(_LENGTH))
        shown = f"{user_code[:4]}-{user_code[4:]}"
        secret = secrets.token_urlsafe(24)
        waiting = replace(auth_request, device=shown)
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

    async def auth_request(self, user_code: str) -> AuthorizationRequest | None:
        """Return the pending request with this user code, or None."""
        device = await self.brief.get(Device, _normalized(user_code))
        if device is None or device.state != "pending" or device.expires < time():
            return None
        return device.auth_request

    async def decide(self, user_code: str, person: Person, *, allowed: bool) -> bool:
        """Store a person's decision; return False if the request is not pending."""
        device, revision = await self.brief.get_with_revision(Device, _normalized(user_code))
        if device is None or device.state != "pending" or device.expires < time():
            return False
        state = "allowed" if allowed else "denied"
        decided = replace(device, state=state, person=person)
        return await self.brief.swap(device.user_code, decided, revision)

    async def redeem(self, code: str, client_id: str) -> tuple[AuthorizationRequest, Person]:
        """Redeem a device code once; return the allowed request and the person.

        Raises `OAuthError` if the code is invalid or used, or if the request is pending or denied.
        """
        user_code, _, secret = code.partition(".")
        device, revision = await self.brief.get_with_revision(Device, user_code)
        if (
            device is None
            or device.auth_request.client_id != client_id
            or not hmac.compare_digest(hash_of(secret), device.secret_hash)
            or device.state == "used"
        ):
            raise invalid_grant(
                "This device code is unknown or was already used; start a new device authorization."
            )
        if device.expires < time():
            raise OAuthError(
                "expired_token", "The device code has expired; start a new device authorization."
            )
        if device.state == "denied":
            raise OAuthError(
                "access_denied",
                "The person denied the request. Ask the person before you start another one.",
            )
        if device.person is None:
            await self._reject_pending(device, revision)
        if not await self.brief.swap(user_code, replace(device, state="used"), revision):
            raise invalid_grant(
                "This device code was already used; start a new device authorization."
            )
        assert device.person is not None  # noqa: S101 - _reject_pending raises
        return device.auth_request, device.person

    async def _reject_pending(self, device: Device, revision: int) -> None:
        now = time()
        if now - device.polled_at < INTERVAL:
            raise OAuthError("slow_down", f"Too many requests; wait {INTERVAL} s between them.")
        await self.brief.swap(device.user_code, replace(device, polled_at=now), revision)
        raise OAuthError("authorization_pending", "The person has not decided yet; keep polling.")


def _normalized(user_code: str) -> str:
    return "".join(each for each in user_code.upper() if each in _LETTERS)

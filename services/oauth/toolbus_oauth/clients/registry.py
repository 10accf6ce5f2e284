"""Registry of OAuth clients: self-registered (RFC 7591), operator-added, or from a document."""

import hmac
import re
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from hashlib import sha256
from time import time
from typing import Any

import msgspec
from joserfc.errors import JoseError
from joserfc.jwk import KeySet, RSAKey
from msgspec.structs import replace

from toolbus_common.config.servers.oauth import BY_KEY
from toolbus_common.crypto.dpop.keys import LONGEST_RSA, SHORTEST_RSA
from toolbus_common.crypto.jws import PRIVATE_MEMBERS
from toolbus_common.errors import BusDownError
from toolbus_oauth.keys.unverified_jwt import parse_unverified
from toolbus_oauth.keys.verified_jwt import parse_verified
from toolbus_oauth.storage.records import Client, Used
from toolbus_oauth.storage.store import Store
from toolbus_oauth.web import redirect_uris as redirects
from toolbus_oauth.web.errors import OAuthError, invalid, invalid_client
from toolbus_oauth.web.rate_limit import RateLimit
from toolbus_oauth.web.request import Fields, Request

AUTHORIZATION_CODE, REFRESH = "authorization_code", "refresh_token"
CREDENTIALS, DEVICE = "client_credentials", "urn:ietf:params:oauth:grant-type:device_code"
JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
METHODS = ("none", "client_secret_basic", "client_secret_post", BY_KEY)
ASSERTION_ALGORITHMS = ("ES256", "RS256", "PS256", "EdDSA")
SELF_GRANTS = (AUTHORIZATION_CODE, REFRESH, DEVICE, JWT_BEARER)
MAX_REDIRECTS = 16
LARGEST_METADATA = 8 * 1024
MAX_PER_MINUTE = 120
LONGEST_NAME = 128
LONGEST_ASSERTION_SECONDS = 600
LONGEST_ID = 2048
DocumentOf = Callable[[str], Awaitable[Client]]


@dataclass(slots=True)
class ClientRegistry:
    """Registry that finds, registers and authenticates OAuth clients."""

    store: Store
    registered: Store  # self-registered clients, in a bucket of their own with a size limit
    brief: Store
    document: DocumentOf
    audiences: tuple[str, ...]  # accepted audiences of client assertions
    console: Client | None = None  # the client that needs no registration
    rate_limit: RateLimit = field(default_factory=lambda: RateLimit(MAX_PER_MINUTE))

    async def find(self, client_id: str) -> Client:
        """Return the client with this id. Raises `OAuthError`."""
        if not client_id or len(client_id) > LONGEST_ID:
            raise invalid_client("client_id is missing or too long.")
        if self.console is not None and client_id == self.console.id:
            return self.console
        if client_id.startswith("https://"):
            return await self.document(client_id)
        client = await self.store.get(Client, client_id)
        client = client or await self.registered.get(Client, client_id)
        if client is None:
            raise invalid_client("Unknown client_id; register the client first.")
        return client

    async def register(self, metadata: dict[str, Any]) -> tuple[Client, str]:
        """Register a client from its metadata; return the client and its secret.

        The secret is empty if the client does not authenticate with a secret. Raises `OAuthError`.
        """
        client = parse_metadata(metadata, secrets.token_hex(16))
        if client.method == BY_KEY and not client.keys:
            raise _metadata(f"{BY_KEY} requires jwks, a set of public keys.")
        secret = ""
        if client.method.startswith("client_secret"):
            secret = secrets.token_urlsafe(32)
        client = with_secret(client, secret)
        self.rate_limit.keep()
        try:
            await self.registered.swap(client.id, client, 0)
        except BusDownError as error:
            message = (
                "The registry of clients is full or unavailable; an operator can add the client."
            )
            raise OAuthError("temporarily_unavailable", message, 503) from error
        return client, secret

    async def keep(self, client: Client) -> None:
        """Restart the expiry of a self-registered client because it was used."""
        if client.registered and not client.id.startswith("https://"):
            await self.registered.put(client.id, client)

    async def authenticate(self, request: Request) -> Client:
        """Return the authenticated client of a token-endpoint request. Raises `OAuthError`."""
        form, basic = request.form, request.basic
        methods = [basic is not None, "client_secret" in form, "client_assertion" in form]
        if sum(methods) > 1:
            raise invalid("Authenticate the client with one method only.")
        if "client_assertion" in form:
            return await self._by_assertion(form)
        client_id, secret = basic or (form.get("client_id", ""), form.get("client_secret", ""))
        if basic and form.get("client_id", client_id) != client_id:
            raise invalid("client_id differs from the one in the Authorization header.")
        client = await self.find(client_id)
        if client.method == BY_KEY:
            raise invalid_client(f"This client must authenticate with {BY_KEY}.")
        if client.method == "none":
            if secret:
                raise invalid_client("This client is public; send no secret.")
            return client
        if not hmac.compare_digest(hash_of(secret), client.secret_hash):
            raise invalid_client("The client secret is wrong.")
        return client

    async def _by_assertion(self, form: Fields) -> Client:
        if form.get("client_assertion_type") != ASSERTION:
            raise invalid(f"client_assertion_type must be {ASSERTION}.")
        assertion = form["client_assertion"]
        client = await self.find(
            form.get("client_id") or str(parse_unverified(assertion)[1].get("sub", ""))
        )
        if client.method != BY_KEY:
            raise invalid_client(f"This client does not use {BY_KEY}; use its configured method.")
        claims = _verified(assertion, client)
        self._check_assertion(claims, client)
        if not await self.brief.swap(f"assertion {client.id} {claims['jti']}", Used(), 0):
            raise invalid_client("This assertion was used before; create a new one.")
        return client

    def _check_assertion(self, claims: dict[str, Any], client: Client) -> None:
        now, audience = time(), claims.get("aud")
        audiences = audience if isinstance(audience, list) else [audience]
        ends = claims.get("exp")
        right = (
            claims.get("iss") == claims.get("sub") == client.id
            and len(audiences) == 1
            and audiences[0] in self.audiences
            and isinstance(ends, int | float)
            and now < ends <= now + LONGEST_ASSERTION_SECONDS
            and isinstance(claims.get("jti"), str)
            and 0 < len(claims["jti"]) <= LONGEST_NAME
        )
        if not right:
            raise invalid_client(
                "The assertion must have the client_id as iss and sub, this server alone as aud, "
                "an exp within ten minutes, and a jti."
            )


def check_confidential(client: Client) -> None:
    """Check that a client can authenticate. Raises `OAuthError` for a public client."""
    if client.method == "none":
        raise OAuthError(
            "unauthorized_client",
            "A public client cannot use this grant; use a client with a secret or key.",
        )


def parse_metadata(metadata: dict[str, Any], client_id: str) -> Client:
    """Parse client metadata (RFC 7591 section 2). Raises `OAuthError`."""
    uris = metadata.get("redirect_uris", [])
    grants = metadata.get("grant_types", [AUTHORIZATION_CODE])
    method = metadata.get("token_endpoint_auth_method", "client_secret_basic")
    keys = metadata.get("jwks") or {}
    if len(msgspec.json.encode([uris, grants, keys])) > LARGEST_METADATA:
        raise _metadata(f"redirect_uris, grant_types and jwks exceed {LARGEST_METADATA} bytes.")
    if not _is_list_of_text(uris) or not _is_list_of_text(grants) or len(uris) > MAX_REDIRECTS:
        raise _metadata(
            f"redirect_uris (at most {MAX_REDIRECTS}) and grant_types must be lists of strings."
        )
    for uri in uris:
        if problem := redirects.problem(uri):
            raise OAuthError("invalid_redirect_uri", f"A redirect_uri {problem}.")
    if AUTHORIZATION_CODE in grants and not uris:
        raise OAuthError(
            "invalid_redirect_uri", "redirect_uris is empty; authorization_code needs one."
        )
    if method not in METHODS:
        raise _metadata(f"token_endpoint_auth_method must be one of {', '.join(METHODS)}.")
    if keys:
        _check_keys(keys)
    return Client(
        id=client_id,
        name=_name(metadata.get("client_name")),
        redirects=tuple(dict.fromkeys(uris)),
        method=method,
        keys=keys,
        grants=tuple(each for each in SELF_GRANTS if each in (*grants, REFRESH)),
        registered=True,
        made=time(),
        bound=_bound(metadata.get("dpop_bound_access_tokens", False)),
    )


def with_secret(client: Client, secret: str) -> Client:
    """Return the client with the hash of this secret; an empty secret removes the hash."""
    return replace(client, secret_hash=hash_of(secret) if secret else "")


def hash_of(secret: str) -> str:
    """Return the hash of a client secret. A fast hash suffices, because secrets are random."""
    return sha256(secret.encode()).hexdigest()


def _name(value: Any) -> str:
    if not isinstance(value, str):
        return ""
    shown = re.sub(r"\s+", " ", "".join(each for each in value if each.isprintable()))
    return shown.strip()[:LONGEST_NAME]


def _bound(value: Any) -> bool:
    """Return whether the client accepts only bound tokens (RFC 9449 section 5.2)."""
    if not isinstance(value, bool):
        raise _metadata("dpop_bound_access_tokens must be true or false.")
    return value


def _is_list_of_text(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


def _check_keys(keys: Any) -> None:
    try:
        found = KeySet.import_key_set(keys)
        private = any(each.is_private or PRIVATE_MEMBERS & each.keys() for each in found)
        sizes = [each.public_key.key_size for each in found if isinstance(each, RSAKey)]
    except (JoseError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise _metadata("jwks is not a valid JWK set.") from error
    if private:
        raise _metadata("jwks must contain public keys only.")
    if not all(SHORTEST_RSA <= each <= LONGEST_RSA for each in sizes):
        raise _metadata(f"RSA keys in jwks must have {SHORTEST_RSA} to {LONGEST_RSA} bits.")


def _verified(assertion: str, client: Client) -> dict[str, Any]:
    try:
        keys = KeySet.import_key_set(client.keys)  # type: ignore[arg-type]
        return parse_verified(assertion, keys, ASSERTION_ALGORITHMS)[1]
    except (JoseError, ValueError, TypeError, KeyError) as error:
        raise invalid_client("The assertion is not signed with a key of this client.") from error


def _metadata(message: str) -> OAuthError:
    return OAuthError("invalid_client_metadata", message)

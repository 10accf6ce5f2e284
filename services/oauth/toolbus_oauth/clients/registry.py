"""Clients: registered by themselves (RFC 7591), by operators, or told in their own document."""

import hmac
import re
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from hashlib import sha256
from time import time
from typing import Any

import msgspec
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet
from msgspec.structs import replace

from toolbus_common.config.servers.oauth import BY_KEY
from toolbus_common.errors import BusDownError
from toolbus_oauth.keys.unverified_jwt import peeked
from toolbus_oauth.storage.records import Client, Used
from toolbus_oauth.storage.store import Store
from toolbus_oauth.web import redirect_uris as redirects
from toolbus_oauth.web.errors import OAuthError, invalid, invalid_client
from toolbus_oauth.web.rate_limit import Pace
from toolbus_oauth.web.request import Fields, Request

AUTHORIZATION_CODE, REFRESH = "authorization_code", "refresh_token"
CREDENTIALS, DEVICE = "client_credentials", "urn:ietf:params:oauth:grant-type:device_code"
JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
METHODS = ("none", "client_secret_basic", "client_secret_post", BY_KEY)
ASSERTION_ALGORITHMS = ("ES256", "RS256", "PS256", "EdDSA")
SELF_GRANTS = (AUTHORIZATION_CODE, REFRESH, DEVICE, JWT_BEARER)
MOST_REDIRECTS = 16
LARGEST_METADATA = 8 * 1024
MOST_A_MINUTE = 120
LONGEST_NAME = 128
LONGEST_ASSERTION_SECONDS = 600
LONGEST_ID = 2048
DocumentOf = Callable[[str], Awaitable[Client]]


@dataclass(slots=True)
class Clients:
    """Finds clients, registers them, and sees that they are who they say."""

    store: Store
    registered: Store  # those that registered themselves, apart: anybody can make some
    brief: Store
    document: DocumentOf
    audiences: tuple[str, ...]  # what an assertion may be meant for
    pace: Pace = field(default_factory=lambda: Pace(MOST_A_MINUTE))

    async def find(self, client_id: str) -> Client:
        """The client of an id. Raises `OAuthError`."""
        if not client_id or len(client_id) > LONGEST_ID:
            raise invalid_client("Name the client with client_id.")
        if client_id.startswith("https://"):
            return await self.document(client_id)
        client = await self.store.get(Client, client_id)
        client = client or await self.registered.get(Client, client_id)
        if client is None:
            raise invalid_client("No such client; register it.")
        return client

    async def register(self, told: dict[str, Any]) -> tuple[Client, str]:
        """A client that registers itself, and its secret if it wants one. Raises `OAuthError`."""
        client = described(told, secrets.token_hex(16))
        if client.method == BY_KEY and not client.keys:
            raise _metadata(f"{BY_KEY} needs jwks, a set of public keys.")
        secret = ""
        if client.method.startswith("client_secret"):
            secret = secrets.token_urlsafe(32)
        client = with_secret(client, secret)
        self.pace.keep()
        try:
            await self.registered.swap(client.id, client, 0)
        except BusDownError as error:
            sentence = "No more clients can be kept now; an operator can add one."
            raise OAuthError("temporarily_unavailable", sentence, 503) from error
        return client, secret

    async def keep(self, client: Client) -> None:
        """Keep one that registered itself for as long again: it is used."""
        if client.registered and not client.id.startswith("https://"):
            await self.registered.put(client.id, client)

    async def authenticated(self, request: Request) -> Client:
        """The client that makes this request, once it has proved who it is. Raises `OAuthError`."""
        form, basic = request.form, request.basic
        ways = [basic is not None, "client_secret" in form, "client_assertion" in form]
        if sum(ways) > 1:
            raise invalid("Prove who the client is in one way only.")
        if "client_assertion" in form:
            return await self._by_assertion(form)
        client_id, secret = basic or (form.get("client_id", ""), form.get("client_secret", ""))
        if basic and form.get("client_id", client_id) != client_id:
            raise invalid("client_id is not the one in the header.")
        client = await self.find(client_id)
        if client.method == BY_KEY:
            raise invalid_client(f"This client proves itself with {BY_KEY}.")
        if client.method == "none":
            if secret:
                raise invalid_client("This client has no secret; send none.")
            return client
        if not hmac.compare_digest(hash_of(secret), client.secret_hash):
            raise invalid_client("The client's secret is not right.")
        return client

    async def _by_assertion(self, form: Fields) -> Client:
        if form.get("client_assertion_type") != ASSERTION:
            raise invalid(f"client_assertion_type must be {ASSERTION}.")
        assertion = form["client_assertion"]
        client = await self.find(form.get("client_id") or str(peeked(assertion)[1].get("sub", "")))
        if client.method != BY_KEY:
            raise invalid_client(f"This client does not prove itself with {BY_KEY}.")
        claims = _verified(assertion, client)
        self._check_assertion(claims, client)
        if not await self.brief.swap(f"assertion {client.id} {claims['jti']}", Used(), 0):
            raise invalid_client("This assertion was used before; make a new one.")
        return client

    def _check_assertion(self, claims: dict[str, Any], client: Client) -> None:
        now, audience = time(), claims.get("aud")
        meant = audience if isinstance(audience, list) else [audience]
        ends = claims.get("exp")
        right = (
            claims.get("iss") == claims.get("sub") == client.id
            and len(meant) == 1
            and meant[0] in self.audiences
            and isinstance(ends, int | float)
            and now < ends <= now + LONGEST_ASSERTION_SECONDS
            and isinstance(claims.get("jti"), str)
            and 0 < len(claims["jti"]) <= LONGEST_NAME
        )
        if not right:
            raise invalid_client(
                "The assertion must name the client as iss and sub, us alone as aud, an exp within "
                "ten minutes and a jti."
            )


def check_proves(client: Client) -> None:
    """See that a client can prove who it is. Raises `OAuthError`."""
    if client.method == "none":
        raise OAuthError("unauthorized_client", "This client cannot prove who it is.")


def described(told: dict[str, Any], client_id: str) -> Client:
    """A client as it describes itself. Raises `OAuthError`."""
    uris = told.get("redirect_uris", [])
    grants = told.get("grant_types", [AUTHORIZATION_CODE])
    method = told.get("token_endpoint_auth_method", "client_secret_basic")
    keys = told.get("jwks") or {}
    if len(msgspec.json.encode([uris, grants, keys])) > LARGEST_METADATA:
        raise _metadata(f"redirect_uris, grant_types and jwks have over {LARGEST_METADATA} bytes.")
    if not _texts(uris) or not _texts(grants) or len(uris) > MOST_REDIRECTS:
        raise _metadata("redirect_uris and grant_types must be short lists of text.")
    for uri in uris:
        if wrong := redirects.fault(uri):
            raise OAuthError("invalid_redirect_uri", f"A redirect_uri {wrong}.")
    if AUTHORIZATION_CODE in grants and not uris:
        raise OAuthError("invalid_redirect_uri", "Name at least one redirect_uri.")
    if method not in METHODS:
        raise _metadata(f"token_endpoint_auth_method must be one of {', '.join(METHODS)}.")
    if keys:
        _check_keys(keys)
    return Client(
        id=client_id,
        name=_name(told.get("client_name")),
        redirects=tuple(dict.fromkeys(uris)),
        method=method,
        keys=keys,
        grants=tuple(each for each in SELF_GRANTS if each in (*grants, REFRESH)),
        registered=True,
        made=time(),
        bound=_bound(told.get("dpop_bound_access_tokens", False)),
    )


def with_secret(client: Client, secret: str) -> Client:
    """The client with this secret."""
    return replace(client, secret_hash=hash_of(secret) if secret else "")


def hash_of(secret: str) -> str:
    """What is kept of a client's secret; it is random, so it need not be slow."""
    return sha256(secret.encode()).hexdigest()


def _name(told: Any) -> str:
    if not isinstance(told, str):
        return ""
    shown = re.sub(r"\s+", " ", "".join(each for each in told if each.isprintable()))
    return shown.strip()[:LONGEST_NAME]


def _bound(told: Any) -> bool:
    """Whether it takes bound tokens only (RFC 9449 section 5.2)."""
    if not isinstance(told, bool):
        raise _metadata("dpop_bound_access_tokens must be true or false.")
    return told


def _texts(told: Any) -> bool:
    return isinstance(told, list) and all(isinstance(each, str) for each in told)


def _check_keys(keys: Any) -> None:
    try:
        found = KeySet.import_key_set(keys)
        private = any(each.is_private for each in found)
        shared = any(each.key_type == "oct" for each in found)
    except (JoseError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise _metadata("jwks is no set of public keys.") from error
    if private or shared:
        raise _metadata("jwks must hold public keys only.")


def _verified(assertion: str, client: Client) -> dict[str, Any]:
    try:
        keys = KeySet.import_key_set(client.keys)  # type: ignore[arg-type]
        return dict(jwt.decode(assertion, keys, algorithms=list(ASSERTION_ALGORITHMS)).claims)
    except (JoseError, ValueError, TypeError, KeyError) as error:
        raise invalid_client("The assertion is not signed with a key of this client.") from error


def _metadata(sentence: str) -> OAuthError:
    return OAuthError("invalid_client_metadata", sentence)

"""Claims that identify the caller to an upstream server."""

from typing import Any

import msgspec

from toolbus_common.contracts import TOOLS_CALL, CallAdmitted, Identified
from toolbus_common.contracts.events.base import DEFAULT_CUSTOMER
from toolbus_common.errors import UnavailableError

SECONDS = 60  # lifetime of a signed token


def claims_of(call: CallAdmitted, identified: Identified) -> dict[str, Any]:
    """Return a call's claims: user, key, customer, team, actors and tool."""
    claims = {**caller_claims(call, identified), "jti": call.call_id}
    if call.method == TOOLS_CALL:
        claims["tool"] = call.tool
    return claims


def caller_claims(call: CallAdmitted, identified: Identified) -> dict[str, Any]:
    """Return the claims that all calls of one caller have: user, key, customer, team, actors."""
    claims: dict[str, Any] = {"sub": call.user or f"key:{call.key}", "key": call.key}
    if call.customer != DEFAULT_CUSTOMER:
        claims["customer"] = call.customer
    if identified.team:
        claims["team"] = identified.team
    if identified.actors:
        claims["act"] = actor_chain(identified.actors)
    return claims


def encoded_caller(call: CallAdmitted) -> str:
    """Return the claims of a call's caller as JSON; equal callers have equal texts.

    Raises:
        UnavailableError: policy has not applied the server's new configuration to the call yet.

    """
    if call.identity is None:
        raise UnavailableError(
            "The server's 'oauth' was configured a moment ago; retry shortly.", sent=False
        )
    return msgspec.json.encode(caller_claims(call, call.identity), order="sorted").decode()


def actor_chain(actors: tuple[str, ...]) -> dict[str, Any]:
    """Return the nested `act` claim; the nearest actor is outermost (RFC 8693 section 4.1)."""
    chain: dict[str, Any] = {}
    for each in reversed(actors):
        chain = {"sub": each, "act": chain} if chain else {"sub": each}
    return chain


def with_lifetime(claims: dict[str, Any], issuer: str, audience: str, now: int) -> dict[str, Any]:
    """Return the claims with issuer, audience and expiry: valid for one minute from `now`."""
    return {"iss": issuer, "aud": audience, "iat": now, "exp": now + SECONDS, **claims}

"""What a server is told of who calls. Pure."""

from typing import Any

from toolbus_common.contracts import TOOLS_CALL, CallAdmitted, Identified
from toolbus_common.contracts.events.base import DEFAULT_CUSTOMER

SECONDS = 60  # that it is good for


def claims_of(call: CallAdmitted, told: Identified) -> dict[str, Any]:
    """Of a call: in whose name, with which key, for which customer and team, of which tool."""
    claims: dict[str, Any] = {
        "sub": call.user or f"key:{call.key}",
        "jti": call.call_id,
        "key": call.key,
    }
    if call.customer != DEFAULT_CUSTOMER:
        claims["customer"] = call.customer
    if told.team:
        claims["team"] = told.team
    if told.actors:
        claims["act"] = acting(told.actors)
    if call.method == TOOLS_CALL:
        claims["tool"] = call.tool
    return claims


def acting(actors: tuple[str, ...]) -> dict[str, Any]:
    """Who acts in somebody's name, the nearest outermost (RFC 8693 section 4.1)."""
    chain: dict[str, Any] = {}
    for each in reversed(actors):
        chain = {"sub": each, "act": chain} if chain else {"sub": each}
    return chain


def lasting(claims: dict[str, Any], issuer: str, audience: str, now: int) -> dict[str, Any]:
    """The same for one server, and a moment."""
    return {"iss": issuer, "aud": audience, "iat": now, "exp": now + SECONDS, **claims}

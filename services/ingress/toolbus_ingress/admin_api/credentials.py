"""The administrator of a request: holder of an admin key, or of an access token with a role."""

from collections.abc import MutableMapping
from time import time
from typing import Any

from toolbus_common.access.administrators import Administrator
from toolbus_common.access.config_snapshot import hash_of, key_digest_of
from toolbus_common.errors import UnauthorizedError
from toolbus_common.nats.client import bus_down
from toolbus_ingress.auth.dpop import BEARER, SCHEMES
from toolbus_ingress.auth.protected_resource import token_of
from toolbus_ingress.http.request_guard import Headers
from toolbus_ingress.mcp.endpoint import Endpoint


async def authenticate(
    endpoint: Endpoint, headers: Headers, scope: MutableMapping[str, Any]
) -> tuple[str, Administrator]:
    """Return the digest of the credential, and its holder.

    Policy checks the digest again; this check only avoids reading the body of a request without
    rights. No cookies are used: every request carries its own credential, so no other site can make
    a browser act for its user.

    Raises:
        UnauthorizedError: there is no credential, or it is not valid here.
        BusDownError: no credential can be checked now.

    """
    scheme, _, secret = headers.get(b"authorization", b"").partition(b" ")
    if scheme.lower() not in SCHEMES or not secret:
        raise UnauthorizedError(
            "No credential was sent. Send an admin key as 'Authorization: Bearer <key>'."
        )
    if not endpoint.service.bus.connected:
        raise bus_down()
    token, protected_resource = token_of(headers), endpoint.protected_resource
    if token and protected_resource.admin_enabled:
        await protected_resource.verify(token, protected_resource.admin_resource)
    key_digest = key_digest_of(secret.strip().decode("latin-1"))
    known = endpoint.directory.administrator(key_digest, time())
    if known is None:
        raise UnauthorizedError("Invalid, revoked or expired admin key or access token.")
    bearer = endpoint.directory.bearers.known(hash_of(key_digest))
    if bearer is not None:
        protected_resource.check_proof(bearer, headers, scope)
    elif scheme.lower() != BEARER:
        raise UnauthorizedError(
            "Wrong scheme for an admin key. Send it as 'Authorization: Bearer <key>'."
        )
    return key_digest, known

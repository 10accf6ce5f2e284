"""Verification of tokens that this server, an identity provider or a client signed."""

from collections.abc import Collection
from typing import Any

from joserfc.errors import JoseError
from joserfc.jwk import KeySet
from joserfc.jws import default_registry

from toolbus_common.crypto import jws


def parse_verified(
    token: str, keys: KeySet, algorithms: Collection[str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return header and claims of a token that one of the keys signed.

    The caller must check issuer, audience and times. Raises `JwsError` if the signature is invalid,
    or if two parsers could read the text differently.
    """
    found = jws.parse(token)
    algorithm = str(found.header.get("alg"))
    if algorithm not in algorithms:
        raise jws.JwsError(f"its alg must be one of {', '.join(algorithms)}")
    try:
        default_registry.check_header(found.header)
        key = keys.get_by_kid(found.header.get("kid"), {"alg": algorithm, "use": "sig"})
        model = jws.SIGNATURES[algorithm]
        model.check_key(key)
        signed = model.verify(found.message, found.signature, key)
    except (JoseError, ValueError) as error:
        raise jws.JwsError("no key of its issuer is for its kid and alg") from error
    if not signed:
        raise jws.JwsError("its signature does not match the key of its issuer")
    return found.header, found.claims

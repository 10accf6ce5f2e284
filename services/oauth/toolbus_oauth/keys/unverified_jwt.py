"""Parser of tokens that are not verified yet."""

from typing import Any

from toolbus_common.crypto import jws

ID_JAG_TYPE = "oauth-id-jag+jwt"


def parse_unverified(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return header and claims of an unverified JWT; both are empty if it is malformed."""
    try:
        found = jws.parse(token)
    except jws.JwsError:
        return {}, {}
    return found.header, found.claims

"""Authorization server metadata (RFC 8414), also returned as OpenID configuration."""

from typing import Any

from toolbus_common.crypto.dpop.keys import ALGORITHMS
from toolbus_oauth.clients.registry import (
    ASSERTION_ALGORITHMS,
    AUTHORIZATION_CODE,
    CREDENTIALS,
    DEVICE,
    EXCHANGE,
    JWT_BEARER,
    METHODS,
    REFRESH,
)

ID_JAG = "urn:ietf:params:oauth:grant-profile:id-jag"


def document(issuer: str, scopes: list[str], *, registration: bool) -> dict[str, Any]:
    """Return the metadata document."""
    authenticating = [each for each in METHODS if each != "none"]
    metadata: dict[str, Any] = {
        "issuer": issuer,
        "authorization_endpoint": f"{issuer}/oauth/authorize",
        "token_endpoint": f"{issuer}/oauth/token",
        "revocation_endpoint": f"{issuer}/oauth/revoke",
        "introspection_endpoint": f"{issuer}/oauth/introspect",
        "device_authorization_endpoint": f"{issuer}/oauth/device/code",
        "jwks_uri": f"{issuer}/oauth/jwks",
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        "grant_types_supported": [
            AUTHORIZATION_CODE,
            REFRESH,
            CREDENTIALS,
            DEVICE,
            JWT_BEARER,
            EXCHANGE,
        ],
        "scopes_supported": scopes,
        "code_challenge_methods_supported": ["S256"],
        "token_endpoint_auth_methods_supported": list(METHODS),
        "token_endpoint_auth_signing_alg_values_supported": list(ASSERTION_ALGORITHMS),
        "revocation_endpoint_auth_methods_supported": list(METHODS),
        "revocation_endpoint_auth_signing_alg_values_supported": list(ASSERTION_ALGORITHMS),
        "introspection_endpoint_auth_methods_supported": authenticating,
        "introspection_endpoint_auth_signing_alg_values_supported": list(ASSERTION_ALGORITHMS),
        "authorization_response_iss_parameter_supported": True,
        "client_id_metadata_document_supported": True,
        "authorization_grant_profiles_supported": [ID_JAG],
        "dpop_signing_alg_values_supported": list(ALGORITHMS),
    }
    if registration:
        metadata["registration_endpoint"] = f"{issuer}/oauth/register"
    return metadata

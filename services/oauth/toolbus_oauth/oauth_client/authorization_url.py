"""URLs of authorization requests (RFC 6749 section 4.1.1), always with PKCE (RFC 7636)."""

from authlib.oauth2.rfc6749.parameters import prepare_grant_uri
from authlib.oauth2.rfc7636 import create_s256_code_challenge


def authorization_url(endpoint: str, client_id: str, verifier: str, **params: str) -> str:
    """Return the URL of an authorization request; empty parameters are omitted.

    Raises `ValueError` if the endpoint is not a URL.
    """
    given = {name: value for name, value in params.items() if value}
    challenge = create_s256_code_challenge(verifier)
    pkce = {"code_challenge": challenge, "code_challenge_method": "S256"}
    return str(prepare_grant_uri(endpoint, client_id, "code", **given, **pkce))

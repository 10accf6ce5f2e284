"""Client authentication at another server's endpoints, as methods of Authlib's client."""

from base64 import b64encode
from collections.abc import Callable, MutableMapping
from time import time
from typing import Any
from urllib.parse import quote_plus

from authlib.common.urls import add_params_to_qs
from authlib.oauth2.rfc7523 import private_key_jwt_sign
from authlib.oauth2.rfc7523.client import ASSERTION_TYPE
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, RSAKey

from toolbus_common.config.servers.oauth import BY_KEY
from toolbus_common.crypto.jws import SIGNATURES
from toolbus_oauth.keys.signing_keys import ALGORITHM, SigningKeys
from toolbus_oauth.oauth_client.identity import ClientIdentity, TokenRequestError

ASSERTION_SECONDS = 120

Headers = MutableMapping[str, str]
# Takes the authenticating object, method, URL, headers and body; returns the last three.
AuthMethod = Callable[[Any, str, str, Headers, bytes], tuple[str, Headers, Any]]


def method_of(client: ClientIdentity, issuer: str, keys: SigningKeys) -> AuthMethod:
    """Return the client authentication method for one request.

    For a public client, or a client with a certificate, the method only sends the client id. Raises
    `TokenRequestError` if the configured key cannot sign.
    """
    if client.method == "client_secret_basic":
        return _basic(client)
    if client.method == "client_secret_post":
        return _with_params(client, client_secret=client.secret)
    if client.method == BY_KEY:
        assertion = client.assertion or _assertion(client, issuer, keys)
        return _with_params(
            client, client_assertion_type=ASSERTION_TYPE, client_assertion=assertion
        )
    return _with_params(client)


def _basic(client: ClientIdentity) -> AuthMethod:
    """Return a method with HTTP Basic of the form-encoded id and secret (RFC 6749 section 2.3.1).

    Authlib's method does not encode them: the server would decode an id with `:` or a secret with
    `%` to another value.
    """
    pair = f"{quote_plus(client.id)}:{quote_plus(client.secret)}"
    credentials = f"Basic {b64encode(pair.encode()).decode()}"
    add_id = _with_params(client)

    def method(auth: Any, verb: str, url: str, headers: Headers, body: bytes) -> Any:
        headers["authorization"] = credentials
        if client.id_in_form:
            return add_id(auth, verb, url, headers, body)
        return url, headers, body

    return method


def _with_params(client: ClientIdentity, **params: str) -> AuthMethod:
    """Return a method that adds the client id and these fields to the form.

    Authlib's methods extend a form of bytes, which fails for values that are not ASCII.
    """
    fields = [("client_id", client.id), *params.items()]

    def method(_auth: Any, _verb: str, url: str, headers: Headers, body: bytes) -> Any:
        return url, headers, add_params_to_qs(body.decode(), fields)

    return method


def _assertion(client: ClientIdentity, issuer: str, keys: SigningKeys) -> str:
    """Return a new assertion, signed with the configured key or with a key of this gateway."""
    if client.key:
        key, algorithm = _configured_key(client.key)
        header = {"typ": "JWT"}
    else:
        key, algorithm = keys.signing_key, ALGORITHM
        header = {"typ": "JWT", "kid": str(key.kid)}
    # Authlib adds `jti` to this dictionary, so each assertion needs a new dictionary.
    claims = {"exp": int(time()) + ASSERTION_SECONDS}
    return str(
        private_key_jwt_sign(key, client.id, issuer, alg=algorithm, claims=claims, header=header)
    )


def _configured_key(pem: str) -> tuple[ECKey | RSAKey, str]:
    kinds: tuple[tuple[type[ECKey | RSAKey], str], ...] = ((ECKey, "ES256"), (RSAKey, "RS256"))
    for kind, algorithm in kinds:
        try:
            key = kind.import_key(pem)
            SIGNATURES[algorithm].check_key(key)
        except (JoseError, ValueError, TypeError):
            continue
        if key.is_private:
            return key, algorithm
    raise TokenRequestError(
        "", "the configured key of Toolbus' client is not a PEM private key for ES256 or RS256"
    )

"""Sessions of Authlib's client, over the checked transport.

The import of httpx takes 0.2 s. This module is therefore imported in a thread, at the first
request.
"""

from authlib.integrations.httpx_client import AsyncOAuth2Client

from toolbus_common.egress.http_client import HttpClient
from toolbus_common.egress.httpx_adapter import INVALID_REQUEST, LimitedTransport
from toolbus_oauth.oauth_client.client_auth import AuthMethod
from toolbus_oauth.oauth_client.identity import ClientIdentity, RemoteEndpoint, TokenRequestError


def opened(
    fetcher: HttpClient, endpoint: RemoteEndpoint, client: ClientIdentity, method: AuthMethod
) -> AsyncOAuth2Client:
    """Return a session for one request; it shares no state with other sessions.

    Raises `TokenRequestError` if the endpoint's URL is not valid.
    """
    session = AsyncOAuth2Client(
        client.id,
        client.secret,
        token_endpoint_auth_method=method,
        revocation_endpoint_auth_method=method,
        transport=LimitedTransport(
            fetcher, operator_named=endpoint.named, certificate=client.shown
        ),
        trust_env=False,  # no proxy, no .netrc
    )
    try:
        session.build_request("POST", endpoint.url)
    except INVALID_REQUEST as error:
        raise TokenRequestError("", "the URL of its endpoint is not valid") from error
    return session

"""Callers without a credential: name, key digest, and the test for remote access.

The key digest of an anonymous caller is not a hash, so no secret can produce it. If the client has
a session, the digest contains the session id. State stored by key digest (tasks, results, sessions
at servers) is therefore separate for each client session.
"""

from urllib.parse import urlsplit

from toolbus_common.http_server.proxy_addresses import is_loopback

ANONYMOUS = "(anonymous)"  # no configured name can look like this
KEY_DIGEST = "anonymous"
_OF_SESSION = f"{KEY_DIGEST}."
FORCE = "anonymous.allow_remote: true"


def key_digest_in(session: str) -> str:
    """Return the key digest of an anonymous caller within a client session."""
    return _OF_SESSION + session if session else KEY_DIGEST


def is_anonymous(key_digest: str) -> bool:
    """Return whether a key digest belongs to a caller without a credential."""
    return key_digest == KEY_DIGEST or key_digest.startswith(_OF_SESSION)


def is_local_name(host: str) -> bool:
    """Return whether a host name or address (without port) always means this machine."""
    bare = host.lower().removeprefix("[").removesuffix("]")
    return bare == "localhost" or is_loopback(bare)


def remote_reason(
    http_host: str, public_url: str, trusted_proxies: str, proxy_protocol_from: str = ""
) -> str:
    """Return the reason why other machines can reach a listener; empty if they cannot."""
    if not is_local_name(http_host):
        return f"the gateway listens on {http_host} (TOOLBUS_HTTP_HOST, --host)"
    if public_url and not is_local_name(_host_of(public_url)):
        return f"the gateway has a public address (TOOLBUS_PUBLIC_URL={public_url})"
    if trusted_proxies.strip():
        return f"the gateway is behind proxies (TOOLBUS_TRUSTED_PROXIES={trusted_proxies})"
    if proxy_protocol_from.strip():
        setting = f"TOOLBUS_PROXY_PROTOCOL_FROM={proxy_protocol_from}"
        return f"the gateway is behind load balancers ({setting})"
    return ""


def _host_of(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""

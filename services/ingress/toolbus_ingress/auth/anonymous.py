"""Anonymous callers: the decision whether a request without a credential is served."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from toolbus_common.access.anonymous import FORCE, is_local_name, remote_reason
from toolbus_common.access.config_snapshot import ConfigView
from toolbus_common.config import Anonymous
from toolbus_common.errors import UnauthorizedError
from toolbus_common.http_server.proxy_addresses import is_loopback
from toolbus_ingress.http.client_address import client_address
from toolbus_ingress.http.request_guard import Headers
from toolbus_ingress.settings import Settings

# A request with one of these headers has a credential.
_CREDENTIALS = (b"authorization", b"dpop", b"x-api-key")
# A request with one of these headers came through a proxy.
_FORWARDED = (
    b"forwarded", b"via", b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto",
    b"x-real-ip",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class AnonymousAccess:
    """Decides which requests are served without a credential, if the configuration allows any.

    `remote` is the reason why other machines may reach this listener; empty if they cannot. Web
    pages are rejected unless the operator lists their origin in TOOLBUS_BROWSER_ORIGINS: without a
    credential, any page in a browser on this machine could use the tools.
    """

    directory: ConfigView
    origins: frozenset[str]
    remote: str

    @classmethod
    def of(
        cls, directory: ConfigView, settings: Settings, origins: frozenset[str]
    ) -> "AnonymousAccess":
        """Return the anonymous access of a listener with these settings."""
        exposure = (
            settings.http_host,
            settings.public_url,
            settings.trusted_proxies,
            settings.proxy_protocol_from,
        )
        return cls(directory, origins, remote_reason(*exposure))

    @property
    def config(self) -> Anonymous:
        """The current configuration of anonymous access."""
        return self.directory.now.configuration.anonymous

    @property
    def denied_reason(self) -> str:
        """The reason why configured anonymous access is denied to all callers; else empty."""
        config = self.config
        return self.remote if config.on and not config.allow_remote else ""

    @property
    def state(self) -> str:
        """The entry in `toolbus status`; empty if anonymous access is not configured."""
        if not self.config.on:
            return ""
        if self.denied_reason:
            return f"denied: {self.denied_reason}; {FORCE} allows it"
        return "everyone" if self.config.allow_remote else "this machine"

    def applies(self, headers: Headers) -> bool:
        """Return whether a request is anonymous. A request with a credential is not anonymous."""
        return self.config.on and not any(name in headers for name in _CREDENTIALS)

    def check(self, headers: Headers, scope: Mapping[str, Any]) -> None:
        """Raise `UnauthorizedError` for a request that is not served without a credential."""
        reason = self._web_page(headers)
        if not reason and not self.config.allow_remote:
            reason = self.remote or _remote_reason_of(headers, scope)
        if reason:
            raise UnauthorizedError(
                f"Anonymous access is denied: {reason}. Send an API key as "
                "'Authorization: Bearer <key>'."
            )

    def _web_page(self, headers: Headers) -> str:
        origin = headers.get(b"origin")
        if origin is not None and origin.decode("latin-1").lower() in self.origins:
            return ""
        if origin is not None or b"sec-fetch-site" in headers:
            return (
                "the request comes from a web page whose origin is not in TOOLBUS_BROWSER_ORIGINS"
            )
        return ""


def _remote_reason_of(headers: Headers, scope: Mapping[str, Any]) -> str:
    """Return why a request may come from another machine; empty if it cannot."""
    if not is_loopback(client_address(scope)):
        return f"the request comes from another machine ({FORCE} in toolbus.yaml allows it)"
    if not is_local_name(_without_port(headers.get(b"host", b"").decode("latin-1"))):
        return f"the Host header does not name this machine ({FORCE} in toolbus.yaml allows it)"
    if any(name in headers for name in _FORWARDED):
        return f"the request came through a proxy ({FORCE} in toolbus.yaml allows it)"
    return ""


def _without_port(host: str) -> str:
    bare, colon, port = host.rpartition(":")
    return bare if colon and port.isdigit() and not bare.endswith(":") else host

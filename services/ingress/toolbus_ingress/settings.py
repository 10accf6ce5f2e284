"""Settings of the ingress service, from the environment."""

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from toolbus_common.http_server.acceptor import Handshake
from toolbus_common.http_server.proxy_addresses import Proxies
from toolbus_common.http_server.server_certificate import ServerCertificate
from toolbus_common.settings import Settings as CommonSettings
from toolbus_common.tls_files import TlsFileError


class Settings(CommonSettings):
    """The settings of the ingress service, in addition to the shared ones.

    Sizes are in bytes, times in seconds. Lists are comma-separated.

    `allowed_hosts` and `allowed_origins` are accepted in the Host and Origin headers; an entry
    without a port covers every port. Scripts of `browser_origins`, compared exactly, may read
    responses (CORS). `public_url` is the URL at which browsers and agents reach this gateway;
    access tokens are issued for it.

    `call_timeout` limits every call until progress extends it. If it is not set, the limit is the
    server's `timeout` plus 30 s to wait for a concurrency slot or a person. `largest_body` is the
    limit of a request body, and `max_in_flight` is the limit of concurrent requests. A client of
    2025-11-25 that waits longer than `poll_after` for an answer is disconnected and resumes later;
    0 disables this.

    A client may take `head_timeout` to send the head of a request, and `body_timeout` to send its
    body. An idle connection stays open for `idle_timeout`. A response may stay unread for
    `write_timeout`. `max_connections` limits all open connections, `max_per_address` limits the
    connections of one address, and `max_per_loopback` limits the connections of this machine.
    `trusted_proxies` are addresses and networks whose `proxy_header` names the client.
    With `proxy_protocol_from`, every connection must come from one of these addresses and networks,
    and begin with a header of the PROXY protocol (version 1 or 2), which names the client.

    With `tls_cert` and `tls_key`, PEM files, the listener accepts TLS only. Replaced files are used
    without a restart. With `tls_client_ca`, clients must have a certificate of this authority.

    The sizes of lists are published every `context_seconds`. With `dpop_nonce`, DPoP proofs must
    contain a nonce from the server. `client_state_key_file` is the file with the 32-byte key that
    encrypts the state that clients store (sessions, request states, tasks). The default is
    `<state_dir>/client-state.key`. All replicas need the same key.
    """

    http_host: str = "127.0.0.1"
    http_port: int = Field(default=8080, ge=1, le=65535)
    allowed_hosts: str = "localhost,127.0.0.1,[::1]"
    allowed_origins: str = "http://localhost,http://127.0.0.1,http://[::1]"
    browser_origins: str = ""
    largest_body: int = Field(default=4 * 1024 * 1024, le=7 * 1024 * 1024)
    head_timeout: float = Field(default=10.0, gt=0)
    body_timeout: float = Field(default=10.0, gt=0)
    idle_timeout: float = Field(default=15.0, gt=0)
    write_timeout: float = Field(default=30.0, gt=0)
    max_connections: int = Field(default=10_000, ge=1)
    max_per_address: int = Field(default=2_000, ge=1)
    max_per_loopback: int = Field(default=10_000, ge=1)
    trusted_proxies: str = ""
    proxy_protocol_from: str = ""
    tls_cert: str = ""
    tls_key: str = ""
    tls_client_ca: str = ""
    proxy_header: Literal["x-forwarded-for", "forwarded"] = "x-forwarded-for"
    call_timeout: float | None = Field(default=None, gt=0)
    context_seconds: float = Field(default=60.0, gt=0)
    poll_after: float = Field(default=0.0, ge=0)
    client_state_key_file: str = ""
    public_url: str = ""
    dpop_nonce: bool = False
    max_in_flight: int = Field(default=2048, ge=1)

    @field_validator("trusted_proxies", "proxy_protocol_from")
    @classmethod
    def _valid_proxies(cls, text: str) -> str:
        Proxies.of(text)
        return text

    def handshake(self) -> Handshake:
        """Return how each connection begins: with a PROXY header, TLS, both or neither.

        Raises `TlsFileError`.
        """
        balancers = self.proxy_protocol_from.strip()
        return Handshake(self._certificate(), Proxies.of(balancers) if balancers else None)

    def _certificate(self) -> ServerCertificate | None:
        if bool(self.tls_cert) != bool(self.tls_key):
            missing, given = ("KEY", "CERT") if self.tls_cert else ("CERT", "KEY")
            raise TlsFileError(
                f"TOOLBUS_TLS_{missing} is not set; set it too, or remove TOOLBUS_TLS_{given}."
            )
        if self.tls_client_ca and not self.tls_cert:
            raise TlsFileError(
                "TOOLBUS_TLS_CLIENT_CA needs TLS; set TOOLBUS_TLS_CERT and TOOLBUS_TLS_KEY too."
            )
        if not self.tls_cert:
            return None
        return ServerCertificate("TOOLBUS_TLS", self.tls_cert, self.tls_key, self.tls_client_ca)

    @property
    def client_state_key(self) -> Path:
        """The path of the key file."""
        return Path(self.client_state_key_file or self.state_dir / "client-state.key")

"""What ingress is told by its environment."""

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from toolbus_common.http_server.proxy_addresses import Proxies
from toolbus_common.settings import Settings as CommonSettings


class Settings(CommonSettings):
    """The shared settings, and the edge's own.

    `allowed_hosts` and `allowed_origins` are comma-separated; an entry without a port covers
    every port. Scripts of `browser_origins`, exactly so, may read answers (CORS). Sizes are bytes,
    times seconds. `call_timeout` is how long
    any call may take until progress extends it; unset: its server's `timeout`, and 30 s to wait
    for a free place or a person. `head_timeout` and `body_timeout` bound
    how long a client may take to send a request, `idle_timeout` how long its connection is kept
    after an answer, `write_timeout` how long it may leave an answer unread; `most_connections` and
    `most_per_address` bound what is open. `trusted_proxies` are addresses
    and networks whose `proxy_header` names the client. After SIGTERM new connections are accepted
    for `leave_seconds`. With `poll_after` a client of 2025-11-25 whose answer takes longer is sent
    away, to come back for it; 0: it waits.
    What lists cost each key's context is written once in `context_seconds`.
    `public_url` is how browsers and agents reach this gateway: tokens are made for it. With
    `dpop_nonce` proofs of keys must be made with a nonce that was asked for before.
    `seal_key_file` holds the 32 bytes that seal what clients carry (sessions, states, tasks);
    empty: `<state_dir>/seal.key`. Replicas on several machines need the same file.
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
    most_connections: int = Field(default=10_000, ge=1)
    most_per_address: int = Field(default=2_000, ge=1)
    most_per_loopback: int = Field(default=10_000, ge=1)
    trusted_proxies: str = ""
    proxy_header: Literal["x-forwarded-for", "forwarded"] = "x-forwarded-for"
    leave_seconds: float = Field(default=0.5, ge=0)
    call_timeout: float | None = Field(default=None, gt=0)
    context_seconds: float = Field(default=60.0, gt=0)
    poll_after: float = Field(default=0.0, ge=0)
    seal_key_file: str = ""
    public_url: str = ""
    dpop_nonce: bool = False
    most_in_flight: int = Field(default=2048, ge=1)

    @field_validator("trusted_proxies")
    @classmethod
    def _is_listing(cls, text: str) -> str:
        Proxies.of(text)
        return text

    @property
    def seal_key(self) -> Path:
        """Where the key is."""
        return Path(self.seal_key_file or self.state_dir / "seal.key")

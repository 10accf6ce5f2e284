"""Settings of the audit service, in addition to the common settings."""

from pathlib import Path

from pydantic import Field, SecretStr

from toolbus_common.settings import Settings as CommonSettings


class Settings(CommonSettings):
    """Environment variables of the audit service, with the prefix `TOOLBUS_`.

    `clickhouse_url` may contain a password; if it is empty, ClickHouse runs inside this process.
    With `events_file`, events are stored in this SQLite file instead (the lite form).
    `clickhouse_cluster` is the cluster of that server; tables are created on all its servers.
    `evidence_origin` is the origin of this installation's logs if `evidence.origin` is not
    configured when audit starts for the first time. `evidence_key_file` is the Ed25519 signing key
    in PEM; by default it is created as `<state_dir>/evidence/key.pem`. A growing log receives a
    checkpoint every `checkpoint_seconds`. A query may take `audit_query_seconds`. BI tools connect
    to `audit_http_port` (0 disables it), which needs the embedded engine. Another replica takes
    over exports and sinks `lease_seconds` after the last renewal by the replica that ran them.
    """

    clickhouse_url: SecretStr = SecretStr("")
    events_file: Path | None = None
    clickhouse_database: str = "toolbus"
    clickhouse_cluster: str = Field(default="", pattern=r"^[\w-]*$")
    audit_query_seconds: float = 10.0
    audit_http_host: str = "127.0.0.1"
    audit_http_port: int = Field(default=0, ge=0, le=65535)
    evidence_origin: str = Field(default="", pattern=r"^(?:[a-z0-9][a-z0-9._/-]{0,127})?$")
    evidence_key_file: Path | None = None
    checkpoint_seconds: float = 10.0
    lease_seconds: float = 20.0

    @property
    def signing_key(self) -> Path:
        """Path of the signing key."""
        return self.evidence_key_file or self.state_dir / "evidence" / "key.pem"

    @property
    def clickhouse_directory(self) -> Path:
        """Data directory of the embedded engine."""
        return self.state_dir / "clickhouse"

"""What audit is told by its environment, beyond what every service is told."""

from pathlib import Path

from pydantic import AliasChoices, Field, SecretStr

from toolbus_common.settings import Settings as CommonSettings


class Settings(CommonSettings):
    """`clickhouse_url` may hold a password; empty means ClickHouse's engine inside this process.

    `clickhouse_cluster` names the cluster that server is of, for tables on all its servers.
    `seal_name` names this installation in all it signs, at audit's first start, where the declared
    `evidence.origin` is not there by then. `evidence_key_file` has the Ed25519 key in PEM that
    signs, made where there is none: `<state_dir>/seal/key.pem`. Between two
    checkpoints of a log that grows lie `seal_seconds`. At `audit_http_port` readers are answered in
    ClickHouse's way, from the embedded engine (0: nowhere).

    What an audit that was killed was exporting or telling, another takes over when it has been
    silent for `lease_seconds`.
    """

    clickhouse_url: SecretStr = SecretStr("")
    clickhouse_database: str = "toolbus"
    clickhouse_cluster: str = Field(default="", pattern=r"^[\w-]*$")
    audit_query_seconds: float = 10.0
    audit_http_host: str = "127.0.0.1"
    audit_http_port: int = Field(default=0, ge=0, le=65535)
    seal_name: str = Field(default="", pattern=r"^(?:[a-z0-9][a-z0-9._/-]{0,127})?$")
    evidence_key_file: Path | None = Field(  # under the name it had before too, for one release
        default=None,
        validation_alias=AliasChoices("TOOLBUS_EVIDENCE_KEY_FILE", "TOOLBUS_SEAL_KEY"),
    )
    seal_seconds: float = 10.0
    lease_seconds: float = 20.0

    @property
    def sealing_key(self) -> Path:
        """Where the sealing key is."""
        return self.evidence_key_file or self.state_dir / "seal" / "key.pem"

    @property
    def clickhouse_directory(self) -> Path:
        """Where the embedded engine keeps its data."""
        return self.state_dir / "clickhouse"

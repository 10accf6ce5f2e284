"""What audit is told by its environment, beyond what every room is told."""

from pathlib import Path

from pydantic import SecretStr

from toolbus_common.settings import Settings as CommonSettings


class Settings(CommonSettings):
    """`clickhouse_url` may hold a password; empty means ClickHouse's engine inside this process.

    `seal_name` is whose logs these are, as auditors know it; `seal_key` the file with the Ed25519
    key in PEM that signs them, made where there is none: `<state_dir>/seal/key.pem`. Between two
    checkpoints of a log that grows lie `seal_seconds`.
    """

    clickhouse_url: SecretStr = SecretStr("")
    clickhouse_database: str = "toolbus"
    audit_query_seconds: float = 10.0
    seal_name: str = "toolbus"
    seal_key: Path | None = None
    seal_seconds: float = 10.0

    @property
    def sealing_key(self) -> Path:
        """Where the sealing key is."""
        return self.seal_key or self.state_dir / "seal" / "key.pem"

    @property
    def clickhouse_directory(self) -> Path:
        """Where the embedded engine keeps its data."""
        return self.state_dir / "clickhouse"

"""What audit is told by its environment, beyond what every room is told."""

from pathlib import Path

from pydantic import SecretStr

from toolbus_common.settings import Settings as CommonSettings


class Settings(CommonSettings):
    """`clickhouse_url` may hold a password; empty means ClickHouse's engine inside this process."""

    clickhouse_url: SecretStr = SecretStr("")
    clickhouse_database: str = "toolbus"
    audit_query_seconds: float = 10.0

    @property
    def clickhouse_directory(self) -> Path:
        """Where the embedded engine keeps its data."""
        return self.state_dir / "clickhouse"

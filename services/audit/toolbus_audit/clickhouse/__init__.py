"""Store events in ClickHouse: client, migrations, guarded queries."""

"""Events in a SQLite file instead of ClickHouse: the store of the lite form."""

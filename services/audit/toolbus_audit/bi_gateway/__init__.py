"""ClickHouse's HTTP interface to the embedded engine, for readers who see their customers alone."""

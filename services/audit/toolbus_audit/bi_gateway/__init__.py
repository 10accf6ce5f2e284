"""ClickHouse-compatible HTTP interface for BI tools, limited to a reader's customers."""

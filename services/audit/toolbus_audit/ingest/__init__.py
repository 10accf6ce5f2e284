"""Event ingestion: rows, roll-ups, backfill."""

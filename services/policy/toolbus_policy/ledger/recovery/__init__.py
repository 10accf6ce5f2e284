"""Restore the ledger from the event stream, and charge calls whose outcome is missing."""

"""Restoration of the ledger from events, and charges of calls whose outcome is missing."""

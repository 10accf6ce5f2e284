"""Commands for queries, reports, evidence and privacy."""

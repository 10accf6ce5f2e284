"""The administration API: HTTP requests become queries to policy, described by one table."""

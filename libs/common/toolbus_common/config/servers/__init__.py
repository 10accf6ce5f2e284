"""Configuration models of servers."""

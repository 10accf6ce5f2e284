"""Store and renew the tokens of connected accounts."""

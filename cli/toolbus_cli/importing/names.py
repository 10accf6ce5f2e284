"""Names of servers made from names that clients and registries use."""

import re

LONGEST_NAME = 32


def server_name(name: str) -> str:
    """Return a similar valid name: no consecutive underscores, at most 32 characters."""
    plain = re.sub(r"_{2,}", "_", re.sub(r"[^A-Za-z0-9_-]+", "-", name))
    return plain.strip("-_")[:LONGEST_NAME].strip("-_") or "server"

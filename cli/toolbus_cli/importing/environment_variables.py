"""Names of environment variables made from the names of servers, headers and credentials."""

import re


def environment_variable(*words: str) -> str:
    """Join words to a valid variable name: `127.0.0.1` and `key` become `_127_0_0_1_KEY`."""
    name = re.sub(r"[^A-Za-z0-9]+", "_", "_".join(words)).strip("_").upper() or "VALUE"
    return f"_{name}" if name[0].isdigit() else name

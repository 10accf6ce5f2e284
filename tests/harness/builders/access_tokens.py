"""Access tokens, in the form in which oauth describes them."""

from time import time
from typing import Any

from toolbus_common.contracts import Bearer

BASE = "https://gateway.test"


def bearer(**changes: Any) -> Bearer:
    """Return a token of ann under the rule `staff`, valid for ten minutes."""
    fields = {"access": "staff", "user": "ann", "client": "c", "resource": f"{BASE}/mcp"}
    return Bearer(**{**fields, "ends": time() + 600, **changes})

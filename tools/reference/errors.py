"""Every error code, from the tree of errors and ingress's table of error codes."""

import json
from collections.abc import Iterator

from reference.markdown import code, table
from reference.texts import texts
from toolbus_common.errors import ToolbusError
from toolbus_ingress.http.jsonrpc import failure

INTERNAL = {"internal", "refused", "unavailable", "upstream_failed"}  # roots of the tree


def classes(root: type[ToolbusError] = ToolbusError) -> Iterator[type[ToolbusError]]:
    """Yield a class and its subclasses, except classes that a single service defines."""
    if root.__module__ == ToolbusError.__module__:
        yield root
        for child in root.__subclasses__():
            yield from classes(child)


def documented() -> list[type[ToolbusError]]:
    """Return the errors that a caller can receive."""
    return [each for each in classes() if each.code not in INTERNAL]


def generated() -> str:
    """Return one row for each error."""
    result = texts("errors")
    rows = []
    for each in documented():
        answer = failure(each("An example."))
        rpc = json.loads(answer.body)["error"]["code"]
        meaning, _, action = result[each.code].partition("\nDo: ")
        retry = "yes" if each.retryable else "no"
        rows.append((code(each.code), str(rpc), str(answer.status), retry, meaning, action))
    return table(("code", "JSON-RPC", "HTTP", "retryable", "meaning", "what to do"), rows)

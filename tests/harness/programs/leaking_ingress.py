"""Ingress that leaks arguments into its log, spans and metrics.

Usage: `python leaking_ingress.py ingress`.
"""

import logging
import sys
from typing import Any

from toolbus_common.observability.metrics import CALLS
from toolbus_common.service.process import run
from toolbus_ingress.mcp import tracing as trail

_whole = trail._describe


def _leaking(span: Any, visit: Any, request: Any) -> None:
    _whole(span, visit, request)
    result = str(request.params.get("arguments"))
    logging.getLogger(__name__).warning("leak", extra={"leaked": result})
    span.note("leaked", result)
    CALLS.labels(result).inc()


if __name__ == "__main__":
    setattr(trail, "_describe", _leaking)  # noqa: B010 - mypy knows no other way
    sys.exit(run(sys.argv[1:]))

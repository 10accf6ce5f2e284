"""Try the targets of a model request, one after another."""

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from toolbus_common.config import ModelTarget
from toolbus_common.errors import ToolbusError
from toolbus_common.model_api.routing import falls_back
from toolbus_common.observability.metrics import MODEL_FALLBACKS

R = TypeVar("R")


async def first_answer(
    targets: Sequence[ModelTarget],
    send: Callable[[ModelTarget, int], Awaitable[R]],
    is_final: Callable[[], bool],
) -> R:
    """Return the answer of the first target that answers; there is at least one target.

    `send` receives a target and the number of targets before it. After a failure, `is_final`
    returns whether no other target may be tried, because the caller has received a part of the
    answer or has left.

    Raises:
        ToolbusError: no target answered; this is the error of the last one.

    """
    *fallible, last = enumerate(targets)
    for number, target in fallible:
        try:
            return await send(target, number)
        except ToolbusError as error:
            if is_final() or not falls_back(error):
                raise
            MODEL_FALLBACKS.labels(error.code).inc()
    return await send(last[1], last[0])

"""Price of a call: the reserved amount before the call, and the charge after its result."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil

from toolbus_common.access.tool_patterns import granted
from toolbus_common.config import MICRO, Price

KILOBYTE = 1000
BYTES_PER_TOKEN = 4  # an estimate for English prose: no tokenizer runs on the call path


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost of a call in micro-dollars.

    `reserved` is the amount reserved before the call, and the maximum charge. `parts` contains the
    prices per call, per kilobyte and per token. It is empty if the charge does not depend on the
    result.
    """

    reserved: int
    parts: tuple[float, ...] = ()


FREE = Cost(0)


def cost_of(name: str, prices: Mapping[str, float | Price]) -> Cost:
    """Return the cost of a tool.

    The tool's own entry in `prices` applies, otherwise the longest matching pattern. If no entry
    matches, the cost is zero.
    """
    found = prices.get(name)
    if found is None:
        matching = [pattern for pattern in prices if granted((pattern,), name)]
        found = prices[max(matching, key=len)] if matching else 0.0
    if not isinstance(found, Price):
        return Cost(round(found * MICRO))
    reserved = round((found.call if found.maximum is None else found.maximum) * MICRO)
    if not (found.kilobyte or found.token) and found.maximum in (None, found.call):
        return Cost(reserved)
    return Cost(reserved, (found.call * MICRO, found.kilobyte * MICRO, found.token * MICRO))


def charged(reserved: int, parts: tuple[float, ...], result_bytes: int) -> int:
    """Return the charge in micro-dollars for a result of `result_bytes`, rounded up."""
    if not parts:
        return reserved
    call, kilobyte, token = parts
    tokens = ceil(result_bytes / BYTES_PER_TOKEN)
    exact = call + kilobyte * result_bytes / KILOBYTE + token * tokens
    return min(reserved, ceil(round(exact, 6)))

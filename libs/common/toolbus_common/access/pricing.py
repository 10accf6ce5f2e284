"""What a call costs: what is held before it, and what it is charged once its result is there."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil

from toolbus_common.access.tool_patterns import granted
from toolbus_common.config import MICRO, Price

KILOBYTE = 1000
BYTES_PER_TOKEN = 4  # an estimate, good for English prose: no tokeniser runs on the call path


@dataclass(frozen=True, slots=True)
class Cost:
    """Micro-dollars: `held` before a call; `parts` when the charge depends on its result.

    The parts are the price of the call itself, of a kilobyte and of a token. `held` is the most
    that is ever charged.
    """

    held: int
    parts: tuple[float, ...] = ()


FREE = Cost(0)


def cost_of(name: str, prices: Mapping[str, float | Price]) -> Cost:
    """A tool's cost: by its own entry, else by the longest pattern that covers it, else none."""
    found = prices.get(name)
    if found is None:
        covering = [pattern for pattern in prices if granted((pattern,), name)]
        found = prices[max(covering, key=len)] if covering else 0.0
    if not isinstance(found, Price):
        return Cost(round(found * MICRO))
    held = round((found.call if found.most is None else found.most) * MICRO)
    if not (found.kilobyte or found.token) and found.most in (None, found.call):
        return Cost(held)
    return Cost(held, (found.call * MICRO, found.kilobyte * MICRO, found.token * MICRO))


def charged(held: int, parts: tuple[float, ...], result_bytes: int) -> int:
    """What a call with a result of this size costs; fractions of a micro-dollar count as one."""
    if not parts:
        return held
    call, kilobyte, token = parts
    tokens = ceil(result_bytes / BYTES_PER_TOKEN)
    exact = call + kilobyte * result_bytes / KILOBYTE + token * tokens
    return min(held, ceil(round(exact, 6)))

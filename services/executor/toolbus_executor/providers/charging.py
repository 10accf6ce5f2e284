"""Charge of a model request, from its usage and the price of the model (no I/O)."""

from math import ceil

from toolbus_common.contracts.model_calls import Usage


def savings_of_cache(usage: Usage, price: tuple[float, ...]) -> int:
    """Return how much less the cached input cost than other input, in micro-dollars."""
    if not price:
        return 0
    plain, cached, *_ = price
    return max(0, int(round((plain - cached) * usage.cached, 6)))


def charge_of_usage(usage: Usage, price: tuple[float, ...]) -> int:
    """Return the charge in micro-dollars, rounded up once. It can exceed the reserved amount.

    `price` is `CallAdmitted.price` of a model request: micro-dollars per token of input, cached
    input, cache writes, output and reasoning, then per request. An optional last value is the price
    per token that is cached for an hour; without it, the price of cache writes applies. `price` is
    empty for a free model.
    """
    if not price:
        return 0
    plain, cached, cache_write, output, reasoning, request, *hour = price
    for_hour = hour[0] if hour else cache_write
    exact = (
        request
        + plain * (usage.input - usage.cached - usage.cache_write)
        + cached * usage.cached
        + cache_write * (usage.cache_write - usage.cache_write_1h)
        + for_hour * usage.cache_write_1h
        + output * (usage.output - usage.reasoning)
        + reasoning * usage.reasoning
    )
    return max(0, ceil(round(exact, 6)))

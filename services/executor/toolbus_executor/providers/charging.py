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
    input, cache writes, output and reasoning, then per request. The price per token that is cached
    for an hour may follow, and after it those of audio input, image input and audio output; without
    them, the prices of cache writes, input and output apply. `price` is empty for a free model.
    """
    if not price:
        return 0
    plain, cached, cache_write, output, reasoning, request, *more = price
    for_hour = more[0] if more else cache_write
    audio_in, image_in, audio_out = more[1:] if len(more) > 1 else (plain, plain, output)
    exact = (
        request
        + plain * (usage.input - usage.cached - usage.cache_write)
        + (audio_in - plain) * usage.audio_input
        + (image_in - plain) * usage.image_input
        + (audio_out - output) * usage.audio_output
        + cached * usage.cached
        + cache_write * (usage.cache_write - usage.cache_write_1h)
        + for_hour * usage.cache_write_1h
        + output * (usage.output - usage.reasoning)
        + reasoning * usage.reasoning
    )
    return max(0, ceil(round(exact, 6)))


def token_fields(usage: Usage) -> dict[str, int | bool]:
    """Return the fields of `ModelUsed` that contain the usage."""
    return {
        "input_tokens": usage.input,
        "cached_tokens": usage.cached,
        "cache_write_tokens": usage.cache_write,
        "cache_write_1h_tokens": usage.cache_write_1h,
        "audio_input_tokens": usage.audio_input,
        "image_input_tokens": usage.image_input,
        "output_tokens": usage.output,
        "reasoning_tokens": usage.reasoning,
        "audio_output_tokens": usage.audio_output,
        "estimated": usage.estimated,
    }

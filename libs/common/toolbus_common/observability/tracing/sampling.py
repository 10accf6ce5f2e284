"""Which traces are recorded, by the names OpenTelemetry gives its samplers."""

from toolbus_common.observability.trace_context import Sampler

PARENT_BASED = "parentbased_"
USUAL = "parentbased_always_on"
RANGE = 1 << 64


class SamplerError(ValueError):
    """There is no such sampler; the sentence says what there is."""


def sampler_of(name: str, argument: str) -> Sampler:
    """The sampler of that name. Raises `SamplerError`."""
    alone = _alone(name.removeprefix(PARENT_BASED), argument)
    return _by_parent(alone) if name.startswith(PARENT_BASED) else alone


def _alone(name: str, argument: str) -> Sampler:
    if name == "always_on":
        return lambda _trace, _asked: True
    if name == "always_off":
        return lambda _trace, _asked: False
    if name != "traceidratio":
        raise SamplerError(
            f"OTEL_TRACES_SAMPLER is {name!r}; it must be always_on, always_off or traceidratio, "
            f"or one of them after {PARENT_BASED}."
        )
    return _by_ratio(_ratio(argument))


def _ratio(argument: str) -> float:
    try:
        ratio = float(argument or 1)
    except ValueError:
        ratio = -1
    if not 0 <= ratio <= 1:
        raise SamplerError(f"OTEL_TRACES_SAMPLER_ARG is {argument!r}; it must be from 0 to 1.")
    return ratio


def _by_ratio(ratio: float) -> Sampler:
    """So that everybody who is told the same ratio records the same traces."""
    bound = round(ratio * RANGE)
    return lambda trace, _asked: int(trace[16:], 16) < bound


def _by_parent(root: Sampler) -> Sampler:
    return lambda trace, asked: root(trace, None) if asked is None else asked

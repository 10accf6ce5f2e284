"""Samplers: which traces are recorded, by OpenTelemetry's names."""

from toolbus_common.observability.trace_context import Sampler

PARENT_BASED = "parentbased_"
DEFAULT = "parentbased_always_on"
RANGE = 1 << 64


class SamplerError(ValueError):
    """There is no such sampler; the message lists the valid ones."""


def sampler_of(name: str, argument: str) -> Sampler:
    """Return the sampler of that name. Raises `SamplerError`."""
    root = _root_sampler(name.removeprefix(PARENT_BASED), argument)
    return _by_parent(root) if name.startswith(PARENT_BASED) else root


def _root_sampler(name: str, argument: str) -> Sampler:
    if name == "always_on":
        return lambda _trace, _parent_sampled: True
    if name == "always_off":
        return lambda _trace, _parent_sampled: False
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
    """Sample by trace id, so that every process with the same ratio records the same traces."""
    bound = round(ratio * RANGE)
    return lambda trace, _parent_sampled: int(trace[16:], 16) < bound


def _by_parent(root: Sampler) -> Sampler:
    return lambda trace, parent_sampled: (
        root(trace, None) if parent_sampled is None else parent_sampled
    )

"""Routing of a model request: the targets to try, in order (no I/O)."""

from collections.abc import Mapping, Sequence
from hashlib import sha256
from random import random

from toolbus_common.access.model_grants import is_served, may_use_model, may_use_provider
from toolbus_common.access.principal import Principal
from toolbus_common.access.tool_patterns import granted
from toolbus_common.config import Configuration, ModelTarget, Patterns
from toolbus_common.contracts.model_calls import SEPARATOR, model_name
from toolbus_common.errors import (
    BreakerOpenError,
    ExecutorDownError,
    ModelRefusedError,
    OverloadedError,
    ServerDrainedError,
    ToolbusError,
    UnknownModelError,
    UpstreamDeadError,
    UpstreamInvalidError,
    UpstreamTimeoutError,
)

_SHOWN = 128  # characters of an unknown name in the error
_LONGEST_MODEL = 256
_RETRIED_STATUSES = frozenset({408, 409, 425, 429})
_SERVER_ERROR = 500
_FALLBACK_ERRORS = (
    UpstreamTimeoutError,
    UpstreamDeadError,
    UpstreamInvalidError,
    BreakerOpenError,
    OverloadedError,
    ExecutorDownError,
    ServerDrainedError,
)


def unknown_model(name: str) -> UnknownModelError:
    """Return the error for a name that does not exist or is hidden: the same for both."""
    return UnknownModelError(f"Unknown model: '{name[:_SHOWN]}'. GET /v1/models lists the models.")


def targets_of(
    name: str,
    principal: Principal,
    configuration: Configuration,
    restrictions: Sequence[Patterns],
    sticky: bytes,
) -> list[ModelTarget]:
    """Return the targets of a request in the order in which they are tried; at least one.

    Requests with the same `sticky` key start at the same target; without a key, the start is
    random. `restrictions` are patterns in the request: the name must match each of them.

    Raises:
        UnknownModelError: no such alias, provider or model exists for this principal.

    """
    if _visible(name, principal, restrictions):
        alias = configuration.models.get(name)
        targets = _direct(name) if alias is None else alias
        usable = [each for each in targets if _usable(each, principal, configuration)]
        if usable:
            return ordered(usable, position_of(sticky))
    raise unknown_model(name)


def ordered(targets: Sequence[ModelTarget], position: float) -> list[ModelTarget]:
    """Return the targets in the order in which they are tried.

    The first one is the weighted target at `position` (0 ≤ position < 1) of the sum of all weights.
    The other weighted targets follow, the heaviest first, and then the targets without a weight.
    """
    if len(targets) == 1:
        return list(targets)
    weighted = sorted((each for each in targets if each.weight), key=_weight, reverse=True)
    fallbacks = [each for each in targets if not each.weight]
    point = position * sum(map(_weight, weighted))
    for index, target in enumerate(weighted):
        point -= _weight(target)
        if point < 0:
            weighted.insert(0, weighted.pop(index))
            break
    return weighted + fallbacks


def position_of(sticky: bytes) -> float:
    """Return the position of a key between 0 and 1; a random position for an empty key."""
    if not sticky:
        return random()  # noqa: S311 - shares load, protects nothing
    # 53 bits, which a float represents exactly, so the result is below 1.
    return (int.from_bytes(sha256(sticky).digest()[:8]) >> 11) / (1 << 53)


def falls_back(error: ToolbusError) -> bool:
    """Return whether the next target may be tried after this error.

    Decisions of policy are final: a budget, a rate, a rule or an approval holds for every target.
    """
    if isinstance(error, ModelRefusedError):
        status = error.data.get("status")
        return isinstance(status, int) and (status in _RETRIED_STATUSES or status >= _SERVER_ERROR)
    return isinstance(error, _FALLBACK_ERRORS)


def model_names(
    principal: Principal,
    configuration: Configuration,
    restrictions: Sequence[Patterns],
    listed: Mapping[str, Sequence[str]],
) -> list[tuple[str, str]]:
    """Return the names that a principal may use, with their owners; aliases come first.

    The owner of an alias is `toolbus`, and the owner of any other model is its provider. `listed`
    are the models that providers list themselves; they are used without configured `models`.
    """
    providers = configuration.providers
    names = [
        (alias, "toolbus")
        for alias, targets in sorted(configuration.models.items())
        if any(_usable(each, principal, configuration) for each in targets)
    ]
    names += [
        (model_name(provider, model), provider)
        for provider in sorted(providers)
        if may_use_provider(principal, providers[provider])
        for model in providers[provider].models or listed.get(provider, ())
    ]
    return [each for each in names if _visible(each[0], principal, restrictions)]


def _visible(name: str, principal: Principal, restrictions: Sequence[Patterns]) -> bool:
    """Return whether a principal sees a name.

    A principal also sees what it may use with another access token: policy denies such a request
    with the scope that the token needs.
    """
    return may_use_model(principal.whole or principal, name) and (
        not restrictions or all(granted(patterns, name) for patterns in restrictions)
    )


def _usable(target: ModelTarget, principal: Principal, configuration: Configuration) -> bool:
    """Return whether a target is served, by a provider that every level permits."""
    return is_served(configuration, target) and may_use_provider(
        principal, configuration.providers[target.provider]
    )


def _direct(name: str) -> tuple[ModelTarget, ...]:
    """Return the target of a name `provider/model`; empty if the name has another form."""
    provider, _, model = name.partition(SEPARATOR)
    valid = model.isascii() and model.isprintable() and " " not in model
    if not provider or not model or not valid or len(model) > _LONGEST_MODEL:
        return ()
    return (ModelTarget.model_construct(provider=provider, model=model),)


def _weight(target: ModelTarget) -> int:
    return target.weight or 0

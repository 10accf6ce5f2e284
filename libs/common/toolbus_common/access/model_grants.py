"""Models that a key may use, by alias or by `provider/model` (no I/O)."""

from collections.abc import Iterator

from toolbus_common.access.principal import Principal
from toolbus_common.access.tool_patterns import granted
from toolbus_common.config import Configuration, ModelTarget, Provider
from toolbus_common.contracts.model_calls import model_name


def may_use_model(principal: Principal, name: str) -> bool:
    """Return whether a principal may use a model by this name: an alias, or `provider/model`.

    The name must match the patterns of every level that sets `models`, itself or in its groups. A
    key without `models`, and an access token whose scope is limited to groups without `models`,
    may use no model.
    """
    return all(granted(patterns, name) for patterns in principal.models)


def may_use_provider(principal: Principal, provider: Provider) -> bool:
    """Return whether every level permits the region and the labels of a provider.

    A provider that states no region is permitted only if no level requires a region.
    """
    return all(
        (level.model_regions is None or provider.region in level.model_regions)
        and (not level.model_labels or set(level.model_labels) <= set(provider.labels))
        for _, level in principal.levels
    )


def is_served(configuration: Configuration, target: ModelTarget) -> bool:
    """Return whether the provider of a target exists, with the required region and labels."""
    provider = configuration.providers.get(target.provider)
    return provider is not None and target.admits(provider)


def names_of(configuration: Configuration, provider: str, model: str) -> Iterator[str]:
    """Yield every name of a model: `provider/model`, and the aliases that contain it.

    A target whose provider does not have the required region and labels does not count.
    """
    yield model_name(provider, model)
    for alias, targets in configuration.models.items():
        if any(
            each.provider == provider and each.model == model and is_served(configuration, each)
            for each in targets
        ):
            yield alias

"""Models that a key may use, by alias or by `provider/model` (no I/O)."""

from collections.abc import Iterator

from toolbus_common.access.principal import Principal
from toolbus_common.access.tool_patterns import granted
from toolbus_common.config import Configuration
from toolbus_common.contracts.model_calls import model_name


def may_use_model(principal: Principal, name: str) -> bool:
    """Return whether a principal may use a model by this name: an alias, or `provider/model`.

    The name must match the patterns of every level that sets `models`, itself or in its groups. A
    key without `models`, and an access token whose scope is limited to groups without `models`,
    may use no model.
    """
    return all(granted(patterns, name) for patterns in principal.models)


def names_of(configuration: Configuration, provider: str, model: str) -> Iterator[str]:
    """Yield every name of a model: `provider/model`, and the aliases that contain it."""
    yield model_name(provider, model)
    for alias, targets in configuration.models.items():
        if any(each.provider == provider and each.model == model for each in targets):
            yield alias

"""The models that providers list, from the catalogue."""

from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from toolbus_common.nats.kv_bucket import Change


class _Entry(msgspec.Struct):
    models: tuple[str, ...] | None = None


_decode = msgspec.json.Decoder(_Entry).decode


@dataclass(slots=True)
class ModelLists:
    """The names of models by provider. `on_server` receives the changes of other entries."""

    on_server: Callable[[Change | None], None]
    names: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def apply(self, change: Change | None) -> None:
        """Apply one change of the catalogue bucket."""
        models = None
        if change is not None:
            self.names.pop(change.key, None)
            models = _decode(change.value).models if change.value is not None else None
            if models is not None:
                self.names[change.key] = models
        if models is None:
            self.on_server(change)

"""Limits of one program: the lowest limits of its key and of every level above the key."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from toolbus_common.config import Level
from toolbus_common.config.access.code_mode import Programs
from toolbus_common.mcp.code_mode_options import CodeModeOptions

REQUEST = "the request"


@dataclass(frozen=True, slots=True)
class Cap:
    """Limit, and the level that sets it, such as `key:bot`."""

    maximum: float
    by: str


@dataclass(frozen=True, slots=True)
class Caps:
    """Limits of one program: cost of its calls in dollars, number of calls, seconds."""

    usd: Cap | None = None
    calls: Cap | None = None
    seconds: Cap | None = None

    def within(self, by: str, other: "Programs | CodeModeOptions") -> "Caps":
        """Return the limits, lowered where the level `by` sets a lower limit."""
        return replace(
            self,
            usd=_lower(self.usd, other.usd, by),
            calls=_lower(self.calls, other.calls, by),
            seconds=_lower(self.seconds, other.seconds, by),
        )


NO_CAPS = Caps()


def caps_of(levels: Iterable[tuple[str, Level]], usual: Caps = NO_CAPS) -> Caps:
    """Return the lowest limits of all levels and `usual`."""
    caps = usual
    for name, level in levels:
        if isinstance(level.code_mode, Programs):
            caps = caps.within(name, level.code_mode)
    return caps


def _lower(cap: Cap | None, maximum: float | None, by: str) -> Cap | None:
    if maximum is None or (cap is not None and cap.maximum <= maximum):
        return cap
    return Cap(maximum, by)

"""What one program may use: the smallest cap of its key and of every level above it. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from toolbus_common.config import Level
from toolbus_common.config.access.code_mode import Programs

REQUEST = "the request"


@dataclass(frozen=True, slots=True)
class Cap:
    """A bound and who set it, as users see it (`key:bot`)."""

    most: float
    by: str


@dataclass(frozen=True, slots=True)
class Caps:
    """The bounds of one program: dollars that its calls may cost, their number, seconds."""

    usd: Cap | None = None
    calls: Cap | None = None
    seconds: Cap | None = None

    def within(self, by: str, told: "Programs | CodeModeOptions") -> "Caps":
        """The same, where `by` wants less."""
        return replace(
            self,
            usd=_lower(self.usd, told.usd, by),
            calls=_lower(self.calls, told.calls, by),
            seconds=_lower(self.seconds, told.seconds, by),
        )


NO_CAPS = Caps()


def caps_of(levels: Iterable[tuple[str, Level]], usual: Caps = NO_CAPS) -> Caps:
    """What every level with its name says together, within what is usual."""
    caps = usual
    for name, level in levels:
        if isinstance(level.code_mode, Programs):
            caps = caps.within(name, level.code_mode)
    return caps


def _lower(cap: Cap | None, most: float | None, by: str) -> Cap | None:
    if most is None or (cap is not None and cap.most <= most):
        return cap
    return Cap(most, by)

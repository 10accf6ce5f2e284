"""The detectors of built-in guards. Equal rules share one compiled detector."""

from collections.abc import Callable
from typing import Any, NamedTuple

from toolbus_common.config.guards.guard import Guard, Kind
from toolbus_common.guards import limits
from toolbus_common.guards.texts.findings import Detector

SEARCHING: frozenset[Kind] = frozenset({"secrets", "pii", "injection"})
MOST_KNOWN = 256
_known: dict[tuple[Kind, tuple[str, ...] | None, tuple[str, ...]], Detector] = {}


class _Kind(NamedTuple):
    """What a module of detectors offers: its detector, and the names of its rules."""

    detector: Callable[[tuple[str, ...] | None, tuple[str, ...]], Detector]
    known_rules: Callable[[], frozenset[str]]


def detector_of(guard: Guard) -> Detector:
    """Return the detector of a guard that searches texts: all built-in kinds except `limits`."""
    key = _key(guard)
    found = _known.get(key)
    if found is None:
        while len(_known) >= MOST_KNOWN:
            _known.pop(next(iter(_known)))
        found = _known[key] = _compiled(*key)
    return found


def is_compiled(guard: Guard) -> bool:
    """Return whether the detector of a guard exists already, or the guard needs none."""
    return guard.kind not in SEARCHING or _key(guard) in _known


def _key(guard: Guard) -> tuple[Kind, tuple[str, ...] | None, tuple[str, ...]]:
    return guard.kind, guard.rules, guard.except_rules


def _compiled(kind: Kind, rules: tuple[str, ...] | None, except_rules: tuple[str, ...]) -> Detector:
    return _module_of(kind).detector(rules, except_rules)


def _module_of(kind: str) -> _Kind:
    """Return a kind's module. It is imported here, because compiled rules need memory."""
    if kind == "secrets":
        from toolbus_common.guards.secrets import detector as secrets  # noqa: PLC0415

        return _Kind(secrets.SecretsDetector, secrets.known_rules)
    if kind == "pii":
        from toolbus_common.guards.personal_data import detector as personal  # noqa: PLC0415

        return _Kind(personal.PersonalDataDetector, personal.known_rules)
    from toolbus_common.guards.injection import detector as injection  # noqa: PLC0415

    return _Kind(injection.InjectionDetector, injection.known_rules)


def exceeded_limits(options: dict[str, Any], body: bytes, output_schema: Any) -> tuple[str, ...]:
    """Return the names of the limits of a guard of kind `limits` that a document exceeds."""
    return limits.exceeded(options, body, output_schema)


def limits_problems(options: dict[str, Any]) -> tuple[str, ...]:
    """Return what is wrong with the options of a guard of kind `limits`."""
    return tuple(limits.option_problems(options))


def known_rules_of(kind: str) -> frozenset[str] | None:
    """Return the names of all rules of a kind; None if the kind has no rules of its own."""
    return _module_of(kind).known_rules() if kind in SEARCHING else None

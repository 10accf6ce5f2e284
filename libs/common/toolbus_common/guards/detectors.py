"""The detectors of built-in guards. Equal rules share one compiled detector."""

from importlib import import_module
from typing import Any, cast

from toolbus_common.config.guards.guard import Guard, Kind
from toolbus_common.guards.findings import Detector

# Module and class of each kind. A module is imported with the first guard of its kind, because the
# compiled rules need memory.
_DETECTORS: dict[Kind, tuple[str, str]] = {
    "secrets": ("secrets.detector", "SecretsDetector"),
    "pii": ("personal_data.detector", "PersonalDataDetector"),
    "injection": ("injection.detector", "InjectionDetector"),
}

MOST_KNOWN = 256
_known: dict[tuple[Kind, tuple[str, ...] | None, tuple[str, ...]], Detector] = {}


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
    return guard.kind not in _DETECTORS or _key(guard) in _known


def _key(guard: Guard) -> tuple[Kind, tuple[str, ...] | None, tuple[str, ...]]:
    return guard.kind, guard.rules, guard.except_rules


def _compiled(kind: Kind, rules: tuple[str, ...] | None, except_rules: tuple[str, ...]) -> Detector:
    module, name = _DETECTORS[kind]
    found = import_module(f"toolbus_common.guards.{module}")
    return cast("Detector", getattr(found, name)(rules, except_rules))


def exceeded_limits(options: dict[str, Any], body: bytes, output_schema: Any) -> tuple[str, ...]:
    """Return the names of the limits of a guard of kind `limits` that a document exceeds."""
    limits = import_module("toolbus_common.guards.limits")
    return cast("tuple[str, ...]", limits.exceeded(options, body, output_schema))


def limits_problems(options: dict[str, Any]) -> tuple[str, ...]:
    """Return what is wrong with the options of a guard of kind `limits`."""
    limits = import_module("toolbus_common.guards.limits")
    return tuple(limits.option_problems(options))


def known_rules_of(kind: str) -> frozenset[str] | None:
    """Return the names of all rules of a kind; None if the kind has no rules of its own."""
    found = _DETECTORS.get(cast("Kind", kind))
    if found is None:
        return None
    rules = import_module(f"toolbus_common.guards.{found[0]}").known_rules()
    return cast("frozenset[str]", rules)

"""The detectors of built-in guards. Equal rules share one compiled detector."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from toolbus_common.config.guards.guard import Guard, Kind
from toolbus_common.guards import limits
from toolbus_common.guards.personal_data import model_options
from toolbus_common.guards.texts.findings import Detector

SEARCHING: frozenset[Kind] = frozenset({"secrets", "pii", "injection"})
MOST_KNOWN = 256
# The kind, `rules`, `except_rules`, and the options of a model.
_Key = tuple[Kind, tuple[str, ...] | None, tuple[str, ...], tuple[tuple[str, Any], ...]]
_known: dict[_Key, Detector] = {}


class _Kind(NamedTuple):
    """The content of a module of detectors: its detector, all rules, and the default rules."""

    detector: Callable[..., Detector]
    known_rules: Callable[[], frozenset[str]]
    default_rules: Callable[[], frozenset[str]]


def detector_of(guard: Guard) -> Detector:
    """Return the detector of a guard that searches texts: all built-in kinds except `limits`.

    Raises `ValueError` if a model that its options name is not installed.
    """
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


def _key(guard: Guard) -> _Key:
    chosen = model_options.chosen(guard.options) if guard.kind == "pii" else ()
    return guard.kind, guard.rules, guard.except_rules, chosen


def _compiled(
    kind: Kind,
    rules: tuple[str, ...] | None,
    except_rules: tuple[str, ...],
    options: tuple[tuple[str, Any], ...],
) -> Detector:
    detector = _module_of(kind).detector
    return (
        detector(rules, except_rules, dict(options)) if options else detector(rules, except_rules)
    )


def _module_of(kind: str) -> _Kind:
    """Return a kind's module. It is imported here, because compiled rules need memory."""
    if kind == "secrets":
        from toolbus_common.guards.secrets import detector as secrets  # noqa: PLC0415

        return _Kind(secrets.SecretsDetector, secrets.known_rules, secrets.known_rules)
    if kind == "pii":
        from toolbus_common.guards.personal_data import detector as personal  # noqa: PLC0415

        return _Kind(personal.PersonalDataDetector, personal.known_rules, personal.default_rules)
    from toolbus_common.guards.injection import detector as injection  # noqa: PLC0415

    return _Kind(injection.InjectionDetector, injection.known_rules, injection.known_rules)


def exceeded_limits(options: dict[str, Any], body: bytes, output_schema: Any) -> tuple[str, ...]:
    """Return the names of the limits of a guard of kind `limits` that a document exceeds."""
    return limits.exceeded(options, body, output_schema)


def option_problems(kind: str, options: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is wrong with the options of a built-in guard."""
    if kind == "limits":
        yield from limits.option_problems(options)
    elif kind == "pii":
        yield from model_options.problems(options)
    elif kind in SEARCHING and options:
        yield f"options do not apply to guards of kind {kind}; remove them"


def known_rules_of(kind: str) -> frozenset[str] | None:
    """Return the names of all rules of a kind; None if the kind has no rules of its own."""
    return _module_of(kind).known_rules() if kind in SEARCHING else None


def rules_of(guard: Guard) -> tuple[str, ...]:
    """Return the names of the rules that a guard applies; empty if its kind has no rules."""
    if guard.kind not in SEARCHING:
        return ()
    module = _module_of(guard.kind)
    names = module.default_rules() if guard.rules is None else frozenset(guard.rules)
    names &= module.known_rules()
    if guard.kind == "pii" and not guard.options.get("models"):
        names -= model_options.RULES.keys()
    return tuple(sorted(names - frozenset(guard.except_rules)))

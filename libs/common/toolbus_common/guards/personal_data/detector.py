"""Detector of personal data in texts by validated patterns, in linear time (no I/O)."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cache, lru_cache
from hashlib import sha256
from types import MappingProxyType
from typing import Any

from toolbus_common.guards.personal_data.model_options import LANGUAGE, MODEL
from toolbus_common.guards.personal_data.model_options import RULES as MODEL_RULES
from toolbus_common.guards.personal_data.models import ModelDetector
from toolbus_common.guards.personal_data.rules import RULES, Rule, words_of
from toolbus_common.guards.texts.expressions import (
    any_of,
    compiled,
    compiled_set,
    selected,
    shortened,
)
from toolbus_common.guards.texts.findings import Finding
from toolbus_common.guards.texts.joined_texts import (
    JoinedTexts,
    Match,
    MatchLimit,
    without_overlap,
)
from toolbus_common.guards.texts.plain_text import with_plain_escapes

_NEAR = 60  # characters before a match in which a word counts
_NEAR_AFTER = 30
_LONGEST = 40  # characters after a candidate in which another rule can match
_JOINED = frozenset(b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_")
_POINTS = frozenset(b".-/,")


class PersonalDataDetector:
    """Finds personal data that has a recognizable form, or a word near it that names it.

    IP addresses and addresses of network devices are found only if their rules are named.
    """

    def __init__(
        self,
        rules: tuple[str, ...] | None = None,
        except_rules: tuple[str, ...] = (),
        options: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        """Use the named rules, or those that apply by default; without those in `except_rules`.

        With the option `models`, a model of Presidio finds names and places too; the options
        `model` and `language` choose it. Raises `MissingModelError` if it is not installed.
        """
        names = default_rules() if rules is None else frozenset(rules)
        names -= frozenset(except_rules)
        self._compiled = _compiled_rules(names & known_rules())
        self._models: ModelDetector | None = None
        if options.get("models"):
            model, language = options.get("model", MODEL), options.get("language", LANGUAGE)
            self._models = ModelDetector(names, str(model), str(language))

    @property
    def version(self) -> str:
        """The version of the rules, and of the model."""
        return _version() if self._models is None else f"{_version()}+{self._models.version}"

    def find(self, texts: Sequence[str]) -> list[Finding]:
        """Return the personal data in the texts of one document."""
        joined = JoinedTexts(texts)
        limit, data = joined.limit(), with_plain_escapes(joined.data)
        found = joined.findings(limit.limited(self._compiled.matches(data, limit)))
        if self._models is None:
            return found
        return without_overlap([*found, *self._models.find(texts)])


@cache
def known_rules() -> frozenset[str]:
    """Return the names of all rules."""
    return frozenset({*(rule.id for rule in RULES), *MODEL_RULES})


@cache
def default_rules() -> frozenset[str]:
    """Return the names of the rules that apply without being named."""
    return frozenset({*(rule.id for rule in RULES if rule.default), *MODEL_RULES})


class _Compiled:
    """Compiled rules."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._rules = [(rule, compiled(rule.expression), _words(rule)) for rule in rules]
        short = [shortened(rule.expression) for rule in rules]
        self._candidates = compiled(any_of(short), captures=False)
        self._set = compiled_set(short)

    def matches(self, data: bytes, limit: MatchLimit) -> Iterator[Match]:
        if not self._rules:
            return
        for candidate in limit.candidates(self._candidates, data):
            start, end = candidate.span()
            if not _begins_value(data, start) and data[start:end].isdigit():
                continue  # such as decimals: every match would begin here, within a longer value
            numbers = self._set.Match(data[max(0, start - 1) : end + _LONGEST])
            for rule, expression, words in selected(self._rules, numbers):
                for found in expression.finditer(data, start, end + _LONGEST):
                    if found.start() > end:
                        break
                    yield from _checked(rule, words, found, data)


def _words(rule: Rule) -> Any:
    return compiled(f"(?i){words_of(rule.words)}") if rule.alone and rule.words else None


def _checked(rule: Rule, words: Any, found: Any, data: bytes) -> Iterator[Match]:
    """Yield the match if it is a whole value and valid."""
    start, end = found.span(1)
    if not _is_whole(data, start, end) or not rule.check(data[start:end].decode()):
        return
    near = not rule.alone or (words is not None and _is_near(words, data, start, end))
    yield start, end, rule.id, rule.near if near else rule.alone


def _is_near(words: Any, data: bytes, start: int, end: int) -> bool:
    first, last = max(0, start - _NEAR), end + _NEAR_AFTER
    return words.search(data, first, start) is not None or words.search(data, end, last) is not None


def _is_whole(data: bytes, start: int, end: int) -> bool:
    """Return whether the match is not a part of a longer word, number or path."""
    if not _begins_value(data, start):
        return False
    after = data[end : end + 2]
    if not after:
        return True
    return after[0] not in _JOINED and not (
        after[0] in _POINTS and len(after) > 1 and after[1] in _JOINED
    )


def _begins_value(data: bytes, start: int) -> bool:
    """Return whether no word, number or path continues at this position."""
    before = data[max(0, start - 2) : start]
    return not before or not (
        before[-1] in _JOINED or (before[-1] in _POINTS and before[0] in _JOINED)
    )


@cache
def _version() -> str:
    texts = [f"{rule.id} {rule.expression} {rule.words} {rule.alone} {rule.near}" for rule in RULES]
    return f"toolbus-{sha256(chr(10).join(texts).encode()).hexdigest()[:12]}"


@lru_cache(maxsize=16)
def _compiled_rules(names: frozenset[str]) -> _Compiled:
    """Return the compiled rules; a process compiles the same rules once."""
    return _Compiled([rule for rule in RULES if rule.id in names])

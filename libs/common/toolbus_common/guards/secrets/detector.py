"""Detector of secrets in texts, in linear time (no I/O)."""

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any

from toolbus_common.guards.secrets.private_keys import private_keys
from toolbus_common.guards.secrets.rules import (
    Rule,
    all_rules,
    allowed_everywhere,
    entropy,
    version,
)
from toolbus_common.guards.texts.expressions import (
    any_of,
    compiled,
    compiled_set,
    selected,
    shortened,
)
from toolbus_common.guards.texts.findings import Finding
from toolbus_common.guards.texts.joined_texts import JoinedTexts, Match, MatchLimit
from toolbus_common.guards.texts.plain_text import with_plain_escapes
from toolbus_common.guards.texts.time_limit import check_time

_LONGEST = 100  # characters after a candidate, and around it in a line
_NAME = 100  # characters of a name and what is between it and its value
_LONGEST_NAME = 50
_NAME_CHARACTERS = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-"
_LONGEST_VALUE = 2000  # characters of a name and a value that are looked at
_SHORTEST = 8  # characters of a named value
# A value after a name: the same operators as in the rules, and more between name and operator.
_VALUE = (
    r"""[ \t\w.\-]*[\s'")\\]*(?:=|>|:{1,3}=|\|\||:|=>|\?=|,)[\x60'"\s=\\]*"""
    rf"""(?:[\w.=~+/%\-]{{{_SHORTEST},}}|[0-9]{{5,7}}:A[\w\-]{{8,}})"""
)
_LETTERS = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_.-="
_RUN = _LETTERS + b"0123456789~+/%"
# Values without a digit are secrets only after these names.
_WORDS = compiled("(?i)passw|sumo")


class SecretsDetector:
    """Finds secrets by the rules of gitleaks and of Toolbus.

    Two state machines read the text once each: one for secrets with a recognizable form, one for
    values after a name such as `api_key`. The expressions of single rules are evaluated only at
    their matches.
    """

    def __init__(
        self, rules: tuple[str, ...] | None = None, except_rules: tuple[str, ...] = ()
    ) -> None:
        """Use the named rules, or all of them; without those in `except_rules`."""
        known = known_rules()
        names = frozenset(known if rules is None else rules) - frozenset(except_rules)
        self._compiled = _compiled_rules(names & known)

    @property
    def version(self) -> str:
        """The version of the rules."""
        return version()

    def find(self, texts: Sequence[str]) -> list[Finding]:
        """Return the secrets in the texts of one document."""
        joined = JoinedTexts(texts)
        data = with_plain_escapes(joined.data)
        return joined.findings(self._compiled.matches(data, joined.limit))


def known_rules() -> frozenset[str]:
    """Return the names of all rules."""
    return frozenset(rule.id for rule in all_rules())


class _Compiled:
    """Compiled rules."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        forms: dict[str, list[tuple[Rule, Any]]] = {
            "direct": [],
            "named": [],
            "gated": [],
            "key": [],
        }
        for rule in rules:
            forms[rule.form].append((rule, compiled(rule.expression)))
        self._direct, self._named, self._gated = forms["direct"], forms["named"], forms["gated"]
        self._keys = [rule for rule, _ in forms["key"]]
        short = [shortened(rule.expression) for rule, _ in self._direct]
        names = [rule.name for rule, _ in self._named]
        self._candidates = compiled(any_of(short), captures=False)
        self._values = compiled(f"(?:{any_of([*dict.fromkeys(names)])}){_VALUE}", captures=False)
        self._forms, self._names = compiled_set(short), compiled_set(names)

    def matches(self, data: bytes, limit_of_pass: Callable[[], MatchLimit]) -> Iterator[Match]:
        if self._direct:
            limit = limit_of_pass()
            yield from limit.limited(self._direct_matches(data, limit))
        if self._named:
            limit = limit_of_pass()
            yield from limit.limited(self._named_matches(data, limit))
        if self._gated:
            lowered = data.lower()
            for rule, expression in self._gated:
                for keyword in rule.keywords:
                    if keyword in lowered:
                        found = _gated_matches(rule, expression, data)
                        yield from limit_of_pass().limited(found)
                        break
        for rule in self._keys:
            keys = ((start, end, rule.id, rule.score) for start, end in private_keys(data))
            yield from limit_of_pass().limited(keys)

    def _direct_matches(self, data: bytes, limit: MatchLimit) -> Iterator[Match]:
        for candidate in limit.candidates(self._candidates, data):
            start, end = candidate.span()
            numbers = self._forms.Match(data[max(0, start - 1) : end + 1])
            for rule, expression in selected(self._direct, numbers):
                for found in expression.finditer(data, start, end + 1):
                    yield from _checked(rule, found, data)

    def _named_matches(self, data: bytes, limit: MatchLimit) -> Iterator[Match]:
        for candidate in limit.candidates(self._values, data):
            start, end = candidate.span()
            text = data[start:end]
            run = text[len(text.rstrip(_RUN)) :]
            if not run.translate(None, _LETTERS) and _WORDS.search(text) is None:
                continue  # a word
            start = max(start, end - len(run) - _NAME)
            end = min(end, start + _LONGEST_VALUE)
            for rule, expression in selected(self._named, self._names.Match(data[start:end])):
                if (found := expression.search(data, start, end + _LONGEST)) is not None:
                    yield from _checked(rule, found, data)


def _gated_matches(rule: Rule, expression: Any, data: bytes) -> Iterator[Match]:
    for found in expression.finditer(data):
        check_time()
        yield from _checked(rule, found, data)


def _checked(rule: Rule, found: Any, data: bytes) -> Iterator[Match]:
    """Yield the match if it has the entropy of a secret and is not allowed."""
    group = rule.group or next(
        (each for each in range(1, found.re.groups + 1) if found.start(each) != found.end(each)), 0
    )
    start, end = found.span(group)
    secret = data[start:end]
    if not secret or (rule.entropy and entropy(secret) <= rule.entropy):
        return
    match = _with_name(data, *found.span())
    for allowed in (allowed_everywhere(), *rule.allowed):
        line = _line(data, *found.span()) if allowed.target == "line" else b""
        if allowed.allows(secret, match, line):
            return
    yield start, end, rule.id, rule.score


def _with_name(data: bytes, start: int, end: int) -> bytes:
    """Return a match, extended to the start of its name: an expression can begin inside a name."""
    first = max(0, start - _LONGEST_NAME)
    before = data[first:start]
    return data[start - len(before) + len(before.rstrip(_NAME_CHARACTERS)) : end].strip(b"\n")


def _line(data: bytes, start: int, end: int) -> bytes:
    """Return the line of a match, or the characters near it in a long line."""
    first = data.rfind(b"\n", max(0, start - _LONGEST), start) + 1 or max(0, start - _LONGEST)
    last = data.find(b"\n", end, end + _LONGEST)
    return data[first : last if last >= 0 else end + _LONGEST]


@lru_cache(maxsize=16)
def _compiled_rules(names: frozenset[str]) -> _Compiled:
    """Return the compiled rules; a process compiles the same rules once."""
    return _Compiled([rule for rule in all_rules() if rule.id in names])

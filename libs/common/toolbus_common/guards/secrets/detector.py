"""Detector of secrets in texts, in linear time (no I/O)."""

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any

import re2

from toolbus_common.guards.findings import Finding
from toolbus_common.guards.joined_texts import JoinedTexts
from toolbus_common.guards.secrets.plain_text import with_plain_escapes
from toolbus_common.guards.secrets.private_keys import private_keys
from toolbus_common.guards.secrets.rules import (
    Rule,
    all_rules,
    allowed_everywhere,
    entropy,
    version,
)

_MEMORY = 64 * 1024 * 1024  # of the state machines of an expression
_LONGEST = 400  # characters of a secret after its start, except private keys
_NAME = 100  # characters of a name and what is between it and its value
_LONGEST_NAME = 50
_NAME_CHARACTERS = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-"
_SHORTEST = 8  # characters of a named value
# A value after a name: the same operators as in the rules, and more between name and operator.
_VALUE = (
    r"""[ \t\w.\-]*[\s'")]*(?:=|>|:{1,3}=|\|\||:|=>|\?=|,)[\x60'"\s=]*"""
    rf"""(?:[\w.=~+/%\-]{{{_SHORTEST}}}|[0-9]{{5,7}}:A)"""
)
_Match = tuple[int, int, str, float]


class SecretsDetector:
    """Finds secrets by the rules of gitleaks and of Toolbus.

    Two state machines read the text once each: one for secrets with a form of their own, one for
    values with a telling name. Only at their matches are the expressions of single rules evaluated.
    """

    def __init__(
        self, rules: tuple[str, ...] | None = None, except_rules: tuple[str, ...] = ()
    ) -> None:
        """Use the named rules, or all of them; without those in `except_rules`."""
        known = known_rules()
        names = frozenset(known if rules is None else rules) - frozenset(except_rules)
        self._compiled = _compiled(names & known)

    @property
    def version(self) -> str:
        """The version of the rules."""
        return version()

    def find(self, texts: Sequence[str]) -> list[Finding]:
        """Return the secrets in the texts of one document."""
        joined = JoinedTexts(texts)
        return joined.findings(self._compiled.matches(with_plain_escapes(joined.data)))


def known_rules() -> frozenset[str]:
    """Return the names of all rules."""
    return frozenset(rule.id for rule in all_rules())


class _Group:
    """Rules of one form, the expression that finds candidates, and the set that names the rules."""

    def __init__(
        self, rules: Sequence[Rule], select: Callable[[Rule], str], candidate: str
    ) -> None:
        self.rules = [(rule, _expression(rule.expression)) for rule in rules]
        selections = [select(rule) for rule in rules]
        whole = "|".join(f"(?:{each})" for each in dict.fromkeys(selections))
        self.candidates = _expression(candidate.format(whole), captures=False)
        self._set = re2.Set.SearchSet(_options())
        for each in selections:
            self._set.Add(each.encode())
        self._set.Compile()

    def selected(self, text: bytes) -> list[tuple[Rule, Any]]:
        """Return the rules that can match in a short text."""
        return [self.rules[each] for each in sorted(self._set.Match(text))]


class _Compiled:
    """Compiled rules."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        direct = [rule for rule in rules if rule.form == "direct"]
        named = [rule for rule in rules if rule.form == "named"]
        self._direct = _Group(direct, lambda rule: rule.expression, "{}") if direct else None
        self._named = (
            _Group(named, lambda rule: rule.name, f"(?:{{}}){_escaped(_VALUE)}") if named else None
        )
        self._gated = [
            (rule, _expression(rule.expression)) for rule in rules if rule.form == "gated"
        ]
        self._keys = [rule for rule in rules if rule.form == "key"]

    def matches(self, data: bytes) -> Iterator[_Match]:
        if self._direct is not None:
            yield from _direct_matches(self._direct, data)
        if self._named is not None:
            yield from _named_matches(self._named, data)
        if self._gated:
            yield from self._gated_matches(data)
        for rule in self._keys:
            for start, end in private_keys(data):
                yield start, end, rule.id, rule.score

    def _gated_matches(self, data: bytes) -> Iterator[_Match]:
        lowered = data.lower()
        for rule, expression in self._gated:
            if any(keyword in lowered for keyword in rule.keywords):
                for found in expression.finditer(data):
                    yield from _checked(rule, found, data)


def _direct_matches(group: _Group, data: bytes) -> Iterator[_Match]:
    for candidate in group.candidates.finditer(data):
        start, end = candidate.span()
        last = end + _LONGEST
        for rule, expression in group.selected(data[max(0, start - 1) : last]):
            if (found := expression.search(data, start, last)) is not None:
                yield from _checked(rule, found, data)


def _named_matches(group: _Group, data: bytes) -> Iterator[_Match]:
    for candidate in group.candidates.finditer(data):
        start, end = candidate.span()
        start = max(start, end - _NAME)
        for rule, expression in group.selected(data[start:end]):
            if (found := expression.search(data, start, end + _LONGEST)) is not None:
                yield from _checked(rule, found, data)


def _checked(rule: Rule, found: Any, data: bytes) -> Iterator[_Match]:
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
    """Return a match with the whole name before it, of which the expression may begin inside."""
    first = max(0, start - _LONGEST_NAME)
    before = data[first:start]
    return data[start - len(before) + len(before.rstrip(_NAME_CHARACTERS)) : end].strip(b"\n")


def _line(data: bytes, start: int, end: int) -> bytes:
    """Return the line of a match, or the characters near it in a long line."""
    first = data.rfind(b"\n", max(0, start - _LONGEST), start) + 1 or max(0, start - _LONGEST)
    last = data.find(b"\n", end, end + _LONGEST)
    return data[first : last if last >= 0 else end + _LONGEST]


def _escaped(expression: str) -> str:
    return expression.replace("{", "{{").replace("}", "}}")


def _options() -> Any:
    options = re2.Options()
    options.max_mem = _MEMORY
    options.encoding = re2.Options.Encoding.LATIN1
    return options


def _expression(expression: str, *, captures: bool = True) -> Any:
    options = _options()
    options.never_capture = not captures
    return re2.compile(expression.encode(), options)


@lru_cache(maxsize=16)
def _compiled(names: frozenset[str]) -> _Compiled:
    """Return the compiled rules; a process compiles the same rules once."""
    return _Compiled([rule for rule in all_rules() if rule.id in names])

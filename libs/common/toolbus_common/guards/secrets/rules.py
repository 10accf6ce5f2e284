"""The rules for secrets: how they are written in the data, and whether a match is one (no I/O)."""

import json
import math
from collections import Counter
from functools import cache
from hashlib import sha256
from importlib.resources import files
from typing import Any, Final, Literal

import re2
from msgspec import Struct

# The parts of the regular expressions of gitleaks, as its generator writes them.
_OPERATOR: Final = r"""(?:=|>|:{1,3}=|\|\||:|=>|\?=|,)[\x60'"\s=]{0,5}("""
_NAME_ENDS: Final = r"""(?:[ \t\w.-]{0,20})[\s'"]{0,3}"""
_NAME_STARTS: Final = (
    r"(?i)[\w.-]{0,50}?(?:",
    r"[\w.-]{0,50}?(?i:[\w.-]{0,50}?(?:",
)
# The same where quotes are escaped, because the text is JSON in a string, even several times.
_SAME_ESCAPED: Final = (
    (r"""[\s'"]{0,3}""", r"""[\s'"\\]{0,9}"""),
    (r"""[\x60'"\s=]{0,5}(""", r"""[\x60'"\s=\\]{0,12}("""),
)
_END: Final = r"""(?:[\x60'"\s;]|\\[nr]|$)"""
# A secret also ends where a value ends in a URL, an element, a list or a sentence.
_LATER_END: Final = r"""(?:[\x60'"\s;,&<>)\]}|#?\\]|\.(?:\s|$)|$)"""
# Rules whose expression would match too much, or too slowly, in texts without their keyword.
_GATED: Final = frozenset({"curl-auth-header", "curl-auth-user", "sourcegraph-access-token"})
# A secret with a form of its own ends before every character that it cannot contain.
_DIRECT_END: Final = r"""(?:[\x60'"\s;,&<>()\[\]{}|#?:=!*@$\\]|\.(?:\s|$)|$)"""
GENERIC: Final = frozenset(
    {"generic-api-key", "hashicorp-tf-password", "toolbus-authorization", "toolbus-password"}
)
Form = Literal["direct", "named", "gated", "key"]


class Allowed(Struct, frozen=True):
    """Matches of a rule that are not secrets."""

    target: str
    pattern: Any  # a compiled expression of RE2, or None
    stopwords: Any

    def allows(self, secret: bytes, match: bytes, line: bytes) -> bool:
        """Return whether the secret is only an example, a variable, or a word."""
        target = {"match": match, "line": line}.get(self.target, secret)
        if self.pattern is not None and self.pattern.search(target) is not None:
            return True
        return self.stopwords is not None and self.stopwords.search(secret.lower()) is not None


class Rule(Struct, frozen=True):
    """A rule: its expression and the conditions of its matches.

    Rules of the form `named` match a value after a name that `name` matches. Rules of the form
    `gated` apply only to texts with a keyword. Rules of the form `key` match private keys.
    """

    id: str
    form: Form
    expression: str
    name: str
    keywords: tuple[bytes, ...]
    entropy: float
    group: int
    allowed: tuple[Allowed, ...]

    @property
    def score(self) -> float:
        """The certainty of a match."""
        if self.id in GENERIC:
            return 0.6
        return 0.8 if self.form == "named" else 1.0


def entropy(secret: bytes) -> float:
    """Return the entropy of the characters, in bits."""
    share = 1 / len(secret)
    return -sum(count * share * math.log2(count * share) for count in Counter(secret).values())


@cache
def all_rules() -> tuple[Rule, ...]:
    """Return the rules in their order of precedence."""
    return tuple(
        rule
        for name in ("toolbus.json", "gitleaks.json")
        for each in json.loads(_data(name))["rules"]
        for rule in _rules_of(each)
    )


@cache
def version() -> str:
    """Return the version of the source and a digest of all data."""
    texts = [_data(name) for name in ("gitleaks.json", "toolbus.json")]
    digest = sha256("".join(texts).encode()).hexdigest()[:12]
    return f"gitleaks-{json.loads(texts[0])['version']}-{digest}"


@cache
def allowed_everywhere() -> Allowed:
    """Return the matches that are not secrets under any rule."""
    return _allowed(json.loads(_data("gitleaks.json"))["allowlist"])


def _data(name: str) -> str:
    return files(__package__).joinpath("data", name).read_text("utf-8")


def _rules_of(rule: dict[str, Any]) -> list[Rule]:
    """Return the rules of an entry: two with the same id if its expression has two forms."""
    expression = rule["regex"].replace(_END, _LATER_END)
    prefix = next((each for each in _NAME_STARTS if expression.startswith(each)), None)
    if prefix is None or _OPERATOR not in expression:
        expression = rule["regex"].replace(_END, _DIRECT_END)
        form: Form = "gated" if rule["id"] in _GATED else "direct"
        return [_rule(rule, "key" if rule["id"] == "private-key" else form, expression)]
    # The characters before the name do not matter, so that matching can begin at the name.
    named, direct = _split(expression)
    name, value = named.removeprefix(prefix).split(_NAME_ENDS, 1)
    name = f"(?:{name}"
    plain = value.startswith("(?:=|>")
    flag = "(?i)" if prefix.startswith("(?i)") else ""
    ends = _NAME_ENDS if plain else f"{_NAME_ENDS}{value[0]}"
    rest = value if plain else value[1:]
    whole = f"{flag}{name}{ends}{rest}" if plain else f"(?i:{name}{ends}{rest}"
    for written, escaped in _SAME_ESCAPED:
        whole = whole.replace(written, escaped)
    rules = [_rule(rule, "named", whole, f"(?i:{name})")]
    return [*rules, _rule(rule, "direct", direct)] if direct else rules


def _split(expression: str) -> tuple[str, str]:
    """Return the alternatives of an expression: for named values, and for values by their form.

    The second is empty if the expression has only the first.
    """
    named, end, direct = expression.partition(f"{_LATER_END}|")
    return (named + _LATER_END, direct) if end else (expression, "")


def _rule(rule: dict[str, Any], form: Form, expression: str, name: str = "") -> Rule:
    return Rule(
        id=rule["id"],
        form=form,
        expression=expression,
        name=name,
        keywords=tuple(each.lower().encode() for each in rule["keywords"]),
        entropy=rule.get("entropy", 0.0),
        group=rule.get("group", 0),
        allowed=tuple(_allowed(each) for each in rule.get("allowlists", ())),
    )


def _allowed(data: dict[str, Any]) -> Allowed:
    words = "|".join(re2.escape(each) for each in data.get("stopwords", ()))
    expressions = "|".join(f"(?:{each})" for each in data.get("regexes", ()))
    return Allowed(
        target=data.get("target", "secret"),
        pattern=re2.compile(expressions.encode()) if expressions else None,
        stopwords=re2.compile(words.encode()) if words else None,
    )

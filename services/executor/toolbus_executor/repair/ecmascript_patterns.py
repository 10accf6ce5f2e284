"""Check of regular expressions: ECMAScript must compile them with the `u` flag."""

import re

_ESCAPE = (
    r"\\(?:[\^$\\.*+?()\[\]{}|/]|[dDwWsSbBfnrtv]|0(?!\d)|[1-9]\d*|c[A-Za-z]|x[0-9A-Fa-f]{2}"
    r"|u[0-9A-Fa-f]{4}|u\{[0-9A-Fa-f]{1,6}\}|[pP]\{\w+(?:=\w+)?\}|k<\w+>)"
)
_IN_CLASS = rf"(?:{_ESCAPE}|\\-|[^\\\]])"
_ATOM = rf"(?:{_ESCAPE}|\[\^?{_IN_CLASS}*\]|[^\\\[\](){{}}*+?|])"
_OPENING = r"\((?!\?)|\(\?(?:[:=!]|<[=!]|<[A-Za-z_$][\w$]*>)"
_QUANTIFIER = r"(?:[*+?]|\{\d+(?:,\d*)?\})\??"
_TOKEN = re.compile(rf"(?P<open>{_OPENING})|(?P<many>{_QUANTIFIER})|(?P<bar>\|)|\)|{_ATOM}")


def is_portable(pattern: str) -> bool:
    """Return whether the regular expression engine of every client accepts the pattern.

    The check is conservative: it rejects some valid patterns, but it never accepts a construct that
    ECMAScript does not have.
    """
    at, depth, repeatable = 0, 0, False
    while at < len(pattern):
        found = _TOKEN.match(pattern, at)
        if found is None or (found["many"] and not repeatable):
            return False
        depth += bool(found["open"]) - (found[0] == ")")
        if depth < 0:
            return False
        nothing = found["open"] or found["many"] or found["bar"] or found[0] in "^$"
        repeatable = not nothing and found[0] not in ("\\b", "\\B")
        at = found.end()
    return depth == 0

"""Wording of a text: what must be the same in two texts that share a response (no I/O).

An embedding ignores the order of words and small words such as negations. So it decides only
between texts with the same words in the same order; only the listed phrases are interchangeable.
"""

import re

LONGEST_TEXT = 200  # characters of a text that is compared
# Texts in which each character can matter: quotations, code, lists and given texts.
_EXACT = re.compile(
    r"[\n\r\t\v\f\"`:\u201c-\u201e\u00ab\u00bb]"
    r"|(?<!\w)['\u2018\u2019]|['\u2018\u2019](?!\w)"
)
_POLITE = re.compile(r"(?:please,? )?(?:(?:can|could) you please )?", re.IGNORECASE)
_QUESTION = re.compile(
    r"(?:what is the |what['\u2019]s the |(?:(?:can|could) you )?tell me the )", re.IGNORECASE
)
_OPEN_QUESTION = re.compile(r"(?:how|what|when|where|which|who|why) ", re.IGNORECASE)


def wording_of(text: str) -> str | None:
    """Return the words of a text in their order; None if only an equal text may share a response.

    The wording does not depend on spaces, "please" at an end, the capital letter of the first word
    and the final question mark of an open question. "What is the", "What's the" and "Tell me the"
    at the beginning are treated as equal.
    """
    if not text or len(text) > LONGEST_TEXT or _EXACT.search(text):
        return None
    words = " ".join(text.split())
    if match := _POLITE.match(words):
        words = words[match.end() :]
    end = words[-1:] if words.endswith((".", "?")) else ""
    words = words[: len(words) - len(end)]
    if words.lower().endswith(", please"):
        words = words[: -len(", please")]
    if match := _QUESTION.match(words):
        return f"what is the {words[match.end() :]}"
    if end == "?" and _OPEN_QUESTION.match(words):
        end = ""
    if not words[1:2].isupper():
        words = words[:1].lower() + words[1:]
    return words + end if words else None

"""Answers of plugins: what a valid answer is, and its check against what the plugin may do."""

import re
from typing import Any

from pydantic import ValidationError

from toolbus_common.config.plugins import Plugin
from toolbus_common.contracts import HookReply

LARGEST_ANSWER = 8 << 20  # bytes
_NOT_SHOWN = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]+")
_LONGEST_REASON = 300
_VERSION = re.compile(r"[^\w .:/+-]")


class AnswerError(Exception):
    """A plugin's answer cannot be used. The message is the reason, without the content."""


def decoded(data: bytes) -> HookReply:
    """Return an answer. Raises `AnswerError`."""
    if len(data) > LARGEST_ANSWER:
        raise AnswerError(f"its answer is larger than {LARGEST_ANSWER} bytes")
    try:
        return HookReply.decode(data)
    except (ValidationError, RecursionError):
        raise AnswerError("its answer does not match the schema of answers") from None


def check(answer: HookReply, plugin: Plugin, point: str) -> None:
    """Check that the plugin may do what it decided. Raises `AnswerError`."""
    if answer.verdict == "fail":
        raise AnswerError(f"it failed: {shown_reason(answer)}")
    if answer.verdict == "change" and not plugin.changes_at(point):
        raise AnswerError("it changed the content, which it may not; add change to its 'may'")
    if answer.verdict == "refuse" and "refuse" not in plugin.may:
        raise AnswerError("it refused the call, which it may not; add refuse to its 'may'")


def changed(before: Any, after: Any) -> Any:
    """Return the changed content. Raises `AnswerError` if its form differs from before.

    An object keeps its members at the top level, and the types of their values. A list keeps its
    length, and the types of its values.
    """
    if _form(before) != _form(after):
        raise AnswerError("the changed content has another form; keep its members and their types")
    return after


def shown_reason(answer: HookReply) -> str:
    """Return the reason of a refusal for its caller: one line of limited length."""
    text = " ".join(_NOT_SHOWN.sub(" ", answer.reason).split())[:_LONGEST_REASON].rstrip(" .")
    return text or "it gave no reason"


def shown_version(answer: HookReply) -> str:
    """Return the version for events."""
    return _VERSION.sub("_", answer.version)


def _form(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _kind(each) for name, each in value.items()}
    return [_kind(each) for each in value] if isinstance(value, list) else _kind(value)


def _kind(value: Any) -> type:
    return float if isinstance(value, int) and not isinstance(value, bool) else type(value)

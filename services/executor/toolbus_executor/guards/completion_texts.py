"""The texts in the response of a model, in the form of any API for clients (no I/O).

Labels (identifiers, types, names of models) and encrypted data are short or in a fixed form. Only
secrets are searched in them, because other rules would match parts of random identifiers; a label
in any other form is a text. The arguments of a tool call are JSON, as a text or as an object; they
are checked as JSON, so that an escape sequence hides nothing.
"""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from toolbus_common import strict_json

MAX_DEPTH = 64
LONGEST_NAME = 256  # characters of a member's name
LABELS = frozenset(
    {
        *("id", "object", "type", "model", "role", "created_at", "finish_reason", "stop_reason"),
        *("native_finish_reason", "status", "system_fingerprint", "service_tier", "format"),
        *("item_id", "response_id", "call_id", "tool_use_id", "previous_response_id", "provider"),
        *("inference_geo", "phase"),
    }
)
OPAQUE = frozenset(
    {"signature", "thought_signature", "encrypted_content", "b64_json", "partial_image_b64"}
)
# Members that the gateway removes. `logprobs` repeats the text token by token. `obfuscation` is
# random text that hides the length of a piece; it has no use after the pieces were changed.
DROPPED = frozenset({"logprobs", "obfuscation"})
_REQUEST = frozenset({"tools", "tool_choice"})  # repeats what the client sent
# Members that contain the arguments of a tool call: as an object, and as a text with JSON.
_OBJECTS, ENCODED = frozenset({"input"}), frozenset({"arguments", "partial_json"})
_WORD = re.compile(r"[A-Za-z_.:/-]*[0-9]{0,8}[A-Za-z_.:/-]*")  # of at most `_LONGEST_WORD`
_LONGEST_WORD, _LONGEST_LABEL = 64, 256
_IDENTIFIER = re.compile(r"[A-Za-z0-9_.:/+=|~@-]*")
_WORDS = frozenset({"role", "type", "object", "status", "finish_reason", "stop_reason"})
_BASE64 = re.compile(r"[A-Za-z0-9_+/=-]*")
_PLAIN_NAME = re.compile(r"[A-Za-z_]{1,32}")
_SMALL, _COUNT = 10**7, 10**12  # smaller integers and smaller counts are not checked
_LONGEST_FLOAT = 8
_COUNTS = frozenset({"usage", "created", "created_at", "completed_at", "seed", "logprob"})

Path = tuple[str | int, ...]


class Member(NamedTuple):
    """A value to check, at `holder[name]`. Without a holder, the value is a member's name."""

    path: Path
    holder: Any
    name: Any
    value: Any
    is_label: bool


class TextsOfResponse:
    """The members to check of a decoded response, or of one event of its stream.

    `except_places` are places (`id(holder), name`) that are checked elsewhere. `known` has
    the values that were checked before, by their paths.
    """

    def __init__(
        self,
        value: Any,
        except_places: frozenset[tuple[int, Any]] = frozenset(),
        known: Mapping[Path, Any] | None = None,
    ) -> None:
        """Raise `ValueError` for a response that is nested too deeply."""
        self.value = value
        self.members: list[Member] = []
        self.was_changed = False  # `value` differs from the received value
        self._except = except_places
        self._known = known or {}
        self._visit(value, (), MAX_DEPTH, is_label=False)

    @property
    def document(self) -> list[Any]:
        """The texts, as one JSON array for all guards."""
        return [each.value for each in self.members if not each.is_label]

    @property
    def labels(self) -> list[Any]:
        """The labels, as one JSON array for the guards that look for secrets."""
        return [each.value for each in self.members if each.is_label]

    def replace(self, document: list[Any], *, labels: bool = False) -> None:
        """Replace the texts, or the labels, by those of a document of the same length.

        Raises `ValueError`: a name would be replaced.
        """
        members = [each for each in self.members if each.is_label == labels]
        for member, after in zip(members, document, strict=True):
            if after == member.value:
                continue
            if member.holder is None:
                raise ValueError(
                    "The guards redact the name of a member of the upstream's response, which "
                    "would change the response's structure. Request another response."
                )
            encoded = member.name in ENCODED
            member.holder[member.name] = encoded_arguments(after) if encoded else after

    def _visit(self, value: Any, path: Path, depth: int, *, is_label: bool) -> None:
        if depth < 0:
            raise ValueError(
                "The response is nested too deeply for its guards. Request a simpler response."
            )
        if isinstance(value, dict):
            for name, each in list(value.items()):
                if name in DROPPED:
                    self._drop(value, name, each)
                    continue
                if _PLAIN_NAME.fullmatch(name) is None:
                    self._name(name, path)
                self._member(value, name, each, (*path, name), depth, is_label=is_label)
        elif isinstance(value, list):
            for index, each in enumerate(value):
                self._member(value, index, each, (*path, index), depth, is_label=is_label)

    def _drop(self, holder: dict[str, Any], name: str, value: Any) -> None:
        if name == "obfuscation":
            del holder[name]
            self.was_changed = True
        elif value is not None and value != []:
            holder[name] = [] if isinstance(value, list) else None
            self.was_changed = True

    def _name(self, name: str, path: Path) -> None:
        if len(name) > LONGEST_NAME:
            raise ValueError(
                f"A member of the response has a name of more than {LONGEST_NAME} characters. "
                "Request a simpler response."
            )
        if self._known.get(here := (*path, f"{name} ")) != name:
            self.members.append(Member(here, None, None, name, is_label=False))

    def _member(
        self, holder: Any, name: Any, each: Any, path: Path, depth: int, *, is_label: bool
    ) -> None:
        if isinstance(each, str):
            if not each or (self._except and (id(holder), name) in self._except):
                return
            if self._known.get(path) != each:
                self._text(holder, name, each, path, is_label=is_label)
        elif isinstance(each, dict | list):
            if name in _OBJECTS and isinstance(each, dict):
                if each:
                    self.members.append(Member(path, holder, name, each, is_label=False))
            else:
                self._visit(each, path, depth - 1, is_label=is_label or name in _REQUEST)
        elif each is None or isinstance(each, bool) or self._known.get(path) == each:
            pass
        elif _is_long(each, path):
            self.members.append(Member(path, holder, name, each, is_label))

    def _text(self, holder: Any, name: Any, each: str, path: Path, *, is_label: bool) -> None:
        value: Any = each
        if name in ENCODED:
            one = unambiguous(each)
            if one is not each:
                holder[name] = value = one
                self.was_changed = True
            decoded = decoded_arguments(one)
            value = one if decoded is None else decoded
        is_label = is_label or _is_label(name, each)
        self.members.append(Member(path, holder, name, value, is_label))


def _is_label(name: Any, text: str) -> bool:
    if name in LABELS:
        if name in _WORDS:
            return len(text) <= _LONGEST_WORD and _WORD.fullmatch(text) is not None
        return len(text) <= _LONGEST_LABEL and _IDENTIFIER.fullmatch(text) is not None
    return name in OPAQUE and _BASE64.fullmatch(text) is not None


def _is_long(number: float, path: Path) -> bool:
    """Return whether a number can be a value that guards find."""
    if isinstance(number, int) and abs(number) < _SMALL:
        return False
    if not _COUNTS.isdisjoint(path):
        return abs(number) >= _COUNT
    return isinstance(number, int) or len(repr(number)) > _LONGEST_FLOAT


def decoded_arguments(text: str) -> Any:
    """Return the arguments of a tool call; None if the text is no JSON object or array."""
    if text.lstrip()[:1] not in ("{", "["):
        return None
    try:
        return msgspec.json.decode(text)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None


def unambiguous(text: str) -> str:
    """Return the arguments of a tool call so that all parsers read them alike.

    If a name is repeated, only its last member stays, because only that one is checked.
    """
    arguments = decoded_arguments(text)
    if arguments is None:
        return text
    try:
        strict_json.parse(text.encode("utf-8", "replace"))
    except strict_json.StrictJSONError:
        return encoded_arguments(arguments)
    return text


def encoded_arguments(arguments: Any) -> str:
    """Return the arguments of a tool call as a text."""
    return arguments if isinstance(arguments, str) else msgspec.json.encode(arguments).decode()

"""The check of all members of a stream's events that are not pieces of texts.

A value is not checked again if the same member had it in the previous event, because most events
repeat their identifiers. A client could join the values of one member over the events, so the end
of what was sent is checked together with the next value.
"""

from typing import Any

import msgspec

from toolbus_common.errors import UpstreamInvalidError
from toolbus_common.guards.content import Content
from toolbus_executor.guards.call_guards import GuardedContent
from toolbus_executor.guards.completion_texts import Member, Path, TextsOfResponse
from toolbus_executor.guards.held_secrets import HeldSecrets, cleaned
from toolbus_executor.guards.streams.deltas import Delta

MOST_PATHS = 16_384  # members whose values are remembered
_JOINED = 256  # characters of each of two values that are checked together
_INDEXES = ("output_index", "content_index", "summary_index", "annotation_index", "index")
_encode = msgspec.json.Encoder().encode


class OtherMembers:
    """The members of one stream's events that are not pieces of texts."""

    def __init__(self, content: GuardedContent, secrets: HeldSecrets | None) -> None:
        self._content = content
        self._secrets = secrets
        guards = content.inspector.guards
        known = {name: guards[name] for name in content.names if name in guards}
        self._built_in = tuple(name for name, guard in known.items() if guard.is_built_in)
        self._for_labels = tuple(name for name, each in known.items() if each.kind == "secrets")
        # By type and place of an event: each member's last value, and the end of all its values.
        self._known: dict[tuple[Any, ...], dict[Path, Any]] = {}
        self._ends: dict[tuple[Any, ...], dict[Path, str]] = {}
        self._size = 0

    async def check(self, event: dict[str, Any], deltas: list[Delta]) -> None:
        """Check an event without its pieces, and replace what guards redact.

        Raises the error of a guard, or `UpstreamInvalidError`.
        """
        places = frozenset((id(delta.holder), delta.name) for delta in deltas)
        try:
            kind = event.get("type")
            short = isinstance(kind, str) and len(kind) <= _JOINED
            place = (
                kind if short else None,
                *(each if type(each := event.get(name)) is int else None for name in _INDEXES),
            )
            known = self._known.get(place)
            texts = TextsOfResponse(event, places, known)
            if not texts.members:
                return
            members = [*texts.members]
            for is_label in (False, True):
                names = self._for_labels if is_label else self._content.names
                document = texts.labels if is_label else texts.document
                if document:
                    after = await self._cleaned(document, names)
                    if after is not None:
                        texts.replace(after, labels=is_label)
            if known is None:
                known = self._known[place] = {}
            await self._check_joined(members, known, self._ends.setdefault(place, {}))
        except ValueError as error:
            raise UpstreamInvalidError(str(error)) from error

    async def _check_joined(
        self, members: list[Member], known: dict[Path, Any], ends: dict[Path, str]
    ) -> None:
        """Check each value together with the end of the values that its member had before."""
        texts, labels = list[str](), list[str]()
        for member in members:
            value = member.value if member.holder is None else member.holder[member.name]
            if member.path not in known:
                self._size += 1
                if self._size > MOST_PATHS:
                    raise UpstreamInvalidError(
                        f"The response has more than {MOST_PATHS} members, so its guards cannot "
                        "check it. Request a shorter response."
                    )
            is_text = isinstance(value, str)
            short = is_text and len(value) <= _JOINED and value == member.value
            known[member.path] = value if short or isinstance(value, int | float) else None
            if not is_text:
                continue
            if before := ends.get(member.path):
                (labels if member.is_label else texts).append(before + value[:_JOINED])
            ends[member.path] = ((before or "") + value)[-_JOINED:]
        for joined, names in ((texts, self._built_in), (labels, self._for_labels)):
            if joined and await self._cleaned(joined, names) is not None:
                raise UpstreamInvalidError(
                    "The guards redact a text of the upstream's response that is split over "
                    "several events. Request it without a stream."
                )

    async def _cleaned(self, document: list[Any], names: tuple[str, ...]) -> list[Any] | None:
        """Return a document after its redactions; None if nothing was changed."""
        found = Content(_encode(document))
        after: list[Any] | None = await cleaned(found, self._content, self._secrets, names)
        return after

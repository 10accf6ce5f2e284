"""Guards on the response of a model to one call, complete or streamed."""

import msgspec

from toolbus_common import strict_json
from toolbus_common.config.guards.guard import Guard
from toolbus_common.contracts import CallAdmitted, GuardCheck, Notification
from toolbus_common.contracts.model_calls import CHUNK, COUNT_TOKENS, EMBEDDINGS
from toolbus_common.contracts.replies import CallContext, ReplyMessage
from toolbus_common.errors import (
    GuardBlockedError,
    GuardFailedError,
    ToolbusError,
    UpstreamError,
    UpstreamInvalidError,
)
from toolbus_common.guards.content import Content
from toolbus_common.guards.texts.scan_threads import scanned
from toolbus_executor.guards.call_guards import CallGuards, GuardedContent
from toolbus_executor.guards.completion_texts import LONGEST_NAME, TextsOfResponse
from toolbus_executor.guards.held_secrets import HeldSecrets, cleaned
from toolbus_executor.guards.streams.guarded_stream import GuardedStream

_WITHOUT_TEXT = frozenset({EMBEDDINGS, COUNT_TOKENS})
_encode = msgspec.json.Encoder().encode


class GuardedResponse:
    """The caller of one call, which receives only what the guards of the call allow."""

    def __init__(
        self,
        guards: CallGuards,
        call: CallAdmitted,
        context: CallContext,
        secrets: HeldSecrets | None = None,
    ) -> None:
        self.content = GuardedContent(guards, call, "completions")
        self.parts = 0  # parts of the stream that were sent
        self._context = context
        self._secrets = secrets
        guard = None if secrets is None else secrets.guard_of(self.content)
        applies = bool(self.content.names) or guard is not None
        self._has_text = call.method not in _WITHOUT_TEXT and applies
        self._stream: GuardedStream | None = None

    @property
    def checks(self) -> tuple[GuardCheck, ...]:
        """The checks for the event of the call."""
        return self.content.checks

    async def check_sent(self) -> None:
        """Reject a request with a secret of Toolbus itself. Raises the error of a guard."""
        if self._secrets is not None:
            request = Content(self.content.call.arguments)
            try:
                await self._secrets.clean(request, self.content, is_sent=True)
            except (GuardBlockedError, GuardFailedError) as error:
                error.data["sent"] = False
                raise

    async def send(self, message: ReplyMessage) -> None:
        """Send a message; check a part of a stream first. Raises the error of a guard."""
        if not (isinstance(message, Notification) and message.method == CHUNK):
            await self._context.send(message)
            return
        if self._stream is None:
            self._stream = GuardedStream(self.content, self._secrets)
        await self._send_part(
            await self._stream.feed(message.body) if self._has_text else message.body
        )

    async def finished(self, body: bytes) -> bytes:
        """Return the checked body of a response. Of a streamed response, send the rest instead.

        Raises the error of a guard.
        """
        if self._stream is not None:
            if self._has_text:
                await self._send_part(await self._stream.end())
            return body
        return await self._checked(body) if self._has_text and body else body

    async def error(self, error: ToolbusError) -> ToolbusError:
        """Return an error after its check, because it can contain text of the provider."""
        if not (isinstance(error, UpstreamError) and self._has_text):
            return error
        named = {name: each for name, each in error.data.items() if isinstance(each, str)}
        document = Content(_encode([error.reason, *named.values()]))
        try:
            after = await cleaned(document, self.content, self._secrets)
        except (GuardBlockedError, GuardFailedError) as blocked:
            data = {name: each for name, each in error.data.items() if name not in named}
            return type(error)(f"The provider's message is withheld: {blocked.reason}", **data)
        if after is None:
            return error
        reason, *texts = after
        return type(error)(reason, **error.data | dict(zip(named, texts, strict=True)))

    async def _send_part(self, part: bytes) -> None:
        if part:
            self.parts += 1
            await self._context.send(Notification(CHUNK, part, self.parts))

    async def _checked(self, body: bytes) -> bytes:
        checked = self.content.checked
        try:
            texts, is_strict = await scanned(len(body), checked, lambda: _opened(body))
        except (ValueError, RecursionError) as error:
            raise UpstreamInvalidError(
                "The guards cannot check the upstream's response: it is invalid JSON, nested too "
                f"deeply, or has a member name of more than {LONGEST_NAME} characters. Request "
                "another response, and check the provider's 'url'."
            ) from error
        try:
            changed = await self._replaced(texts, len(body))
        except ValueError as error:
            raise UpstreamInvalidError(str(error)) from error
        if not changed and not texts.was_changed and is_strict:
            return body
        return await scanned(len(body), checked, lambda: _encode(texts.value))

    async def _replaced(self, texts: TextsOfResponse, size: int) -> bool:
        """Check the texts and labels of a response; return whether one was redacted."""
        guards, changed = self.content.inspector.guards, False
        secrets = [each for each in self.content.names if _searches_secrets(guards.get(each))]
        for is_label in (False, True):
            found = texts.labels if is_label else texts.document
            if not found:
                continue
            names = secrets if is_label else self.content.names
            document = Content(None, found, size)
            after = await cleaned(document, self.content, self._secrets, names)
            if after is not None:
                texts.replace(after, labels=is_label)
                changed = True
        return changed


def _searches_secrets(guard: Guard | None) -> bool:
    return guard is not None and guard.kind == "secrets"


def _opened(body: bytes) -> tuple[TextsOfResponse, bool]:
    """Return the texts of a response, and whether all parsers read it alike."""
    try:
        return TextsOfResponse(strict_json.parse(body)), True
    except strict_json.StrictJSONError:
        return TextsOfResponse(msgspec.json.decode(body)), False

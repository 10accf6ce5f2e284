"""The tool calls of a streamed response of the chat completions API."""

from secrets import token_hex

from toolbus_common.errors import UpstreamInvalidError
from toolbus_executor.providers.translation.apis import chat


def check_choice(choice: chat.Choice) -> None:
    """Raise `UpstreamInvalidError` for a second choice: other APIs have only one response."""
    if choice.index:
        raise UpstreamInvalidError(
            "The provider sent several choices, which the client's API cannot carry. Check the "
            "provider's 'url' and 'apis'."
        )


class StreamedCalls:
    """The order of tool calls in a stream.

    `id` and `name` are those of the last call, and `indexes` are the indexes of all calls.
    """

    def __init__(self) -> None:
        self.id = self.name = ""
        self.indexes: set[int] = set()
        self._index = -1

    def begins(self, call: chat.ToolCall) -> bool:
        """Return whether this part begins a call. Some servers send the same index for all."""
        index, name = call.index or 0, (call.function and call.function.name) or ""
        other = index == self._index and bool(name and call.id and call.id != self.id)
        if index in self.indexes and not other:
            return False
        self.indexes.add(index)
        self._index, self.id, self.name = index, call.id or f"call_{token_hex(12)}", name
        return True

    def arguments(self, call: chat.ToolCall, *, is_open: bool) -> str:
        """Return the arguments in this part. `is_open` means that the last call has not ended.

        Raises `UpstreamInvalidError` for a part of an earlier call: other APIs send one call after
        another.
        """
        text = (call.function and call.function.arguments) or ""
        if text and ((call.index or 0) != self._index or not is_open):
            raise UpstreamInvalidError(
                "The provider mixes the parts of several tool calls, which the client's API cannot "
                "carry. Disable parallel tool calls."
            )
        return text

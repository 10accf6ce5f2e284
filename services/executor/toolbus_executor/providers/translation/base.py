"""The interface of a translation between the API of a client and the API of a provider."""

from typing import Any, Protocol

from toolbus_common.errors import ToolbusError
from toolbus_executor.providers.translation.decoded_facts import DecodedFacts
from toolbus_executor.providers.usage import Facts


class StreamTranslation(Protocol):
    """The translation of one streamed response.

    `facts` are those that the translation collects; None if they are read from the provider's
    events. `failure` is set when the client's stream contains the failure.
    """

    facts: DecodedFacts | None

    @property
    def failure(self) -> ToolbusError | None:
        """Why the response failed; a `ModelRefusedError` if the provider sent an error."""
        ...

    def feed(self, event: str, data: bytes) -> bytes:
        """Return the client's part of the event stream for one event of the provider's stream.

        `event` is the event's name (empty for none) and `data` is its data. The result can be
        empty. Raises `UpstreamInvalidError` for an event that cannot be translated.
        """
        ...

    def end(self) -> bytes:
        """Return the rest of the client's event stream, after the last event of the provider."""
        ...


class Translation(Protocol):
    """The translation of one request and its response. It can depend on the request.

    `provider_method` is the method of the provider's API (see `model_calls.MODEL_METHODS`).
    """

    provider_method: str

    @property
    def facts(self) -> Facts | None:
        """The facts of the whole response, if `response` has read them; otherwise None."""
        ...

    def request(self, body: dict[str, Any]) -> dict[str, Any]:
        """Return the body for the provider. The client's body stays unchanged.

        `model` in the body must be the name at the provider, because the form of some fields
        depends on it. Raises `InvalidError` for a field that the provider's API cannot carry.
        """
        ...

    def response(self, body: dict[str, Any]) -> dict[str, Any]:
        """Return the body for the client. Raises `UpstreamInvalidError`."""
        ...

    def stream(self) -> StreamTranslation:
        """Return the translation of the streamed response."""
        ...

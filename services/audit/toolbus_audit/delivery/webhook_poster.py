"""Post signed bodies to webhooks."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from toolbus_common.config import Webhook
from toolbus_common.egress.http_client import HttpClient
from toolbus_common.egress.http_messages import HttpError, HttpRequest

LARGEST_RESPONSE = 4096  # bytes of a response that are read


@dataclass(frozen=True, slots=True)
class WebhookPoster:
    """Poster to webhooks.

    `is_operator_named` returns whether the operator (not an API caller) configured a webhook.
    """

    http: HttpClient
    is_operator_named: Callable[[Webhook], bool]

    async def post(self, hook: Webhook, body: bytes, headers: Mapping[str, str]) -> None:
        """Post to a webhook; return when the webhook accepted the request. Raises `HttpError`."""
        named = self.is_operator_named(hook)
        response = await self.http.send(
            HttpRequest(
                "POST", hook.url, body, headers, operator_named=named,
                max_bytes=LARGEST_RESPONSE, cut=True,
            )
        )  # fmt: skip
        if not response.accepted:
            raise HttpError(f"it returned status {response.status}")

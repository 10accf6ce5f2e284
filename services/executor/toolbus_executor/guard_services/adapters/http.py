"""Guards of kind `http`: a service in the form of the common guardrail APIs."""

from collections.abc import Sequence
from typing import Any

from toolbus_common.config.guards.services import HttpOptions
from toolbus_executor.guard_services.adapters.base import (
    FROM_MODEL,
    CheckedContent,
    Limits,
    ServiceFindings,
)
from toolbus_executor.guard_services.adapters.client import ServiceClient
from toolbus_executor.guard_services.adapters.requests import request_about
from toolbus_executor.guard_services.adapters.responses import findings_of

MOST_TEXTS = 10_000


class HttpService:
    """A service at the guard's URL."""

    def __init__(self, client: ServiceClient, options: HttpOptions) -> None:
        self._client = client
        self._options = options
        self.limits = Limits(options.longest, options.longest, MOST_TEXTS, joined=False)
        self.depends_on_call = options.form != "openai"

    async def check(
        self, checked: CheckedContent, texts: Sequence[str], seconds: float
    ) -> ServiceFindings:
        """Ask the service about these texts, with one request."""
        response = await self._client.post(self._client.exact, self._body(checked, texts), seconds)
        return findings_of(response, len(texts))

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _body(self, checked: CheckedContent, texts: Sequence[str]) -> dict[str, Any]:
        options = self._options
        if options.form == "openai":
            return {"input": list(texts)} | ({"model": options.model} if options.model else {})
        if options.form == "litellm":
            return {
                "texts": list(texts),
                "request_data": {},
                "input_type": "response" if checked.phase in FROM_MODEL else "request",
                "litellm_call_id": checked.call.call_id,
                "additional_provider_specific_params": {},
            }
        return request_about(checked, texts, options.send)

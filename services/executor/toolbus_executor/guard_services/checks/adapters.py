"""Creation of the adapter of a guard's service, with the values of its secrets."""

from collections.abc import Callable, Mapping
from typing import Any, cast

from toolbus_common.config import Guard, Server
from toolbus_common.config.guards.services import (
    AWS_PAIR,
    KEY,
    BedrockOptions,
    McpOptions,
    ModelArmorOptions,
    options_of,
)
from toolbus_common.errors import UpstreamDeadError
from toolbus_common.secrets import Values, filled
from toolbus_executor.guard_services.adapters import azure, gray_swan, patronus
from toolbus_executor.guard_services.adapters.base import ServiceAdapter
from toolbus_executor.guard_services.adapters.bedrock import BedrockService
from toolbus_executor.guard_services.adapters.client import ServiceClient
from toolbus_executor.guard_services.adapters.http import HttpService
from toolbus_executor.guard_services.adapters.lakera import LakeraService
from toolbus_executor.guard_services.adapters.mcp import CallTool, McpService
from toolbus_executor.guard_services.adapters.model_armor import ModelArmorService
from toolbus_executor.known_secrets import KnownSecrets
from toolbus_executor.providers.endpoints.authorization import Authorization
from toolbus_executor.transport.dialer import Dialer
from toolbus_executor.transport.dialer_factory import DialerFactory

_HEADERS = {
    "azure_content_safety": azure.KEY_HEADER,
    "azure_prompt_shields": azure.KEY_HEADER,
    "patronus": patronus.KEY_HEADER,
    "gray_swan": gray_swan.KEY_HEADER,
}
_SERVICES: dict[str, Callable[[ServiceClient, Any], ServiceAdapter]] = {
    "http": HttpService,
    "bedrock": BedrockService,
    "azure_content_safety": azure.AzureContentSafety,
    "azure_prompt_shields": azure.AzurePromptShields,
    "patronus": patronus.PatronusService,
    "gray_swan": gray_swan.GraySwanService,
    "lakera": LakeraService,
}


def texts_of(guard: Guard) -> list[str]:
    """Return the configuration values that can contain references to secrets."""
    return [*guard.headers.values(), *guard.credentials.values()]


def create_adapter(
    guard: Guard, found: Values, dialers: DialerFactory, call_tool: CallTool
) -> ServiceAdapter:
    """Return the adapter of a guard's service.

    Raises:
        UpstreamDeadError: a library is missing, the credentials are invalid, or the guard may not
            use those of the machine.

    """
    options = options_of(guard.kind, guard.options)
    if isinstance(options, McpOptions):
        return McpService(call_tool, guard.server or "", guard.tool, options)
    if guard.ambient and not dialers.named.has(guard):
        raise UpstreamDeadError(
            "It uses the credentials of this machine, which only an operator may configure; "
            "configure the guard with 'toolbus apply'.",
            sent=False,
        )
    values = {name: filled(text, found) for name, text in guard.credentials.items()}
    headers = {name: filled(text, found) for name, text in guard.headers.items()}
    dialer = dialers.to(Server(url=guard.service_url), "")
    authorization = _authorization(guard, options, values, dialer)
    if authorization is None:
        headers = _key_header(guard.kind, values) | headers
    client = ServiceClient(guard.service_url, headers, dialer, authorization)
    if isinstance(options, ModelArmorOptions):
        return ModelArmorService(client, options, redacts=guard.action == "redact")
    return _SERVICES[guard.kind](client, options)


def _key_header(kind: str, values: Mapping[str, str]) -> dict[str, str]:
    if KEY not in values:
        return {}
    if kind in _HEADERS:
        return {_HEADERS[kind]: values[KEY]}
    return {"authorization": f"Bearer {values[KEY]}"}


def _authorization(
    guard: Guard, options: object, values: dict[str, str], dialer: Dialer
) -> Authorization | None:
    """Return the authorization of requests that are signed, or that have a token.

    The libraries are imported here, because most guards need none.
    """
    if isinstance(options, BedrockOptions) and (AWS_PAIR[0] in values or guard.ambient):
        from toolbus_executor.providers.endpoints.aws_signatures import (  # noqa: PLC0415
            AwsSignatures,
        )

        return AwsSignatures(guard.service_url, options.region, values)
    if guard.kind == "model_armor":
        from toolbus_executor.providers.endpoints.google_tokens import (  # noqa: PLC0415
            GoogleTokens,
        )

        return cast(
            "Authorization",
            GoogleTokens(values, dialer, KnownSecrets(values.values()), ambient=guard.ambient),
        )
    return None

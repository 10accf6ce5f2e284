"""Add the caller's tools to a model request, if the request or its key asks for it."""

from typing import Any

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType
from msgspec.structs import replace

from toolbus_common.access.principal import Principal
from toolbus_common.config import Injection, InjectionLimits
from toolbus_common.contracts import ProtocolFamily
from toolbus_common.contracts.model_calls import CHAT, COUNT_TOKENS, MESSAGES, RESPONSES
from toolbus_common.errors import InvalidError
from toolbus_common.mcp.builtin_server import Mode
from toolbus_common.model_api.tool_forms import Form
from toolbus_ingress.auth.request_context import Caller
from toolbus_ingress.auth.request_scope import INJECT, injection_of
from toolbus_ingress.catalog.tool_catalog import Catalogue
from toolbus_ingress.catalog.view_cache import ViewCache
from toolbus_ingress.http.request_guard import Headers
from toolbus_ingress.models_api.request_reader import InvalidBodyError, ModelRequest
from toolbus_ingress.models_api.tool_injection import AddedTools, added_tools, with_tools

_FORMS = {
    CHAT: Form.CHAT,
    RESPONSES: Form.RESPONSES,
    MESSAGES: Form.MESSAGES,
    COUNT_TOKENS: Form.MESSAGES,
}


class _OwnTools(Struct):
    tools: Raw | UnsetType = UNSET


class ToolInjector:
    """The tools that each caller may see, in the form of each API; encoded once until a change."""

    def __init__(self, catalogue: Catalogue, largest_body: int) -> None:
        self._catalogue = catalogue
        self._largest_body = largest_body
        self._added = ViewCache[AddedTools]()
        catalogue.on_change.append(self._added.clear)

    def added(
        self,
        request: ModelRequest,
        caller: Caller,
        principal: Principal,
        headers: Headers,
        default: Injection | None = None,
    ) -> AddedTools | None:
        """Return the tools to add to a request; None for none.

        `default` applies if neither the key nor the request says which tools to add.

        Raises:
            InvalidError: the header is unknown, or the tools are too many or too large.

        """
        mode = principal.own.inject or default
        if mode is None and INJECT not in headers:
            return None
        form = _FORMS.get(request.method)
        requested = injection_of(headers, mode)
        if form is None or requested is None:
            return None
        if principal.code_mode is False:
            requested = Mode.TOOLS  # as in lists of tools
        return self._tools(caller, form, requested, principal.declared.injection)

    def extended(self, request: ModelRequest, added: AddedTools) -> ModelRequest:
        """Return the request with added tools.

        Raises:
            InvalidError: the request is too large then, or the client has another tool of the same
                name.

        """
        body, count = self._extended(request.body, added)
        if len(body) > self._largest_body:
            raise InvalidError(
                f"The request has {len(body)} bytes with the added tools, and at most "
                f"{self._largest_body} are allowed. Send fewer messages, or restrict the tools "
                "with 'x-toolbus-tools'."
            )
        return replace(request, body=body, tools=count)

    @staticmethod
    def _extended(body: bytes, added: AddedTools) -> tuple[bytes, int]:
        try:
            own = msgspec.json.decode(body, type=_OwnTools).tools
            return with_tools(body, None if isinstance(own, UnsetType) else bytes(own), added)
        except RecursionError as error:
            raise InvalidBodyError(
                "The tools are nested too deeply. Send flatter schemas.", "tools"
            ) from error

    def _tools(self, caller: Caller, form: Form, mode: Mode, limits: InjectionLimits) -> AddedTools:
        key = (caller.grants, form, mode)
        added = self._added.get(key)
        if added is None:
            listed = self._catalogue.list_body(
                "tools/list", caller.grants, "", ProtocolFamily.LEGACY, mode
            )
            tools: list[dict[str, Any]] = msgspec.json.decode(listed)["tools"]
            added = added_tools(tools, form, limits)
            self._added.put(key, added, len(added.encoded))
        return added

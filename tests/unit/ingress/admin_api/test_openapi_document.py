"""The OpenAPI document of the REST APIs: complete, and the same as what is served."""

import json
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest

from harness.clients.admin_operations import admin_operations, openapi_document
from harness.services.rest_edge import RestEdge
from toolbus_common.admin_api.models import BY_PATTERN, KINDS, noun_of
from toolbus_common.admin_api.operations import OPERATIONS
from toolbus_common.admin_api.roles import ROLES, may
from toolbus_ingress.a2a import api as a2a
from toolbus_ingress.a2a.card import CARDS
from toolbus_ingress.models_api import handler as models_api
from toolbus_ingress.rest.application import Application
from toolbus_ingress.rest_application import build

APIS = {"administrator": "/api/v1/", "approver": "/api/approvals", "caller": "/v1/mcp/tools"}


def operation_of(operation_id: str) -> str:
    """Return the operation of policy that an operation of the document has performed."""
    for kind in KINDS:
        for verb, noun in (
            ("list", kind),
            *((v, noun_of(kind)) for v in ("show", "put", "delete")),
        ):
            if operation_id == f"{verb}_{noun}":
                return "list_entries" if verb == "list" else f"{verb}_entry"
    return operation_id


def every_operation() -> list[tuple[str, str, dict[str, Any]]]:
    return [
        (path, method, operation)
        for path, methods in openapi_document()["paths"].items()
        for method, operation in methods.items()
    ]


def is_of_models(path: str) -> bool:
    """Return whether a path is the models API's; the REST APIs below /v1/ are routed before it."""
    return models_api.serves(path) and not path.startswith(("/v1/mcp/", "/v1/agent/"))


def test_every_operation_of_policy_is_described() -> None:
    assert {operation_of(each.id) for each in admin_operations()} == set(OPERATIONS)
    assert {f"put_{noun_of(kind)}" for kind in KINDS} <= {each.id for each in admin_operations()}


def test_every_operation_names_the_roles_that_may_use_it() -> None:
    for operation in admin_operations():
        right = OPERATIONS[operation_of(operation.id)]
        assert operation.roles == tuple(r for r in ROLES if right is None or may(r, right))


def test_every_operation_is_described_with_its_credential_and_problems() -> None:
    ids = [operation["operationId"] for _, _, operation in every_operation()]
    assert len(set(ids)) == len(ids)
    for path, _, operation in every_operation():
        assert operation["summary"].endswith("."), operation
        assert operation["tags"]
        model = is_of_models(path) or a2a.serves(path)
        scheme = next((name for name, start in APIS.items() if path.startswith(start)), "")
        if model or path.startswith("/v1/agent/runs") or scheme == "caller":
            schemes = ["caller", "api_key"]
        else:
            schemes = [scheme] if scheme else []
        # Anybody may read the card of the gateway.
        without: list[dict[str, list[str]]] = [{}] if path in CARDS else []
        assert operation.get("security", []) == [*without, *({each: []} for each in schemes)]
        for status, response in operation["responses"].items():
            assert response["description"] not in ("", "Successful Response", "Validation Error")
            if int(status) >= 400:
                form = "application/json" if model else "application/problem+json"
                assert list(response["content"]) == [form]
        if schemes:
            assert {"400", "401", "431", "503"} <= set(operation["responses"])


def test_the_models_api_is_described_as_it_is_served() -> None:
    document = openapi_document()
    described = {
        (path, method.upper())
        for path, methods in document["paths"].items()
        for method in methods
        if is_of_models(path)
    }
    reads = {(models_api.MODELS, "GET"), (models_api.MODELS + "/{name}", "GET")}
    assert described == {(path, "POST") for path in models_api.METHODS} | reads
    assert document["components"]["securitySchemes"]["api_key"]["name"] == "x-api-key"
    for path in models_api.METHODS:
        operation = document["paths"][path]["post"]
        assert "requestBody" in operation
        streamed = "text/event-stream" in operation["responses"]["200"]["content"]
        assert streamed == (path not in ("/v1/embeddings", "/v1/messages/count_tokens"))


def test_the_document_is_the_same_when_it_is_generated_again() -> None:
    application = build(RestEdge().endpoint)
    first = json.dumps(application.openapi())
    assert json.dumps(application.openapi()) == first
    assert json.loads(application.document) == json.loads(first) == openapi_document()


def test_concurrent_first_requests_generate_the_document_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    application, generated = build(RestEdge().endpoint), []
    generate, readers = Application.openapi, Barrier(4)

    def counted(self: Application) -> dict[str, Any]:
        generated.append(1)
        return generate(self)

    def read(_number: int) -> bytes:
        readers.wait()
        return application.document

    monkeypatch.setattr(Application, "openapi", counted)
    with ThreadPoolExecutor(4) as threads:
        documents = set(threads.map(read, range(4)))
    assert (len(documents), len(generated)) == (1, 1)


def test_a_body_is_described_where_it_is_read() -> None:
    with_body = {each.id for each in admin_operations() if each.has_body}
    assert with_body == {
        "apply_configuration", "create_key", "replace_key", "create_admin", "approve_call",
        "reject_call", "purge_cache", "reset_flow_run", "show_audit_rows", "show_audit_events",
        "show_saved_rows", "show_explanation", "approve_definition", "reject_definition",
        "place_hold", "lift_hold", "erase_person", "show_rule_replay",
        *(f"put_{noun_of(kind)}" for kind in KINDS),
    }  # fmt: skip
    paths = openapi_document()["paths"]
    applied = paths["/api/v1/configuration"]["put"]["requestBody"]["content"]
    assert set(applied) == {"application/json", "application/yaml"}
    assert "requestBody" in paths["/v1/mcp/tools/execute"]["post"]


def test_every_reference_leads_to_a_schema() -> None:
    document = openapi_document()
    found = set(re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(document)))
    assert found <= set(document["components"]["schemas"])
    assert "HTTPValidationError" not in document["components"]["schemas"]


def test_number_limits_are_described_as_in_json_schema() -> None:
    document = json.dumps(openapi_document())
    assert not re.findall(r'"(?:ge|gt|le|lt|min_length|max_length)":', document)
    assert '"minimum": 183' in document


def test_names_that_must_match_a_pattern_exclude_all_others() -> None:
    assert _closed(openapi_document())


def _closed(schema: Any) -> bool:
    if isinstance(schema, list):
        return all(map(_closed, schema))
    if not isinstance(schema, dict):
        return True
    own = "patternProperties" not in schema or "additionalProperties" in schema
    return own and all(map(_closed, schema.values()))


async def test_a_path_reaches_its_own_operation_only() -> None:
    edge, name = RestEdge(), "0" * 32
    for operation in admin_operations():
        edge.reset()
        body = b"{}" if operation.has_body else b""
        path = operation.path.replace("{name}", name)
        answer = await edge.request(operation.method, path, body)
        assert answer.status < 300, (operation.id, answer)
        (query,) = edge.policy.queries
        assert query.model_dump()["operation"] == operation_of(operation.id)
        assert query.model_dump()["name"] == (name if "{name}" in operation.path else "")


def test_kinds_named_by_patterns_are_described_so() -> None:
    for kind in KINDS:
        path = openapi_document()["paths"][f"/api/v1/{kind}/{{name}}"]
        (name,) = (each for each in path["get"]["parameters"] if each["name"] == "name")
        assert ("maxLength" in name["schema"]) == (kind not in BY_PATTERN)


def test_a_start_of_ingress_does_not_import_fastapi() -> None:
    code = "import sys, toolbus_ingress.main; print({'fastapi', 'starlette'} & set(sys.modules))"
    command = [sys.executable, "-c", code]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert shown.strip() == "set()"

"""The own APIs of Gemini and Amazon Bedrock: strict checks of bodies by their published types."""

import base64
import re
from functools import cache
from typing import Any

import botocore.session
from google.ai.generativelanguage_v1beta import types
from google.protobuf import json_format

THINKING_LEVELS = {"minimal", "low", "medium", "high"}


def check_gemini_request(body: dict[str, Any]) -> None:
    """Raise an exception unless the body is a request of `generateContent`.

    The published types do not have `thinkingLevel` yet.
    """
    body = dict(body)
    configuration = dict(body.get("generationConfig", {}))
    thinking = dict(configuration.get("thinkingConfig", {}))
    assert thinking.pop("thinkingLevel", "low") in THINKING_LEVELS
    if thinking:
        configuration["thinkingConfig"] = thinking
    else:
        configuration.pop("thinkingConfig", None)
    calling = body.get("toolConfig", {}).get("functionCallingConfig", {})
    assert not calling.get("allowedFunctionNames") or calling["mode"] in ("ANY", "VALIDATED")
    parsed = types.GenerateContentRequest.pb()()
    json_format.ParseDict(body | {"generationConfig": configuration}, parsed)
    assert parsed.contents
    for content in parsed.contents:
        assert content.role in ("user", "model")
        assert content.parts
        assert all(part.WhichOneof("data") for part in content.parts)


def check_gemini_response(body: Any) -> None:
    """Raise an exception unless the body is a response or an event of a stream."""
    json_format.ParseDict(body, types.GenerateContentResponse.pb()())


def check_gemini_count(body: dict[str, Any]) -> None:
    """Raise an exception unless the body is a request of `countTokens`."""
    json_format.ParseDict(body, types.CountTokensRequest.pb()())
    assert body["generateContentRequest"]["model"].startswith("models/")


def check_embeddings_request(body: dict[str, Any]) -> None:
    """Raise an exception unless the body is a request of `batchEmbedContents`."""
    parsed = types.BatchEmbedContentsRequest.pb()()
    json_format.ParseDict(body, parsed)
    assert all(each.content.parts and each.model for each in parsed.requests)


def check_converse(operation: str, body: dict[str, Any], *, output: bool = False) -> None:
    """Raise an exception unless the body fits the operation in botocore's service model."""
    model = _service().operation_model(operation)
    shape = model.output_shape if output else model.input_shape
    if output:
        _check(shape, body, "$")
        return
    own = {"modelId": "m"} if "modelId" in shape.members else {}
    _check(shape, own | body, "$")
    for message in body.get("messages", []):
        assert message["content"]


def check_converse_event(name: str, body: dict[str, Any]) -> None:
    """Raise an exception unless the body fits this event of a stream."""
    stream = _service().operation_model("ConverseStream").output_shape.members["stream"]
    _check(stream.members[name], body, f"$.{name}")


def check_bedrock_list(operation: str, body: dict[str, Any], query: dict[str, str]) -> None:
    """Raise an exception unless the body and the query fit this operation on lists of models."""
    model = _service("bedrock").operation_model(operation)
    names = {shape.serialization["name"]: name for name, shape in model.input_shape.members.items()}
    sent: dict[str, Any] = {names[name]: value for name, value in query.items()}
    if "maxResults" in sent:
        sent["maxResults"] = int(sent["maxResults"])
        assert sent["maxResults"] <= model.input_shape.members["maxResults"].metadata["max"]
    _check(model.input_shape, sent, "$")
    _check(model.output_shape, body, "$")


@cache
def _service(name: str = "bedrock-runtime") -> Any:
    return botocore.session.Session().get_service_model(name)


def _check(shape: Any, value: Any, path: str) -> None:
    kind = shape.type_name
    if getattr(shape, "is_document_type", False):
        return
    if kind == "structure":
        assert isinstance(value, dict), path
        assert value.keys() <= shape.members.keys(), f"{path}: {value.keys()}"
        assert set(shape.required_members) <= value.keys(), f"{path}: {value.keys()}"
        assert not shape.is_tagged_union or len(value) == 1, f"{path}: {value.keys()}"
        for name, each in value.items():
            _check(shape.members[name], each, f"{path}.{name}")
    elif kind == "list":
        assert isinstance(value, list), path
        assert len(value) >= shape.metadata.get("min", 0), path
        for each in value:
            _check(shape.member, each, f"{path}[]")
    elif kind == "map":
        assert isinstance(value, dict), path
    elif kind == "blob":
        base64.b64decode(value, validate=True)
    elif kind == "string":
        assert isinstance(value, str), path
        metadata = shape.metadata
        assert len(value) >= metadata.get("min", 0), path
        assert len(value) <= metadata.get("max", 10**9), path
        assert value in metadata.get("enum", [value]), f"{path}: {value}"
        assert re.fullmatch(metadata.get("pattern", "(?s).*"), value), f"{path}: {value}"
    elif kind in ("integer", "long", "float", "double"):
        assert isinstance(value, int | float), path
        assert not isinstance(value, bool), path
    elif kind == "timestamp":
        assert isinstance(value, str), path
    else:
        assert kind == "boolean", kind
        assert isinstance(value, bool), path

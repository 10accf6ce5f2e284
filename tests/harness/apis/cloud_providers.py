"""Answers of Gemini, Vertex AI and Amazon Bedrock for `ModelProvider`, with strict checks."""

import json
import struct
from binascii import crc32
from typing import Any
from urllib.parse import parse_qs, urlsplit

import jwt
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from harness.apis.model_provider import ModelProvider, ModelRequest
from harness.models import own_api_types
from toolbus_common.config import Provider
from toolbus_common.contracts.model_calls import CHAT, MESSAGES, RESPONSES

PIECES = ("Hello", " there")  # of the generated text
HI = [{"role": "user", "content": "Hi"}]
BODIES: dict[str, dict[str, Any]] = {
    CHAT: {"model": "team", "messages": HI, "stream_options": {"include_usage": True}},
    MESSAGES: {"model": "team", "messages": HI, "max_tokens": 9},
    RESPONSES: {"model": "team", "input": "Hi"},
}
ACCESS_KEY, SECRET_KEY, REGION = "AKIAEXAMPLE", "secret-of-the-pair-of-keys", "eu-central-1"
GEMINI_USAGE = {"promptTokenCount": 10, "candidatesTokenCount": 3, "thoughtsTokenCount": 1}
CONVERSE_USAGE = {"inputTokens": 8, "cacheReadInputTokens": 2, "outputTokens": 4, "totalTokens": 14}
PRIVATE = rsa.generate_private_key(public_exponent=65537, key_size=2048)
NEXT_PAGE = "next/page+=="
TOKEN = "ya29.a-token-of-the-service-account"


def service_account(url: str) -> str:
    """Return the key of a service account whose tokens come from this server."""
    pem = PRIVATE.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    fields = {
        "type": "service_account",
        "client_email": "toolbus@my-project.iam.gserviceaccount.com",
        "private_key_id": "1",
        "private_key": pem.decode(),
        "token_uri": url,
    }
    return json.dumps(fields)


async def gemini(request: ModelRequest) -> None:
    """Answer a request of the Gemini API or of Vertex AI; a stream in two events."""
    if request.path.endswith("/token"):
        await _token(request)
        return
    body, path = request.json, urlsplit(request.path)
    verb = path.path.rpartition(":")[2]
    if verb == "countTokens":
        await request.reply({"totalTokens": 42})
    elif verb == "batchEmbedContents":
        own_api_types.check_embeddings_request(body)
        await request.reply({"embeddings": [{"values": [0.5, 1.0]} for _ in body["requests"]]})
    elif verb == "predict":
        found = {"values": [0.5, 1.0], "statistics": {"token_count": 3, "truncated": False}}
        await request.reply({"predictions": [{"embeddings": found} for _ in body["instances"]]})
    elif verb == "generateContent":
        own_api_types.check_gemini_request(body)
        await request.reply(_generated("".join(PIECES), "STOP", GEMINI_USAGE))
    else:
        assert (verb, path.query) == ("streamGenerateContent", "alt=sse")
        own_api_types.check_gemini_request(body)
        await request.begin_stream()
        for event in (_generated(PIECES[0], "", {"promptTokenCount": 10}),
                      _generated(PIECES[1], "STOP", GEMINI_USAGE)):  # fmt: skip
            await request.send(b"data: %b\r\n\r\n" % json.dumps(event).encode())
        await request.end_stream()


async def bedrock(request: ModelRequest) -> None:
    """Answer a request of Amazon Bedrock; a stream in AWS's binary form."""
    body, path = request.json, request.path
    if path.endswith("/count-tokens"):
        own_api_types.check_converse("CountTokens", body)
        await request.reply({"inputTokens": 42})
        return
    own_api_types.check_converse("Converse", body)
    if path.endswith("/converse"):
        message = {"role": "assistant", "content": [{"text": "".join(PIECES)}]}
        answer = {"output": {"message": message}, "stopReason": "end_turn"}
        await request.reply(answer | {"usage": CONVERSE_USAGE, "metrics": {"latencyMs": 1}})
        return
    await request.begin_stream("application/vnd.amazon.eventstream")
    stream = b"".join(frame(name, event) for name, event in converse_events())
    half = len(stream) // 2  # within an event
    await request.send(stream[:half])
    await request.send(stream[half:])
    await request.end_stream()


def converse_events() -> list[tuple[str, dict[str, Any]]]:
    """Return the events of a stream with two parts of text."""
    events: list[tuple[str, dict[str, Any]]] = [("messageStart", {"role": "assistant"})]
    events += [
        ("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": text}}) for text in PIECES
    ]
    events += [
        ("contentBlockStop", {"contentBlockIndex": 0}),
        ("messageStop", {"stopReason": "end_turn"}),
        ("metadata", {"usage": CONVERSE_USAGE, "metrics": {"latencyMs": 1}}),
    ]
    for name, event in events:
        own_api_types.check_converse_event(name, event)
    return events


def frame(name: str, event: dict[str, Any], kind: str = "event") -> bytes:
    """Return an event in AWS's binary form. `kind` is `event` or `exception`."""
    headers = b""
    for header, value in ((f":{kind}-type", name), (":message-type", kind)):
        headers += struct.pack("!B", len(header)) + header.encode()
        headers += struct.pack("!BH", 7, len(value)) + value.encode()
    payload = json.dumps(event).encode()
    prelude = struct.pack("!II", len(headers) + len(payload) + 16, len(headers))
    prelude += struct.pack("!I", crc32(prelude))
    message = prelude + headers + payload
    return message + struct.pack("!I", crc32(message))


def check_signature(request: ModelRequest) -> None:
    """Raise an exception unless the request is signed with the pair of keys."""
    sent = request.headers
    fields = {"content-type": sent["content-type"]}
    url = f"http://{sent['host']}{request.path}"
    method = "POST" if request.body else "GET"
    expected = AWSRequest(method, url, data=request.body, headers=fields)
    signer = SigV4Auth(Credentials(ACCESS_KEY, SECRET_KEY), "bedrock", REGION)
    expected.context["timestamp"] = sent["x-amz-date"]
    expected.headers["X-Amz-Date"] = sent["x-amz-date"]
    to_sign = signer.string_to_sign(expected, signer.canonical_request(expected))
    assert sent["authorization"].endswith(f"Signature={signer.signature(to_sign, expected)}")
    assert f"Credential={ACCESS_KEY}/" in sent["authorization"]


async def bedrock_lists(request: ModelRequest) -> None:
    """Answer a request for models, or for a page with one inference profile of two."""
    path = urlsplit(request.path)
    query = {name: value for name, (value,) in parse_qs(path.query).items()}
    region = f"arn:aws:bedrock:{REGION}:"
    body: dict[str, Any]
    if path.path.endswith("/foundation-models"):
        body = {"modelSummaries": [
            {"modelArn": f"{region}:foundation-model/{name}", "modelId": name,
             "modelName": "Nova", "providerName": "Amazon", "inputModalities": ["TEXT"],
             "outputModalities": ["TEXT"], "inferenceTypesSupported": ["ON_DEMAND"],
             "modelLifecycle": {"status": "ACTIVE"}}
            for name in ("amazon.nova-lite-v1:0",)
        ]}  # fmt: skip
        own_api_types.check_bedrock_list("ListFoundationModels", body, query)
    else:
        page = query.get("nextToken", "")
        name = "eu.anthropic.claude-2" if page else "eu.anthropic.claude-1"
        arn = f"{region}123456789012:inference-profile/{name}"
        model = {"modelArn": f"{region}:foundation-model/{name.removeprefix('eu.')}"}
        body = {"inferenceProfileSummaries": [
            {"inferenceProfileId": name, "inferenceProfileName": "EU Claude", "models": [model],
             "inferenceProfileArn": arn, "status": "ACTIVE", "type": "SYSTEM_DEFINED"}
        ]}  # fmt: skip
        more = {} if page else {"nextToken": NEXT_PAGE}
        own_api_types.check_bedrock_list("ListInferenceProfiles", body | more, query)
        body |= more
    await request.reply(body)


async def vertex_lists(request: ModelRequest) -> None:
    """Answer a request for the models of a publisher, as `publishers.models.list` of v1beta1."""
    if request.path.endswith("/token"):
        await _token(request)
        return
    path = urlsplit(request.path)
    query = {name: value for name, (value,) in parse_qs(path.query).items()}
    name = "claude-opus-4-6" if "/anthropic/" in path.path else "gemini-2.5-flash"
    more = {} if "/anthropic/" in path.path else {"nextPageToken": NEXT_PAGE}
    if query.get("pageToken") == NEXT_PAGE:
        name, more = "gemini-2.5-pro", {}
    models = [{"name": f"{path.path.partition('v1beta1/')[2]}/{name}", "versionId": "default"}]
    await request.reply({"publisherModels": models, **more})


async def _token(request: ModelRequest) -> None:
    """Issue a token for the assertion of the service account."""
    (assertion,) = parse_qs(request.body.decode())["assertion"]
    claims = jwt.decode(assertion, PRIVATE.public_key(), ["RS256"], options={"verify_aud": False})
    assert claims["scope"] == "https://www.googleapis.com/auth/cloud-platform"
    await request.reply({"access_token": TOKEN, "expires_in": 3600, "token_type": "Bearer"})


def _generated(text: str, reason: str, usage: dict[str, int]) -> dict[str, Any]:
    candidate: dict[str, Any] = {"content": {"parts": [{"text": text}], "role": "model"}}
    if reason:
        candidate["finishReason"] = reason
    made = {"candidates": [candidate], "usageMetadata": usage, "modelVersion": "m"}
    own_api_types.check_gemini_response(made)
    return made


def cloud_provider(kind: str, model: ModelProvider, **more: Any) -> Provider:
    """Return the configuration of a provider of this kind."""
    fields: dict[str, Any] = {"kind": kind, "url": model.url, "models": ["m"]}
    if kind == "gemini":
        fields["key"] = "key-of-gemini"
    elif kind == "vertex":
        token = f"{model.url}/token"
        fields |= {"key": service_account(token), "project": "p-1", "location": "global"}
    else:
        pair = {"access_key": ACCESS_KEY, "secret_key": SECRET_KEY}
        fields |= {"credentials": pair, "region": REGION}
    return Provider(**(fields | more))

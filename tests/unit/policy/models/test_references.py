"""Content of model requests that is not in the body, and so has an unknown number of tokens."""

import pytest

from harness.builders.calls import requested_call
from toolbus_common.access.config_snapshot import ConfigSnapshot, hash_of
from toolbus_common.config import Configuration, Provider
from toolbus_common.contracts.model_calls import CHAT, COUNT_TOKENS, ModelCall
from toolbus_policy.admission.authorizer import Authorizer
from toolbus_policy.models.references import names_content
from toolbus_policy.models.requests import sized

KEY_DIGEST = "d" * 64
LOCAL = {"kind": "openai", "url": "http://127.0.0.1:8081/v1", "max_input": 5000}

PDF = b'{"type":"document","source":{"type" : "url","url":"https://a.example/b"}}'
IMAGE = b'{"type":"image_url","image_url":{"detail":"}","url":"HTTPS://a.example/b"}}'
DATA = b'{"type":"image_url","image_url":{"url":"data:image/png;base64,aA=="}}'
TOOL = b'{"name":"fetch","parameters":{"file_id":{"type":"string"},"url":{"type":"string"}}}'


@pytest.mark.parametrize(
    ("body", "kinds"),
    [
        (PDF, ("openai", "gemini")),
        (b'{"type":"input_file","file_url": "https://a.example/b"}', ("openai", "gemini")),
        (b'{"type":"input_file","file\\u005furl":"https://a.example/b"}', ("openai", "gemini")),
        (b'{"type":"file","file":{"file_id":"f"}}', ("openai", "gemini")),
        (b'{"type":"file","file":{"file_data":"https://a.example/b"}}', ("openai", "gemini")),
        (b'{"type":"file","file":{"file_data":"\\u0068ttps://a.example/b"}}', ("openai", "gemini")),
        (b'{"type":"video_url","video_url":{"url":"https://a.example/b"}}', ("openai", "gemini")),
        (IMAGE, ("gemini",)),
        (b'{"type":"input_image","image_url":"https://a.example/b"}', ("gemini",)),
        (b'{"type":"image","source":{"type":"url","url":"https://a.example/b"}}', ("gemini",)),
        (DATA, ()),
        (b'{"type":"file","file":{"file_data":"data:application/pdf;base64,aA=="}}', ()),
        (TOOL, ()),
        (rb'{"text":"a \"file_url\": \"https://a.example\", caf\u00e9 \u003c"}', ()),
    ],
)
def test_content_that_a_body_only_names_is_recognized(body: bytes, kinds: tuple[str, ...]) -> None:
    for kind in ("openai", "gemini"):
        provider = Provider(kind=kind, url="http://127.0.0.1:8081/v1", credentials={"key": "k"})
        assert names_content(body, provider) == (kind in kinds)


@pytest.mark.parametrize(
    ("method", "body", "tokens"),
    [(CHAT, b"x" * 30, 10), (CHAT, PDF, 5000), (COUNT_TOKENS, PDF, 0)],
)
def test_the_largest_input_is_reserved_for_such_content(
    method: str, body: bytes, tokens: int
) -> None:
    declared = {
        "providers": {"p": LOCAL},
        "model_prices": {"p/m": {"input": 2.0, "output": 0.0}},
        "keys": {"bot": {"secret_hash": hash_of(KEY_DIGEST), "models": ["*"]}},
    }
    authorizer = Authorizer(ConfigSnapshot.of(Configuration.model_validate(declared)), {})
    admission = authorizer.authorize(KEY_DIGEST, "p", method, "m", 0.0, ())
    call = requested_call(
        server="p", tool="m", method=method, key_digest=KEY_DIGEST, arguments=body,
        extra=ModelCall(output=1).encode(),
    )  # fmt: skip
    assert admission.terms is not None
    assert sized(admission, admission.terms, call).charge == 2 * tokens

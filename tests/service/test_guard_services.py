"""Each service that checks content, at a server with its published API."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from harness.apis import cloud_providers as clouds
from harness.apis.model_provider import Answer, ModelProvider, ModelRequest
from harness.guards import content_apis as apis
from harness.guards.running_guards import running_guards
from toolbus_common.config import Guard
from toolbus_common.errors import GuardFailedError

EVALUATORS = [{"evaluator": "judge", "criteria": "patronus:no-harm"}, {"evaluator": "pii"}]
CASES: dict[str, tuple[dict[str, Any], Answer, str, str]] = {
    "http": ({}, apis.strict(apis.generic, "authorization", f"Bearer {apis.KEY}"), "evil", "card"),
    "litellm": (
        {"kind": "http", "options": {"form": "litellm"}},
        apis.strict(apis.litellm, "authorization", f"Bearer {apis.KEY}"),
        "flagged",
        "flagged",
    ),
    "openai": (
        {"kind": "http", "options": {"form": "openai", "model": "omni-moderation-latest"}},
        apis.strict(apis.openai, "authorization", f"Bearer {apis.KEY}"),
        "violence",
        "",
    ),
    "bedrock": (
        {
            "key": "",
            "credentials": {"access_key": clouds.ACCESS_KEY, "secret_key": clouds.SECRET_KEY},
            "options": {"guardrail": "abc123", "version": "4", "region": clouds.REGION},
        },
        apis.strict(apis.bedrock, ""),
        "content:VIOLENCE",
        "pii:CREDIT_DEBIT_CARD_NUMBER",
    ),
    "azure_content_safety": (
        {"options": {"blocklists": ["cards"], "severity": {"Violence": 4, "Hate": 2}}},
        apis.strict(apis.azure_content_safety, "ocp-apim-subscription-key"),
        "Violence",
        "",
    ),
    "azure_prompt_shields": (
        {},
        apis.strict(apis.azure_prompt_shields, "ocp-apim-subscription-key"),
        "document_attack",
        "",
    ),
    "patronus": (
        {"options": {"evaluators": EVALUATORS}},
        apis.strict(apis.patronus, "x-api-key"),
        "judge:patronus:no-harm",
        "pii",
    ),
    "gray_swan": (
        {"options": {"policy": "p-1", "rules": {"cards": "No card numbers."}}},
        apis.strict(apis.gray_swan, "grayswan-api-key"),
        "Harmful_acts",
        "",
    ),
    "lakera": (
        {"options": {"project": "project-1"}},
        apis.strict(apis.lakera, "authorization", f"Bearer {apis.KEY}"),
        "prompt_attack",
        "pii/credit_card",
    ),
    "model_armor": (
        {"options": {"project": "p-1", "location": "us-central1", "template": "t_1"}},
        apis.strict(apis.model_armor, "authorization", f"Bearer {clouds.TOKEN}"),
        "pi_and_jailbreak",
        "sdp:CREDIT_CARD_NUMBER",
    ),
}
REDACTING = [name for name, case in CASES.items() if case[3]]
HELLO = {"content": [{"type": "text", "text": "Hello there"}], "rows": [1, 2.5, None, True]}
BAD = {"content": [{"type": "text", "text": "Do something evil now"}]}
PAID = {"content": [{"type": "text", "text": "Grüße 🙂, card 4111-1111."}], "n": 17}


def guard(name: str, url: str, **more: Any) -> Guard:
    """Return the guard of a case, with its service at `url`."""
    own = CASES[name][0]
    path = "/v1/check" if name == "http" else "/v1"
    fields: dict[str, Any] = {
        "kind": name,
        "on": ["results", "prompts"],
        "action": "block",
        "timeout": 30,
        "url": url.removesuffix("/v1") + path,
        "key": apis.KEY,
    }
    if name == "model_armor":
        fields["key"] = clouds.service_account(f"{url}/token")
    made = fields | own | more
    return Guard.model_validate({each: value for each, value in made.items() if value != ""})


def answers(name: str) -> Answer:
    """Return the answers of a case's API, and the tokens of Google."""
    api = CASES[name][1]

    async def answer(request: ModelRequest) -> None:
        await (clouds.gemini if request.path.endswith("/token") else api)(request)

    return answer


@pytest.mark.parametrize("name", CASES)
async def test_harmless_content_passes_and_a_finding_is_named(
    name: str, model: ModelProvider
) -> None:
    model.answer = answers(name)
    async with running_guards({"g": guard(name, model.url)}) as guards:
        passed = await guards.check("g", HELLO)
        assert (passed.findings, passed.score, passed.content) == ((), 0.0, "")
        found = await guards.check("g", BAD)
        assert CASES[name][2] in found.findings
        assert 0.5 < found.score <= 1.0
        assert found.content == ""
        row = guards.status("g")
        assert (row["state"], row["breaker"], row["last_failure"]) == ("ready", "closed", "")
        assert row["latency_ms"] > 0


@pytest.mark.parametrize("name", REDACTING)
async def test_a_service_that_names_places_or_returns_texts_can_redact(
    name: str, model: ModelProvider
) -> None:
    model.answer = answers(name)
    async with running_guards({"g": guard(name, model.url, action="redact")}) as guards:
        found = await guards.check("g", PAID)
        assert found.findings == (CASES[name][3],)
        text = json.loads(found.content)["content"][0]["text"]
        assert apis.CARD not in found.content
        assert text.startswith("Grüße 🙂, card [")
        assert text.endswith("].")
        assert json.loads(found.content)["n"] == 17
        both = await guards.check("g", [PAID, BAD])
        assert both.content == ""  # the place of the other finding is unknown


@pytest.mark.parametrize("name", sorted(set(CASES) - {"bedrock", "model_armor"}))
async def test_a_rejected_key_fails_with_what_to_change_and_without_the_key(
    name: str, model: ModelProvider, caplog: pytest.LogCaptureFixture
) -> None:
    model.answer = answers(name)
    async with running_guards({"g": guard(name, model.url, key="wrong-secret")}) as guards:
        with pytest.raises(GuardFailedError) as failed:
            await guards.check("g", BAD)
        assert "rejected the credentials (HTTP 401); correct the guard's 'key'" in str(failed.value)
        assert failed.value.data == {"guard": "g", "phase": "results"}
        for secret in ("wrong-secret", apis.EVIL):
            assert secret not in str(failed.value)
            assert secret not in json.dumps(guards.status("g"))
            assert secret not in caplog.text


async def test_a_wrong_pair_of_keys_of_aws_fails(model: ModelProvider) -> None:
    model.answer = answers("bedrock")
    pair = {"access_key": clouds.ACCESS_KEY, "secret_key": "wrong-secret"}
    async with running_guards({"g": guard("bedrock", model.url, credentials=pair)}) as guards:
        with pytest.raises(GuardFailedError, match="rejected the request"):
            await guards.check("g", HELLO)


async def test_one_token_of_google_serves_several_checks(model: ModelProvider) -> None:
    model.answer = answers("model_armor")
    async with running_guards({"g": guard("model_armor", model.url)}) as guards:
        await guards.check("g", HELLO)
        await guards.check("g", BAD)
        assert [each.path.endswith("/token") for each in model.requests] == [True, False, False]


@pytest.mark.parametrize(
    ("name", "phase", "seen"),
    [
        ("bedrock", "prompts", lambda body: body["source"] == "INPUT"),
        ("bedrock", "arguments", lambda body: body["source"] == "OUTPUT"),
        ("azure_prompt_shields", "prompts", lambda body: set(body) == {"userPrompt"}),
        ("azure_prompt_shields", "results", lambda body: set(body) == {"documents"}),
        ("patronus", "prompts", lambda body: "task_input" in body),
        ("patronus", "results", lambda body: "task_output" in body),
        ("gray_swan", "results", lambda body: body["messages"][0]["role"] == "tool"),
        ("gray_swan", "prompts", lambda body: body["messages"][0]["role"] == "user"),
        ("lakera", "completions", lambda body: body["messages"][0]["role"] == "assistant"),
        ("model_armor", "completions", lambda body: set(body) == {"modelResponseData"}),
        ("model_armor", "results", lambda body: set(body) == {"userPromptData"}),
        ("http", "prompts", lambda body: body["phase"] == "prompts" and body["tool"] == "search"),
        ("litellm", "completions", lambda body: body["input_type"] == "response"),
    ],
)
async def test_the_phase_decides_how_the_content_is_described(
    name: str, phase: str, seen: Callable[[Any], bool], model: ModelProvider
) -> None:
    model.answer = answers(name)
    async with running_guards({"g": guard(name, model.url)}) as guards:
        await guards.check("g", HELLO, phase)
        assert seen(model.requests[-1].json)


async def test_only_the_named_rules_count(model: ModelProvider) -> None:
    model.answer = answers("patronus")
    guards_ = {
        "one": guard("patronus", model.url, rules=["pii"]),
        "but": guard("patronus", model.url, except_rules=["pii"]),
    }
    async with running_guards(guards_) as guards:
        assert (await guards.check("one", BAD)).findings == ()
        assert (await guards.check("one", PAID)).findings == ("pii",)
        assert (await guards.check("but", PAID)).findings == ()


async def test_a_key_is_read_from_its_reference(model: ModelProvider) -> None:
    model.answer = answers("lakera")
    reference = guard("lakera", model.url, key="${env:LAKERA_KEY}")
    async with running_guards({"g": reference}, environ={"LAKERA_KEY": apis.KEY}) as guards:
        assert (await guards.check("g", HELLO)).findings == ()
    async with running_guards({"g": reference}) as guards:
        with pytest.raises(GuardFailedError, match="LAKERA_KEY"):
            await guards.check("g", HELLO)

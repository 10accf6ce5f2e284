"""The published APIs of services that check content, for `ModelProvider`, with strict checks.

A request with a wrong key, an unknown field or a missing field gets the error of the API. Text with
`evil` is flagged, and `4111-1111` is personal data.
"""

import re
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

from harness.apis import cloud_providers as clouds
from harness.apis.model_provider import Answer, ModelRequest
from harness.models.own_api_types import check_converse

KEY = "key-of-the-service"
EVIL, CARD = "evil", "4111-1111"
_ALL = {"Hate", "SelfHarm", "Sexual", "Violence"}


class WrongRequestError(Exception):
    """A request that the API rejects."""


def strict(check: Callable[[ModelRequest], Any], header: str, value: str = KEY) -> Answer:
    """Return the answers of an API. `header` has the key; `check` returns the response."""

    async def answer(request: ModelRequest) -> None:
        if header and request.headers.get(header) != value:
            await request.reply({"error": {"message": f"wrong key: {request.headers}"}}, 401)
            return
        try:
            await request.reply(check(request))
        except Exception as error:  # noqa: BLE001 - the request is rejected
            await request.reply({"error": {"message": f"{error!r} {request.body!r}"}}, 400)

    return answer


def fields(value: Any, required: dict[str, type], **optional: type) -> dict[str, Any]:
    """Return an object. Raise an error if it has other fields than these."""
    expect(isinstance(value, dict), "an object")
    for name, kind in required.items():
        expect(isinstance(value.get(name), kind), name)
    for name, kind in optional.items():
        expect(name not in value or isinstance(value[name], kind), name)
    unknown = set(value) - set(required) - set(optional)
    expect(not unknown, f"only known fields, not {unknown}")
    return dict(value)


def expect(condition: object, what: str) -> None:
    """Reject the request unless the condition is true."""
    if not condition:
        raise WrongRequestError(what)


def generic(request: ModelRequest) -> Any:
    """Answer a request in the form of Toolbus."""
    expect(request.path == "/v1/check", "the path")
    body = fields(
        request.json,
        {"phase": str, "server": str, "tool": str, "customer": str, "texts": list},
    )
    redacted = [each.replace(CARD, "[card]") for each in body["texts"]]
    if any(EVIL in each for each in body["texts"]):
        return {"flagged": True, "findings": [{"rule": "evil", "score": 0.9}], "version": "7"}
    if redacted != body["texts"]:
        return {"action": "redact", "findings": ["card"], "texts": redacted, "score": 0.8}
    return {"flagged": False}


def litellm(request: ModelRequest) -> Any:
    """Answer a request of the generic guardrail API of LiteLLM."""
    body = fields(
        request.json,
        {"texts": list, "request_data": dict, "input_type": str, "litellm_call_id": str},
        additional_provider_specific_params=dict,
    )
    expect(body["input_type"] in ("request", "response"), "the type")
    if any(EVIL in each for each in body["texts"]):
        return {"action": "BLOCKED", "blocked_reason": f"it has {EVIL}"}
    redacted = [each.replace(CARD, "[card]") for each in body["texts"]]
    if redacted != body["texts"]:
        return {"action": "GUARDRAIL_INTERVENED", "texts": redacted}
    return {"action": "NONE"}


def openai(request: ModelRequest) -> Any:
    """Answer a request of the moderation API of OpenAI."""
    body = fields(request.json, {"input": list}, model=str)
    results = [
        {
            "flagged": EVIL in each,
            "categories": {"violence": EVIL in each, "hate": False},
            "category_scores": {"violence": 0.97 if EVIL in each else 0.01, "hate": 0.0},
        }
        for each in body["input"]
    ]
    return {"id": "modr-1", "model": body.get("model", ""), "results": results}


def bedrock(request: ModelRequest) -> Any:
    """Answer ApplyGuardrail. botocore's model checks the request and the response."""
    clouds.check_signature(request)
    path = re.fullmatch(r"/v1/guardrail/([^/]+)/version/([^/]+)/apply", request.path)
    expect(path, "the path")
    assert path is not None
    where = {"guardrailIdentifier": unquote(path[1]), "guardrailVersion": path[2]}
    check_converse("ApplyGuardrail", request.json | where)
    text = " ".join(each["text"]["text"] for each in request.json["content"])
    assessment: dict[str, Any] = {}
    if EVIL in text:
        found = {"type": "VIOLENCE", "confidence": "MEDIUM", "action": "BLOCKED"}
        idle = {"type": "HATE", "confidence": "LOW", "action": "NONE"}
        assessment["contentPolicy"] = {"filters": [found, idle]}
    if CARD in text:
        entity = {"type": "CREDIT_DEBIT_CARD_NUMBER", "match": CARD, "action": "ANONYMIZED"}
        assessment["sensitiveInformationPolicy"] = {"piiEntities": [entity], "regexes": []}
    names = ("topic", "content", "word", "sensitiveInformation", "contextualGrounding")
    usage = {f"{name}PolicyUnits": 1 for name in names} | {"sensitiveInformationPolicyFreeUnits": 1}
    made = {
        "usage": usage,
        "action": "GUARDRAIL_INTERVENED" if assessment else "NONE",
        "outputs": [{"text": "Blocked."}] if assessment else [],
        "assessments": [assessment],
    }
    check_converse("ApplyGuardrail", made, output=True)
    return made


def azure_content_safety(request: ModelRequest) -> Any:
    """Answer `text:analyze`."""
    expect(request.path == "/v1/contentsafety/text:analyze?api-version=2023-10-01", "the path")
    body = fields(
        request.json,
        {"text": str},
        categories=list,
        blocklistNames=list,
        haltOnBlocklistHit=bool,
        outputType=str,
    )
    expect(0 < len(body["text"]) <= 10_000, "the length")
    expect(set(body.get("categories", _ALL)) <= _ALL, "the categories")
    expect(body.get("outputType") in ("FourSeverityLevels", "EightSeverityLevels"), "the type")
    severity = 4 if EVIL in body["text"] else 0
    hits = [
        {"blocklistName": name, "blocklistItemId": "1", "blocklistItemText": CARD}
        for name in body.get("blocklistNames", ())
        if CARD in body["text"]
    ]
    return {
        "blocklistsMatch": hits,
        "categoriesAnalysis": [
            {"category": each, "severity": severity if each == "Violence" else 0}
            for each in body.get("categories", sorted(_ALL))
        ],
    }


def azure_prompt_shields(request: ModelRequest) -> Any:
    """Answer `text:shieldPrompt`."""
    expect(request.path == "/v1/contentsafety/text:shieldPrompt?api-version=2024-09-01", "the path")
    body = fields(request.json, {}, userPrompt=str, documents=list)
    expect(body.get("userPrompt") or body.get("documents"), "a prompt or a document")
    texts = [body.get("userPrompt", ""), *body.get("documents", ())]
    expect(sum(map(len, texts)) <= 10_000, "the length")
    answer: dict[str, Any] = {}
    if "userPrompt" in body:
        answer["userPromptAnalysis"] = {"attackDetected": EVIL in body["userPrompt"]}
    documents = body.get("documents", ())
    answer["documentsAnalysis"] = [{"attackDetected": EVIL in each} for each in documents]
    return answer


def patronus(request: ModelRequest) -> Any:
    """Answer `/v1/evaluate`."""
    expect(request.path == "/v1/v1/evaluate", "the path")
    body = fields(
        request.json, {"evaluators": list}, task_input=str, task_output=str, capture=str, app=str
    )
    expect(body.get("capture", "none") in ("none", "fails-only", "all"), "the capture")
    text = body.get("task_input") or body["task_output"]
    results = []
    for each in body["evaluators"]:
        fields(each, {"evaluator": str}, criteria=str, explain_strategy=str)
        match = CARD if each["evaluator"] == "pii" else EVIL
        places = [[at.start(), at.end()] for at in re.finditer(match, text)]
        info = {"positions": places if match == CARD else None, "extra": None}
        found = {"pass": not places, "score_raw": float(not places), "additional_info": info}
        results.append(
            {
                "evaluator_id": each["evaluator"],
                "criteria": each.get("criteria"),
                "status": "success",
                "error_message": None,
                "evaluation_result": found | {"external": False},
            }
        )
    return {"results": results}


def gray_swan(request: ModelRequest) -> Any:
    """Answer `/cygnal/monitor`."""
    expect(request.path == "/v1/cygnal/monitor", "the path")
    body = fields(
        request.json,
        {"messages": list},
        reasoning_mode=str,
        policy_id=str,
        policy_ids=list,
        rules=dict,
    )
    expect(body.get("reasoning_mode") in ("off", "hybrid", "thinking"), "the mode")
    (message,) = body["messages"]
    fields(message, {"role": str, "content": str})
    expect(message["role"] in ("system", "user", "assistant", "tool", "developer"), "the role")
    is_evil = EVIL in message["content"]
    rule = {"rule": 3, "name": "Harmful acts", "description": "No harm."}
    return {
        "violation": 0.83 if is_evil else 0.02,
        "violated_rules": [3] if is_evil else [],
        "violated_rule_descriptions": [rule] if is_evil else [],
        "ignored_inputs": [],
        "ipi": is_evil and message["role"] == "tool",
        "mutation": False,
        "error": False,
        "error_message": None,
    }


def lakera(request: ModelRequest) -> Any:
    """Answer `/v2/guard`."""
    expect(request.path == "/v1/v2/guard", "the path")
    body = fields(
        request.json,
        {"messages": list},
        project_id=str,
        payload=bool,
        breakdown=bool,
        dev_info=bool,
    )
    (message,) = body["messages"]
    fields(message, {"role": str, "content": str})
    expect(message["role"] in ("system", "user", "assistant"), "the role")
    text = message["content"]
    ids = {"project_id": "project-1", "policy_id": "policy-1", "detector_id": "detector-1"}
    breakdown = [
        {**ids, "detector_type": "prompt_attack", "detected": EVIL in text},
        {**ids, "detector_type": "pii/credit_card", "detected": CARD in text},
    ]
    payload = [
        {"start": at.start(), "end": at.end(), "text": CARD, "detector_type": "pii/credit_card",
         "labels": [], "message_id": 0}
        for at in re.finditer(CARD, text)
    ]  # fmt: skip
    return {
        "flagged": EVIL in text or CARD in text,
        "payload": payload,
        "breakdown": breakdown,
        "dev_info": {"version": "2.0.1"},
        "metadata": {"request_uuid": "0"},
    }


def model_armor(request: ModelRequest) -> Any:
    """Answer `sanitizeUserPrompt` and `sanitizeModelResponse`; personal data is inspected."""
    template = "/v1/v1/projects/p-1/locations/us-central1/templates/t_1"
    match = re.fullmatch(rf"{template}:(\w+)", request.path)
    expect(match, "the path")
    assert match is not None
    field = {"sanitizeUserPrompt": "userPromptData", "sanitizeModelResponse": "modelResponseData"}
    body = fields(request.json, {field[match[1]]: dict}, userPrompt=str)
    text = fields(body[field[match[1]]], {"text": str})["text"]
    findings = [
        {"infoType": "CREDIT_CARD_NUMBER", "likelihood": "VERY_LIKELY",
         "location": {"codepointRange": {"start": str(at.start()), "end": str(at.end())}}}
        for at in re.finditer(CARD, text)
    ]  # fmt: skip

    def state(found: object) -> str:
        return "MATCH_FOUND" if found else "NO_MATCH_FOUND"

    attack = {
        "executionState": "EXECUTION_SUCCESS",
        "matchState": state(EVIL in text),
        **({"confidenceLevel": "HIGH"} if EVIL in text else {}),
    }
    inspected = {
        "executionState": "EXECUTION_SUCCESS", "matchState": state(findings), "findings": findings,
    }  # fmt: skip
    return {
        "sanitizationResult": {
            "filterMatchState": state(findings or EVIL in text),
            "invocationResult": "SUCCESS",
            "filterResults": {
                "pi_and_jailbreak": {"piAndJailbreakFilterResult": attack},
                "sdp": {"sdpFilterResult": {"inspectResult": inspected}},
            },
        }
    }

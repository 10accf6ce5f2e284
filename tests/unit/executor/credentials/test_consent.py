"""Consent for a server: the link a caller receives, and the answer that comes back."""

import msgspec
import pytest

from harness.builders.calls import admitted_call
from toolbus_common.contracts import (
    CallAdmitted,
)
from toolbus_executor.credentials import consent
from toolbus_executor.credentials.oauth_token import ConsentRequiredError

LINK = "https://gateway.test/oauth/connect/abc"


def call(extra: str = "", capabilities: str = "{}", method: str = "tools/call") -> CallAdmitted:
    return admitted_call(extra=extra, capabilities=capabilities, method=method)


def test_a_client_that_opens_urls_gets_an_elicitation_and_others_the_link() -> None:
    error = ConsentRequiredError("No consent.", link=LINK)
    request = msgspec.json.decode(
        consent.consent_required(call("", '{"elicitation":{"url":{}}}'), error, "docs")
    )
    assert request["inputRequests"][consent.QUESTION]["params"]["url"] == LINK
    message = msgspec.json.decode(consent.consent_required(call(), error, "docs"))
    assert message["isError"] is True
    assert LINK in message["content"][0]["text"]
    with pytest.raises(ConsentRequiredError, match=LINK):
        consent.consent_required(call(method="resources/read"), error, "docs")


def test_the_consent_response_is_removed_and_the_servers_responses_stay() -> None:
    brought = {consent.QUESTION: {"action": "accept"}, "own": {"action": "accept"}}
    extra = msgspec.json.encode({"inputResponses": brought, "requestState": "s"}).decode()
    found = consent.take_answer(call(extra))
    assert found.action == "accept"
    left = {"inputResponses": {"own": {"action": "accept"}}, "requestState": "s"}
    assert msgspec.json.decode(found.call.extra) == left
    own = msgspec.json.encode({"inputResponses": {consent.QUESTION: {"action": "no"}}}).decode()
    assert (consent.take_answer(call(own)).action, consent.take_answer(call(own)).call.extra) == (
        "cancel", "",
    )  # fmt: skip
    assert consent.take_answer(call("{}")).action == ""

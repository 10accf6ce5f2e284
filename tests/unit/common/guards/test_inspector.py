"""Inspection of content: each action, mode and failure, the order of guards, and redaction."""

import asyncio
import json
from time import time
from typing import Any

import pytest

from toolbus_common.config import Guard
from toolbus_common.contracts import CheckedCall, GuardCheck, ServiceVerdict
from toolbus_common.errors import GuardBlockedError, GuardFailedError, UnavailableError
from toolbus_common.guards.inspector import LARGE, Inspection, Inspector
from toolbus_common.guards.placeholders import PLACEHOLDER, Placeholders

TOKEN = "ghp_1pqnpZSYlnhWDmkBdrVqvIWIQG8zJy3VkQ9r"
OTHER = "ghp_8sNfQ2LkXbVt7RzYcWm4HpJd1GaE6uTo3iKq"
CLEAN = b'{"note":"the weather is fine"}'
FOUND = json.dumps({"note": f"use {TOKEN} here"}).encode()


class Service:
    """A service of a guard: it gives its verdict, or raises, after a pause."""

    def __init__(self, verdict: ServiceVerdict | Exception, pause: float = 0.0) -> None:
        self.verdict = verdict
        self.pause = pause
        self.received: list[bytes] = []

    async def __call__(
        self, guard: str, phase: str, call: CheckedCall, content: bytes
    ) -> ServiceVerdict:
        """Return the verdict."""
        assert guard
        assert phase in ("arguments", "results")
        assert call.call_id
        self.received.append(content)
        await asyncio.sleep(self.pause)
        if isinstance(self.verdict, Exception):
            raise self.verdict
        return self.verdict


def guard(**fields: Any) -> Guard:
    on = ["arguments"] if fields.get("action") == "ask" else ["arguments", "results"]
    return Guard.model_validate({"kind": "secrets", "on": on, **fields})


def http(**fields: Any) -> Guard:
    return guard(kind="http", url="https://guard.example/check", **fields)


def call(**fields: Any) -> CheckedCall:
    known = {"call_id": "1", "customer": "acme", "key": "bot", "server": "docs", "tool": "search"}
    run = {"principal_id": "p", "run": "r", "deadline": time() + 60}
    return CheckedCall.model_validate({**known, **run, **fields})


class Failures:
    """The failures that an inspector reported."""

    def __init__(self) -> None:
        self.checks: list[GuardCheck] = []

    def __call__(self, _call: CheckedCall, check: GuardCheck) -> None:
        """Note a failure."""
        self.checks.append(check)


NOTHING = Service(ServiceVerdict())


async def inspected(
    guards: dict[str, Guard],
    body: bytes = FOUND,
    service: Service = NOTHING,
    phase: Any = "arguments",
    *,
    names: tuple[str, ...] = (),
    failures: Failures | None = None,
    **more: Any,
) -> Inspection:
    """Return the inspection by all guards."""
    inspector = Inspector(
        guards, service, Placeholders(lambda: [b"k" * 32]), failures or Failures()
    )
    return await inspector.inspect(names or tuple(guards), phase, call(), body, **more)


def verdicts(found: Inspection) -> dict[str, str]:
    """Return the verdict of each check."""
    return {each.guard: each.verdict for each in found.checks}


@pytest.mark.parametrize(
    ("action", "mode", "verdict"),
    [
        ("block", "enforce", "blocked"),
        ("redact", "enforce", "redacted"),
        ("flag", "enforce", "flagged"),
        ("ask", "enforce", "asked"),
        ("block", "observe", "would_block"),
        ("redact", "observe", "would_redact"),
        ("flag", "observe", "flagged"),
        ("ask", "observe", "would_ask"),
    ],
)
async def test_each_action_has_its_verdict_and_only_enforced_ones_an_effect(
    action: str, mode: str, verdict: str
) -> None:
    found = await inspected({"g": guard(action=action, mode=mode)})
    check = found.checks[0]
    assert (check.verdict, check.findings, check.bytes) == (verdict, ("github-pat",), len(FOUND))
    assert check.version
    assert (found.error is not None) == (verdict == "blocked")
    assert (found.ask == "g") == (verdict == "asked")
    changed = found.body != FOUND
    assert changed == (verdict in ("blocked", "redacted"))
    clean = await inspected({"g": guard(action=action, mode=mode)}, CLEAN)
    assert (clean.checks[0].verdict, clean.body, clean.error) == ("passed", CLEAN, None)


async def test_a_rejection_names_the_guard_and_the_rule_but_not_the_content() -> None:
    found = await inspected({"keys": guard(action="block")})
    error = found.error
    assert isinstance(error, GuardBlockedError)
    assert "'keys'" in error.reason
    assert "github-pat" in error.reason
    assert error.data == {"guard": "keys", "phase": "arguments", "findings": ["github-pat"]}
    assert TOKEN not in f"{error.as_data()}{found}"


async def test_a_redaction_is_equal_in_structured_content_and_in_the_text_that_repeats_it() -> None:
    structured = {"config": {"token": TOKEN, "type": "text"}}
    text = json.dumps(structured, indent=1)
    result = {"content": [{"type": "text", "text": text}], "structuredContent": structured}
    found = await inspected(
        {"g": guard(action="redact")}, json.dumps(result).encode(), NOTHING, "results"
    )
    after = json.loads(found.body)
    assert TOKEN not in found.body.decode()
    assert json.loads(after["content"][0]["text"]) == after["structuredContent"]
    assert after["content"][0]["type"] == after["structuredContent"]["config"]["type"] == "text"
    assert PLACEHOLDER.fullmatch(after["structuredContent"]["config"]["token"])


async def test_member_names_are_redacted_too() -> None:
    body = json.dumps({"env": {TOKEN: 1}}).encode()
    found = await inspected({"g": guard(action="redact")}, body)
    (name,) = json.loads(found.body)["env"]
    assert PLACEHOLDER.fullmatch(name)


async def test_equal_values_have_equal_placeholders_in_one_run_only() -> None:
    body = json.dumps([f"a {TOKEN} b", f"{TOKEN}", OTHER]).encode()
    inspector = Inspector({"g": guard(action="redact")}, NOTHING, Placeholders(lambda: [b"k" * 32]))

    async def in_run(**fields: Any) -> list[str]:
        found = await inspector.inspect(("g",), "arguments", call(**fields), body)
        return digits_in(found.body)

    one = await in_run()
    assert one[0] == one[1] != one[2]
    assert one == await in_run(call_id="2", tool="other")
    assert not {*one} & {*await in_run(run="s")}
    assert not {*one} & {*await in_run(principal_id="q")}


def digits_in(body: bytes) -> list[str]:
    return [each[2] for each in PLACEHOLDER.finditer(body.decode())]


async def test_guards_run_in_the_order_of_declaration_on_the_redacted_content() -> None:
    service = Service(ServiceVerdict(findings=("seen",)))
    guards = {
        "first": guard(action="redact"),
        "second": http(action="flag"),
        "third": guard(action="block"),
    }
    found = await inspected(guards, FOUND, service, names=("third", "second", "first"))
    assert verdicts(found) == {"first": "redacted", "second": "flagged", "third": "passed"}
    assert list(verdicts(found)) == ["first", "second", "third"]
    assert service.received == [found.body]
    assert TOKEN not in service.received[0].decode()


async def test_no_later_guard_checks_rejected_content() -> None:
    service = Service(ServiceVerdict())
    guards = {"first": guard(action="block"), "second": http(action="flag")}
    found = await inspected(guards, FOUND, service)
    assert verdicts(found) == {"first": "blocked"}
    assert service.received == []
    assert found.body == b""


async def test_a_guard_that_asks_does_not_stop_a_later_one_that_blocks() -> None:
    guards = {"first": guard(action="ask"), "second": guard(action="block", min_score=0.1)}
    found = await inspected(guards)
    assert verdicts(found) == {"first": "asked", "second": "blocked"}
    assert isinstance(found.error, GuardBlockedError)


async def test_content_that_cannot_wait_for_an_approval_is_blocked() -> None:
    guards = {"g": guard(action="ask")}
    found = await inspected(guards, may_ask=False)
    assert verdicts(found) == {"g": "blocked"}
    assert "approval" in str(found.error)


async def test_only_guards_of_the_phase_apply() -> None:
    found = await inspected({"g": guard(on=["results"], action="block")})
    assert found == Inspection(FOUND)


async def test_a_guard_that_is_not_configured_here_fails_closed() -> None:
    found = await inspected({"g": guard()}, CLEAN, names=("g", "newer"))
    assert verdicts(found) == {"g": "passed", "newer": "failed"}
    assert isinstance(found.error, GuardFailedError)


FAULTS = {
    "down": (CLEAN, Service(UnavailableError("No executor service is running; start one."))),
    "slow": (CLEAN, Service(ServiceVerdict(), pause=30.0)),
    "broken": (CLEAN, Service(RuntimeError(f"cannot read {TOKEN}"))),
    "no JSON": (f"no JSON {TOKEN}".encode(), NOTHING),
    "repeated names": (b'{"a":1,"a":2}', NOTHING),
    "lone surrogate": (b'{"a":"\\ud800"}', NOTHING),
    "too deep": (b"[" * 100 + b"]" * 100, NOTHING),
    "much too deep": (b"[" * 100_000 + b"]" * 100_000, NOTHING),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize(
    ("fields", "closed"),
    [
        ({"action": "block"}, True),
        ({"action": "redact"}, True),
        ({"action": "ask"}, True),
        ({"action": "flag"}, False),
        ({"action": "flag", "fail": "closed"}, True),
        ({"action": "block", "fail": "open"}, False),
        ({"action": "block", "mode": "observe"}, False),
    ],
)
async def test_a_guard_that_cannot_check_fails_as_declared(
    fault: str,
    fields: dict[str, Any],
    closed: bool,  # noqa: FBT001
) -> None:
    body, service = FAULTS[fault]
    failures = Failures()
    found = await inspected({"g": http(timeout=0.2, **fields)}, body, service, failures=failures)
    assert verdicts(found) == {"g": "failed"}
    assert found.checks[0].error
    assert isinstance(found.error, GuardFailedError) == closed
    assert found.body == (b"" if closed else body)
    assert [each.verdict for each in failures.checks] == ([] if closed else ["failed"])
    assert TOKEN not in f"{found.error}{found.checks}"


@pytest.mark.parametrize("fault", ["no JSON", "repeated names", "lone surrogate", "too deep"])
async def test_a_built_in_guard_fails_closed_on_content_that_it_cannot_read(fault: str) -> None:
    found = await inspected({"g": guard(action="block")}, FAULTS[fault][0])
    assert verdicts(found) == {"g": "failed"}
    assert TOKEN not in str(found)


async def test_a_service_redacts_by_its_own_version_of_the_document() -> None:
    verdict = ServiceVerdict(findings=("name",), score=0.7, content='{"note":"***"}', version="7")
    found = await inspected({"g": http(action="redact")}, CLEAN, Service(verdict))
    assert (found.body, verdicts(found)) == (b'{"note":"***"}', {"g": "redacted"})
    assert (found.checks[0].score, found.checks[0].version) == (0.7, "7")


@pytest.mark.parametrize("content", ["", "no JSON", "[]", '"text"'])
async def test_a_service_without_a_usable_redacted_version_rejects(content: str) -> None:
    verdict = ServiceVerdict(findings=("name",), content=content)
    found = await inspected({"g": http(action="redact")}, CLEAN, Service(verdict))
    assert found.error is not None
    assert found.body == b""


async def test_excepted_fields_are_neither_checked_nor_sent_nor_changed() -> None:
    body = json.dumps({"id": TOKEN, "note": "x", "in": [{"id": OTHER, "n": 1}]}).encode()
    found = await inspected({"g": guard(action="block", fields=["id"])}, body)
    assert verdicts(found) == {"g": "passed"}
    service = Service(
        ServiceVerdict(findings=("n",), content='{"note":"*","id":null,"in":[{"id":null,"n":2}]}')
    )
    found = await inspected({"g": http(action="redact", fields=["id"])}, body, service)
    assert json.loads(service.received[0]) == {
        "id": None,
        "note": "x",
        "in": [{"id": None, "n": 1}],
    }
    assert json.loads(found.body) == {"id": TOKEN, "note": "*", "in": [{"id": OTHER, "n": 2}]}


async def test_in_the_mode_observe_a_service_changes_nothing() -> None:
    verdict = ServiceVerdict(findings=("name",), content='{"note":"***"}')
    found = await inspected({"g": http(action="redact", mode="observe")}, CLEAN, Service(verdict))
    assert (found.body, found.error) == (CLEAN, None)
    assert found.checks[0].verdict in ("would_redact", "would_block")


async def test_findings_below_the_lowest_score_do_not_count() -> None:
    verdict = Service(ServiceVerdict(findings=("name",), score=0.4))
    found = await inspected({"g": http(action="block", min_score=0.5)}, CLEAN, verdict)
    assert verdicts(found) == {"g": "passed"}


async def test_names_that_a_service_returns_are_bounded_and_plain() -> None:
    names = tuple(f"{number:03}\n\x1b[31m'{'x' * 1000}" for number in range(1000))
    found = await inspected({"g": http()}, CLEAN, Service(ServiceVerdict(findings=names)))
    shown = found.checks[0].findings
    assert len(shown) == 64
    assert all(len(each) <= 64 and each.isprintable() for each in shown)


async def test_a_later_guard_does_not_find_the_placeholders_of_an_earlier_one() -> None:
    body = json.dumps({"api_key": TOKEN, "text": f'api_key = "{OTHER}"'}).encode()
    once = await inspected({"g": guard(action="redact")}, body)
    again = await inspected({"g": guard(action="redact")}, once.body)
    assert verdicts(again) == {"g": "passed"}
    assert again.body == once.body


async def test_other_work_goes_on_while_large_content_is_checked() -> None:
    body = json.dumps({"texts": ["the weather is fine "] * 40_000, "last": TOKEN}).encode()
    assert len(body) > LARGE
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.ensure_future(count())
    found = await inspected({"g": guard(action="redact")}, body)
    counting.cancel()
    assert verdicts(found) == {"g": "redacted"}
    assert turns > 1
    assert json.loads(found.body)["texts"] == ["the weather is fine "] * 40_000

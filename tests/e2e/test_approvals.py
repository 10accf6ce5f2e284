"""Approvals over HTTP with real clients: the page, the API, the command line and webhooks."""

import asyncio
import html
import json
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlencode, urlsplit

import httpx2
import pytest
from mcp import MCPError
from mcp.client.client import Client as SdkClient
from mcp.client.streamable_http import streamable_http_client
from mcp_types import ElicitRequestURLParams, ElicitResult

from harness.clients.admin_client import why
from harness.clients.mcp_client import Answer, Client
from harness.clients.sdk_tasks import Tasks
from harness.gateway.cluster import Upstream
from harness.gateway.launched_gateway import Launched
from harness.receivers.webhook_receiver import Receiver, webhook_secret
from harness.waits import until_blocking

BOT, BOSS, PLAIN = (f"tbk_{name}_e2e-secret-of-approvals" for name in ("bot", "boss", "plain"))
HOOK = webhook_secret("e2e-secret-of-approvals-hook")
TOOL = "echo__say"
modes = pytest.mark.parametrize("mode", ["auto", "legacy"])


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    """Receive webhooks.

    Only one test takes it down: the longer it is down, the rarer the retries.
    """
    with Receiver() as receiver:
        yield receiver


@pytest.fixture(scope="module", params=["separate", "fused"])
def gateway(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, receiver: Receiver
) -> Iterator[Launched]:
    """Run Toolbus in front of one server with a tool that needs an approval."""
    echo = Upstream(tmp_path_factory.mktemp("echo"))
    options = ["--separate"] if request.param == "separate" else []
    environment = {"TOOLBUS_CALL_TIMEOUT": "20", "HOOK_SECRET": HOOK}
    launched = Launched(tmp_path_factory.mktemp(request.param), *options, **environment)
    with (
        echo.running(),
        launched.running(
            {
                "servers": {"echo": {"url": echo.url}},
                "keys": {
                    "bot": {"secret": BOT, "tools": ["*"], "approve": [TOOL]},
                    "plain": {"secret": PLAIN, "tools": ["*"]},
                    "boss": {"secret": BOSS, "tools": [], "rights": ["approve"]},
                },
                "webhooks": {
                    "ops": {
                        "url": receiver.url,
                        "secret": "${env:HOOK_SECRET}",
                        "events": ["approval.*"],
                    }
                },
            }
        ),
    ):
        launched.until_listed(launched.client(BOT), TOOL)
        yield launched


# -- a browser and a client ------------------------------------------------------------------------


def visited(url: str, form: dict[str, str] | None = None, **headers: str) -> tuple[Answer, str]:
    """Fetch a page as a browser without scripts does."""
    target = urlsplit(url)
    connection = HTTPConnection(target.hostname or "", target.port, timeout=30)
    sent = {"Content-Type": "application/x-www-form-urlencoded"} if form is not None else {}
    origin = f"{target.scheme}://{target.netloc}"
    sent |= {"Origin": origin} if form is not None else {}
    sent |= {name.replace("_", "-"): value for name, value in headers.items()}
    body = urlencode(form) if form is not None else None
    try:
        connection.request("POST" if form is not None else "GET", target.path, body, sent)
        response = connection.getresponse()
        fields = {name.lower(): value for name, value in response.getheaders()}
        answer = Answer(response.status, fields, response.read())
        return answer, answer.body.decode()
    finally:
        connection.close()


def ticket_on(page: str) -> str:
    (ticket,) = re.findall(r'name="ticket" value="([^"]+)"', page)
    return html.unescape(ticket)


def decided(url: str, action: str, note: str = "", secret: str = BOSS) -> str:
    """Show the page with a key and decide on it."""
    _, page = visited(url, {"key": secret, "action": "show"})
    _, done = visited(url, {"ticket": ticket_on(page), "action": action, "note": note})
    return done


def required(answer: Answer) -> tuple[str, str]:
    """Return the id and the page of the approval a call waits for."""
    assert answer.code == "approval_required", answer.body
    data = answer.error["data"]
    return data["approval"], data["page"]


def api(gateway: Launched, path: str, secret: str = BOSS, body: Any = None) -> Answer:
    base = gateway.ready["endpoint"].removesuffix("/mcp")
    client = Client(f"{base}/api/approvals{path}", secret)
    return client.get(client.endpoint) if body is None else client.post(body)


@asynccontextmanager
async def sdk(
    gateway: Launched, mode: str, opens: Any = None, **more: Any
) -> AsyncIterator[SdkClient]:
    headers = {"Authorization": f"Bearer {BOT}"}
    async with httpx2.AsyncClient(headers=headers, timeout=180) as http:
        transport = streamable_http_client(gateway.ready["endpoint"], http_client=http)
        async with SdkClient(transport, mode=mode, elicitation_callback=opens, **more) as client:
            yield client


# -- clients --------------------------------------------------------------------------------------


@modes
async def test_a_client_that_opens_pages_continues_after_approval(
    gateway: Launched, mode: str
) -> None:
    opened: list[ElicitRequestURLParams] = []
    deciding: list[asyncio.Task[str]] = []

    async def opens(_context: Any, params: Any) -> ElicitResult:
        assert isinstance(params, ElicitRequestURLParams)
        opened.append(params)
        work = asyncio.to_thread(decided, params.url, "approve")
        deciding.append(asyncio.create_task(work))
        return ElicitResult(action="accept")

    async with sdk(gateway, mode, opens) as client:
        message = await client.call_tool(TOOL, {"text": f"paged {mode}"})
        assert message.content[0].text == f"paged {mode}"  # type: ignore[union-attr]
    assert len(opened) == 1, "one request"
    assert TOOL in opened[0].message
    assert "Approved" in await deciding[0]


@modes
async def test_a_client_that_opens_pages_gets_the_rejection(gateway: Launched, mode: str) -> None:
    async def opens(_context: Any, params: Any) -> ElicitResult:
        await asyncio.to_thread(decided, params.url, "reject", "Not on a Friday.")
        return ElicitResult(action="accept")

    async with sdk(gateway, mode, opens) as client:
        with pytest.raises(MCPError, match=r"Not on a Friday\.") as caught:
            await client.call_tool(TOOL, {"text": f"rejected {mode}"})
    assert caught.value.error.data["code"] == "approval_rejected"


@modes
async def test_a_client_without_pages_gets_the_id_and_repeats_the_call(
    gateway: Launched, mode: str
) -> None:
    async with sdk(gateway, mode) as client:
        call = {"text": f"plain {mode}"}
        with pytest.raises(MCPError, match="toolbus approve") as caught:
            await client.call_tool(TOOL, call)
        data = caught.value.error.data
        assert data["code"] == "approval_required"
        approved = await asyncio.to_thread(gateway.toolbus, "approve", data["approval"])
        assert (approved.returncode, approved.stderr) == (0, "")
        message = await client.call_tool(TOOL, call)
        assert message.content[0].text == f"plain {mode}"  # type: ignore[union-attr]
        with pytest.raises(MCPError, match="needs a person's approval"):
            await client.call_tool(TOOL, call)


@pytest.mark.parametrize(("action", "text"), [("approve", "as a task"), ("reject", "Not today.")])
async def test_a_client_with_tasks_waits_for_the_decision_in_a_task(
    gateway: Launched, action: str, text: str
) -> None:
    tasks = Tasks()
    async with sdk(gateway, "auto", extensions=[tasks]) as client:
        call = asyncio.create_task(client.call_tool(TOOL, {"text": "as a task"}))
        await tasks.arrived.wait()
        (started,) = tasks.created
        assert started.status == "working"
        (url,) = re.findall(r"http://\S+/approvals/[0-9a-f]{32}", started.status_message)
        await asyncio.to_thread(decided, url, action, "Not today.")
        result = await call
        assert text in result.content[0].text  # type: ignore[union-attr]
        assert result.is_error is (action == "reject")


async def test_a_client_with_tasks_and_pages_is_sent_the_page(gateway: Launched) -> None:
    opened: list[str] = []

    async def answer(requests: dict[str, Any]) -> dict[str, Any]:
        ((name, question),) = requests.items()
        opened.append(question["params"]["url"])
        assert "Approved" in await asyncio.to_thread(decided, opened[0], "approve")
        return {name: {"action": "accept"}}

    async def opens(_context: Any, _params: Any) -> ElicitResult:
        raise AssertionError("The call itself sends no elicitation.")

    async with sdk(gateway, "auto", opens, extensions=[Tasks(answer)]) as client:
        result = await client.call_tool(TOOL, {"text": "shown and waited for"})
        assert result.content[0].text == "shown and waited for"  # type: ignore[union-attr]
    assert len(opened) == 1, "one request"


# -- the page -------------------------------------------------------------------------------------


def test_the_page_shows_nothing_before_the_reader_has_authenticated(gateway: Launched) -> None:
    approval, url = required(gateway.client(BOT).call(TOOL, {"text": "canary-of-the-page"}))
    assert url.endswith(f"/approvals/{approval}")
    answer, page = visited(url)
    assert answer.status == 200
    for word in ("canary-of-the-page", TOOL, "key:bot"):
        assert word not in page
    for secret, status in ((PLAIN, 403), (BOT, 403), ("tbk_nobody_knows-this", 401), ("", 401)):
        answer, page = visited(url, {"key": secret, "action": "show"})
        assert (answer.status, "canary-of-the-page" in page) == (status, False)


def test_the_page_needs_no_script_and_allows_none(gateway: Launched) -> None:
    text = '<script>alert(1)</script>"\u202e\u200b'
    _, url = required(gateway.client(BOT).call(TOOL, {"text": text}))
    answer, page = visited(url, {"key": BOSS, "action": "show"})
    assert "<script" not in page
    assert "\u202e" not in page
    assert "\\u{202e}\\u{200b}" in page, "invisible characters are escaped"
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src" not in policy
    assert "frame-ancestors 'none'" in policy
    assert answer.headers["cache-control"] == "no-store"
    assert BOSS not in page
    assert "set-cookie" not in answer.headers


def test_a_decision_requires_the_ticket_of_its_own_page(gateway: Launched) -> None:
    approval, url = required(gateway.client(BOT).call(TOOL, {"text": "ticket"}))
    _, other_url = required(gateway.client(BOT).call(TOOL, {"text": "another ticket"}))
    _, page = visited(url, {"key": BOSS, "action": "show"})
    ticket = ticket_on(page)
    forms = [
        (url, {"action": "approve"}),
        (url, {"action": "approve", "key": BOSS}),
        (url, {"action": "approve", "ticket": ticket[:-4] + "AAAA"}),
        (other_url, {"action": "approve", "ticket": ticket}),
    ]
    for where, form in forms:
        assert visited(where, form)[0].status == 403
    foreign = visited(url, {"action": "approve", "ticket": ticket}, Origin="https://evil.example")
    assert foreign[0].status == 403
    assert api(gateway, f"/{approval}").json["state"] == "pending"


def test_a_decision_on_the_page_is_made_once(gateway: Launched) -> None:
    _, url = required(gateway.client(BOT).call(TOOL, {"text": "once"}))
    _, page = visited(url, {"key": BOSS, "action": "show"})
    form = {"ticket": ticket_on(page), "action": "reject", "note": "<b>No.</b>"}
    assert "Rejected" in visited(url, form)[1]
    answer, page = visited(url, {**form, "action": "approve"})
    assert (answer.status, "rejected by key:boss" in page) == (404, True)


# -- the API and the command line ------------------------------------------------------------------


def test_the_api_lists_and_decides(gateway: Launched) -> None:
    client = gateway.client(BOT)
    approval, _ = required(client.call(TOOL, {"text": "over the api"}))
    listed = api(gateway, "").json["approvals"]
    (items,) = (each for each in listed if each["id"] == approval)
    assert json.loads(items["arguments"]) == {"text": "over the api"}
    assert api(gateway, f"/{approval}/approve", body={"note": "Fine."}).json["by"] == "key:boss"
    assert client.call(TOOL, {"text": "over the api"}).text == "over the api"
    again = api(gateway, f"/{approval}/approve", body={})
    assert (again.status, why(again)) == (404, "unknown_approval")
    approval, _ = required(client.call(TOOL, {"text": "not over the api"}))
    api(gateway, f"/{approval}/reject", body={"reason": "Use another tool."})
    assert "Use another tool." in client.call(TOOL, {"text": "not over the api"}).error["message"]


@pytest.mark.parametrize(
    ("secret", "status"), [(BOT, 403), (PLAIN, 403), ("tbk_nobody_knows-this", 401), ("", 401)]
)
def test_the_api_requires_a_key_with_the_right_to_approve(
    gateway: Launched, secret: str, status: int
) -> None:
    approval, _ = required(gateway.client(BOT).call(TOOL, {"text": "whose right"}))
    for path, body in (
        ("", None),
        (f"/{approval}", None),
        (f"/{approval}/approve", {}),
        (f"/{approval}/reject", {}),
    ):
        assert api(gateway, path, secret, body).status == status
    assert api(gateway, f"/{approval}").json["state"] == "pending"


@pytest.mark.parametrize("body", [b"[]", b'{"note": 7}', b"{", b'{"note": "' + b"x" * 20_000])
def test_the_api_rejects_an_invalid_body(gateway: Launched, body: bytes) -> None:
    approval, _ = required(gateway.client(BOT).call(TOOL, {"text": "bodies"}))
    assert api(gateway, f"/{approval}/approve", body=body).status in (400, 413)
    assert api(gateway, f"/{approval}").json["state"] == "pending"


def test_the_command_line_lists_and_decides(gateway: Launched) -> None:
    client = gateway.client(BOT)
    approval, _ = required(client.call(TOOL, {"text": "\x1b[2J on the line"}))
    listing = gateway.toolbus("approvals")
    assert approval in listing.stdout
    assert "\x1b[2J" not in listing.stdout
    body = json.loads(gateway.toolbus("approvals", approval, "--json").stdout)["approvals"][0]
    assert (body["key"], body["cause"]) == ("bot", "key:bot")
    assert gateway.toolbus("reject", approval, "--reason", "Too late.").returncode == 0
    assert "Too late." in client.call(TOOL, {"text": "\x1b[2J on the line"}).error["message"]
    unknown = gateway.toolbus("approve", "0" * 32)
    assert (unknown.returncode, "No approval with this id is pending" in unknown.stderr) == (
        1,
        True,
    )


# -- events and webhooks ---------------------------------------------------------------------------


def test_the_audit_records_each_decision_with_its_approver(gateway: Launched) -> None:
    client = gateway.client(BOT)
    approval, _ = required(client.call(TOOL, {"text": "canary-of-the-audit"}))
    api(gateway, f"/{approval}/approve", body={"note": "On the record."})
    client.call(TOOL, {"text": "canary-of-the-audit"})
    expected = {"approval.requested", "approval.granted", "approval.used", "call.allowed"}
    rows = gateway.eventual_events(f"approval = '{approval}'", *expected)
    events = {event: json.loads(row["detail"]) for event, row in rows.items()}
    assert set(events) == expected
    assert events["approval.granted"]["by"] == "key:boss"
    assert events["approval.granted"]["reason"] == "On the record."
    assert events["approval.used"]["call_id"] == events["call.allowed"]["call_id"]
    assert "canary-of-the-audit" not in json.dumps(events), "arguments only as a digest"


def test_a_signed_webhook_is_delivered_once_its_receiver_is_up(
    gateway: Launched, receiver: Receiver
) -> None:
    before = gateway.logs().count("webhook.failed")
    with receiver.away():
        approval, _ = required(gateway.client(BOT).call(TOOL, {"text": "canary-of-the-hook"}))
        until_blocking(lambda: gateway.logs().count("webhook.failed") > before, "a try that fails")

    def delivered() -> list[Any]:
        return [each for each in list(receiver.received) if approval in each.body.decode()]

    request = until_blocking(delivered, "the webhook")[0]
    assert request.signed_with(HOOK)
    assert request.json["type"] == "approval.requested"
    assert request.json["data"]["tool"] == "say"
    assert b"canary-of-the-hook" not in request.body
    api(gateway, f"/{approval}/reject", body={"reason": "Told."})
    expected = {"approval.requested", "approval.rejected"}
    until_blocking(lambda: {each.json["type"] for each in delivered()} == expected, "the decision")

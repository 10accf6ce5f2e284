"""Information flow over two policy replicas: what a run has read decides about its sinks."""

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from harness.clients.bus_operator import key
from harness.services.policy_replicas import (
    SECRET,
    PolicyReplicas,
    last_event,
)
from harness.waits import PATIENCE
from toolbus_common.config import Configuration
from toolbus_common.contracts import (
    CallAdmitted,
    CallResult,
    CatalogEntry,
    FlowRunsQuery,
    FlowRunsReply,
    Listing,
    ResetFlowRequest,
    ServerState,
)
from toolbus_common.contracts.agent_runs import AGENT, AGENT_RUN
from toolbus_common.contracts.flow import FlowInputs, encode
from toolbus_common.errors import (
    ApprovalRequiredError,
    BusDownError,
    FlowRefusedError,
    InvalidError,
    RuleDeniedError,
)
from toolbus_common.mcp.builtin_server import BUILT_IN, EXECUTE
from toolbus_common.nats.connection import Bus
from toolbus_common.nats.topology import CATALOGUE, FLOW
from toolbus_common.service.service import Service
from toolbus_common.settings import Settings

OTHER = "tbk_other_a-secret-of-another-key"
TOOLS = {
    "notes": {"reads": "private", "writes": "nothing"},
    "page": {"reads": "untrusted", "writes": "nothing"},
    "post": {"reads": [], "writes": "outside"},
    "fetch": {"reads": "untrusted", "writes": "outside"},
}


def declared(flow: Any = "refuse", rules: Any = None, flow_of_key: Any = None) -> Configuration:
    return Configuration.model_validate(
        {
            "flow": flow,
            "servers": {"docs": {"url": "http://127.0.0.1:9/mcp", "tools": TOOLS}},
            "customers": {"acme": {}},
            "teams": {"ops": {"customer": "acme"}},
            "keys": {
                "bot": key(SECRET, team="ops", flow=flow_of_key, agent={}).model_dump(mode="json"),
                "other": key(OTHER, team="ops").model_dump(mode="json"),
            },
            "rules": rules or {},
        }
    )


@pytest.fixture
async def policy(start_policy: Any, settings: Settings) -> AsyncIterator[PolicyReplicas]:
    """Run two replicas whose flow refuses, and a code mode that records its calls."""
    codemode = Service("codemode", settings)
    async with start_policy() as made, codemode.running():
        await codemode.calls.serve(CallAdmitted, BUILT_IN, made.run, "codemode")
        tool = CatalogEntry(name=EXECUTE, definition={"name": EXECUTE})
        listing = Listing(server=BUILT_IN, state=ServerState.READY, tools=(tool,))
        await (await codemode.bucket(CATALOGUE)).put(BUILT_IN, listing.encode())
        await made.declare(declared())
        await made.offer("", *TOOLS)
        yield made


async def read_both(policy: PolicyReplicas, **given: Any) -> None:
    for tool in ("notes", "page"):
        assert isinstance(await policy.request(tool, **given), CallResult)


async def test_a_run_that_read_private_and_untrusted_data_cannot_write_outside(
    policy: PolicyReplicas,
) -> None:
    assert isinstance(await policy.request("post", session="s"), CallResult)
    await read_both(policy, session="s")
    for _ in range(6):  # whichever replica answers
        with pytest.raises(FlowRefusedError) as caught:
            await policy.request("post", session="s")
    assert caught.value.data["chain"] == ["docs__notes", "docs__page", "docs__post"]
    assert [each.tool for each in policy.reached].count("post") == 1


@pytest.mark.parametrize("tools", [("notes", "notes"), ("page", "fetch"), ("fetch", "fetch")])
async def test_one_kind_of_data_alone_does_not_stop_a_sink(
    policy: PolicyReplicas, tools: tuple[str, ...]
) -> None:
    for tool in (*tools, "post"):
        assert isinstance(await policy.request(tool, session="s"), CallResult)


async def test_what_a_call_reads_itself_counts_only_for_later_calls(
    policy: PolicyReplicas,
) -> None:
    assert isinstance(await policy.request("notes", session="s"), CallResult)
    assert isinstance(await policy.request("fetch", session="s"), CallResult)
    with pytest.raises(FlowRefusedError):
        await policy.request("fetch", session="s")


async def test_sessions_are_separate_runs_and_a_new_trace_is_not(policy: PolicyReplicas) -> None:
    await read_both(policy, session="s")
    assert isinstance(await policy.request("post", session="t"), CallResult)
    with pytest.raises(FlowRefusedError):
        await policy.request("post", session="s", run="f" * 32)


async def test_without_a_session_the_key_is_the_run(policy: PolicyReplicas) -> None:
    await policy.request("notes", run="a" * 32)
    await policy.request("page", run="b" * 32)
    with pytest.raises(FlowRefusedError):
        await policy.request("post", run="c" * 32)
    assert isinstance(await policy.request("post", secret=OTHER), CallResult)


async def test_a_key_cannot_loosen_what_a_higher_level_declares(
    policy: PolicyReplicas,
) -> None:
    await policy.declare(declared(flow_of_key="off"))
    await read_both(policy, session="s")
    with pytest.raises(FlowRefusedError):
        await policy.request("post", session="s")


async def test_a_flagged_call_passes_and_its_event_has_the_chain(
    policy: PolicyReplicas, operator: Bus
) -> None:
    await policy.declare(declared("flag"))
    await read_both(policy, session="s")
    assert isinstance(await policy.request("post", session="s"), CallResult)
    event = msgspec.json.decode(await last_event(operator, "call.allowed"))
    record = msgspec.json.decode(event["flow"])
    assert record["verdict"] == "flagged"
    assert record["chain"] == ["docs__notes", "docs__page"]


async def test_an_approver_sees_the_chain_and_decides(policy: PolicyReplicas) -> None:
    await policy.declare(declared("ask"))
    await read_both(policy, session="s")
    with pytest.raises(ApprovalRequiredError) as caught:
        await policy.request("post", session="s")
    assert caught.value.data["cause"] == "flow"
    shown = await policy.the_one()
    first, second = shown.chain
    assert first.startswith("docs__notes read private data (call ")
    assert second.startswith("docs__page read untrusted content (call ")
    await policy.approve(shown.id)
    assert isinstance(await policy.request("post", session="s"), CallResult)


async def test_a_denied_call_has_read_nothing(policy: PolicyReplicas) -> None:
    rule = {"cedar": 'forbid(principal, action, resource == Tool::"docs__notes");'}
    await policy.declare(declared(rules={"no": {**rule, "effect": "deny"}}))
    with pytest.raises(RuleDeniedError):
        await policy.request("notes", session="s")
    await policy.request("page", session="s")
    assert isinstance(await policy.request("post", session="s"), CallResult)


async def test_rules_see_what_a_run_has_read_even_if_flow_is_off(policy: PolicyReplicas) -> None:
    text = (
        "forbid(principal, action, resource) when "
        '{ resource.writes == "outside" && context.run.has_read_private };'
    )
    await policy.declare(declared("off", {"no": {"cedar": text, "effect": "deny"}}))
    assert isinstance(await policy.request("post", session="s"), CallResult)
    await policy.request("notes", session="s")
    with pytest.raises(RuleDeniedError):
        await policy.request("post", session="s")


async def test_an_operator_resets_a_run_and_the_reset_is_recorded(
    policy: PolicyReplicas, operator: Bus
) -> None:
    await read_both(policy, session="s")
    (run,) = (await policy.asks.request(FlowRunsQuery(), FlowRunsReply, PATIENCE)).runs
    assert (run.key, run.scope) == ("bot", "session")
    request = ResetFlowRequest(run=run.run, by="ann", note="checked")
    await policy.asks.request(request, FlowRunsReply, PATIENCE)
    assert isinstance(await policy.request("post", session="s"), CallResult)
    event = msgspec.json.decode(await last_event(operator, "flow.reset"))
    assert (event["run"], event["reason"]) == (run.run, "checked")


async def test_a_program_is_judged_by_what_reaches_the_arguments_of_its_calls(
    policy: PolicyReplicas,
) -> None:
    sealed = await start_program(policy, "s")
    inside = {"session": "s", "parent_id": sealed[1]}

    def inputs(*names: str) -> str:
        return encode(FlowInputs(sealed[0], sealed[1], names)).decode()

    await policy.request("notes", **inside, flow=inputs())
    await policy.request("page", **inside, flow=inputs())
    assert isinstance(await policy.request("post", **inside, flow=inputs("docs__page")), CallResult)
    with pytest.raises(FlowRefusedError):
        await policy.request("post", **inside, flow=inputs("docs__page", "docs__notes"))
    unknown = encode(FlowInputs(*sealed, None)).decode()
    with pytest.raises(FlowRefusedError):
        await policy.request("post", **inside, flow=unknown)
    with pytest.raises(FlowRefusedError):  # the program's output may contain both
        await policy.request("post", session="s")
    later = await start_program(policy, "s")
    late = encode(FlowInputs(*later, ())).decode()
    with pytest.raises(FlowRefusedError):
        await policy.request("post", session="s", flow=late)


async def test_inputs_without_the_seal_of_policy_are_rejected(policy: PolicyReplicas) -> None:
    await read_both(policy, session="s")
    sealed, parent = await start_program(policy, "t")
    for sent in (
        encode(FlowInputs("", parent, ())),
        encode(FlowInputs("AAAA", parent, ())),
        encode(FlowInputs(sealed, "another", ())),
        b"{}",
    ):
        with pytest.raises(InvalidError, match="verify"):
            await policy.request("post", session="s", flow=sent.decode())
    stolen = encode(FlowInputs(sealed, parent, ())).decode()
    with pytest.raises(InvalidError, match="verify"):
        await policy.request("post", secret=OTHER, flow=stolen)


async def start_program(policy: PolicyReplicas, session: str) -> tuple[str, str]:
    """Return what policy seals for a program of this session, and the id of its call."""
    await policy.request(EXECUTE, server=BUILT_IN, session=session)
    admitted = policy.reached[-1]
    return admitted.flow, admitted.call_id


async def test_a_run_of_agent_mode_has_read_what_the_runs_read_whose_results_it_received(
    policy: PolicyReplicas,
) -> None:
    await policy.request(AGENT, server=BUILT_IN, method=AGENT_RUN)
    admitted = policy.reached[-1]

    def made(run: str, *earlier: str) -> dict[str, str]:
        sent = FlowInputs(admitted.flow, admitted.call_id, earlier=earlier)
        return {"run": run, "flow": encode(sent).decode()}

    await read_both(policy, **made("a1"))
    assert isinstance(await policy.request("post", **made("a2")), CallResult)
    with pytest.raises(FlowRefusedError):
        await policy.request("post", **made("a3", "a2", "a1"))
    await policy.request("page", **made("a4", "a1"))  # which also records what it has received
    with pytest.raises(FlowRefusedError):
        await policy.request("post", **made("a4"))
    assert isinstance(await policy.request("post", **made("a5", "a2")), CallResult)


async def test_input_for_a_task_is_judged_like_a_call_of_its_server(policy: PolicyReplicas) -> None:
    await read_both(policy, session="s")
    given = {"method": "tasks/update", "session": "s"}
    with pytest.raises(FlowRefusedError):
        await policy.request("post", **given)
    assert isinstance(await policy.request("post", **given | {"session": "t"}), CallResult)


@pytest.mark.parametrize("method", ["resources/read", "completion/complete"])
async def test_what_a_request_to_a_server_contains_leaves_with_it(
    policy: PolicyReplicas, method: str
) -> None:
    labelled = declared().model_dump(mode="json", exclude_unset=True)
    labelled["servers"]["docs"]["writes"] = "outside"
    await policy.declare(Configuration.model_validate(labelled))
    assert isinstance(await policy.request("notes", method=method, session="t"), CallResult)
    await read_both(policy, session="s")
    with pytest.raises(FlowRefusedError):
        await policy.request("notes", method=method, session="s")


async def test_a_principal_cannot_take_part_in_the_run_of_another(policy: PolicyReplicas) -> None:
    await read_both(policy, session="s")
    assert isinstance(await policy.request("post", secret=OTHER, session="s"), CallResult)
    with pytest.raises(FlowRefusedError):
        await policy.request("post", session="s")


async def test_an_unreadable_record_stops_its_run_until_it_is_reset(
    policy: PolicyReplicas,
) -> None:
    await read_both(policy, session="s")
    (run,) = (await policy.asks.request(FlowRunsQuery(), FlowRunsReply, PATIENCE)).runs
    bucket = await policy.policies[0].bucket(FLOW)
    await bucket.put(run.run, b"no record")
    with pytest.raises(BusDownError, match="cannot be read"):
        await policy.request("post", session="s")
    assert (await policy.asks.request(FlowRunsQuery(), FlowRunsReply, PATIENCE)).runs == ()
    request = ResetFlowRequest(run=run.run, by="ann", note="checked")
    await policy.asks.request(request, FlowRunsReply, PATIENCE)
    assert isinstance(await policy.request("post", session="s"), CallResult)

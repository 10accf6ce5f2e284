"""Evidence of information flow: the view of decisions, and the saved queries about them."""

from harness.audit.events import allowed
from harness.audit.saved_queries import add, ask, part, query
from toolbus_audit.clickhouse.store import ClickHouse
from toolbus_common.contracts import CallDenied, DefinitionFlagged
from toolbus_common.contracts.events.base import Event
from toolbus_common.contracts.events.guards import FlowReset
from toolbus_common.contracts.flow import FlowRecord, encode

AT = 1_763_708_400.0  # 2025-11-21 07:00 UTC
SINCE = "2025-11-21"
CHAIN = ("crm__read", "web__fetch")


def record(verdict: str = "passed", *, run: str = "r1", chain: tuple[str, ...] = CHAIN) -> str:
    found = FlowRecord(run, verdict, "c1", "c2", chain, ("private",), "outside", narrowed=True)
    return encode(found).decode()


def events() -> list[Event]:
    """Return a call that passed, one that was flagged, one that was refused, and a reset."""
    return [
        allowed(call_id="c1", at=AT, flow=encode(FlowRecord("r1", reads=("private",))).decode()),
        allowed(call_id="c3", at=AT + 1, flow=record("flagged", run="r2")),
        CallDenied(
            id="c4.denied", at=AT + 2, customer="acme", call_id="c4", key="bot", server="mail",
            tool="send", code="flow_refused", reason="it writes outside", flow=record("refused"),
        ),
        FlowReset(
            id="reset", at=AT + 3, customer="acme", run="r1", key="bot", private="c1",
            untrusted="c2", by="ann", reason="checked",
        ),
        allowed(call_id="none", at=AT),
    ]  # fmt: skip


async def test_the_view_has_one_row_for_each_decision_with_all_its_fields(
    store: ClickHouse,
) -> None:
    await add(store, events())
    (row,) = await query(store, "SELECT * FROM flow_decisions WHERE verdict = 'refused'")
    names = ("customer", "key", "server", "tool", "call_id", "event", "code", "reason", "run")
    assert part(row, *names) == (
        "acme", "bot", "mail", "send", "c4", "call.denied", "flow_refused", "it writes outside",
        "r1",
    )  # fmt: skip
    further = ("private", "untrusted", "chain", "reads", "writes", "narrowed")
    assert part(row, *further) == ("c1", "c2", [*CHAIN], ["private"], "outside", True)
    found = await query(store, "SELECT verdict, count() AS n FROM flow_decisions GROUP BY verdict")
    assert {each["verdict"]: each["n"] for each in found} == {
        "passed": 1, "flagged": 1, "refused": 1, "reset": 1,
    }  # fmt: skip


async def test_the_query_returns_refused_asked_and_flagged_runs_with_their_chain_and_resets(
    store: ClickHouse,
) -> None:
    await add(store, events())
    found = await ask(store, "flow-decisions", since=SINCE)
    assert [part(each, "run", "verdict", "sink", "chain", "by") for each in found] == [
        ("r1", "reset", "", [], "ann"),
        ("r1", "refused", "mail__send", [*CHAIN], ""),
        ("r2", "flagged", "docs__search", [*CHAIN], ""),
    ]
    found = await ask(store, "flow-decisions", since=SINCE, run="r2")
    assert [each["call_id"] for each in found] == ["c3"]


async def test_records_that_are_not_readable_are_no_rows_and_hide_no_others(
    store: ClickHouse,
) -> None:
    broken = ["{", "[1]", '"x"', "null", '{"verdict":"refused"}', '{"run":7}']
    made: list[Event] = [
        allowed(call_id=f"b{n}", at=AT, flow=text) for n, text in enumerate(broken)
    ]
    await add(store, [*made, allowed(call_id="good", at=AT, flow=record("asked"))])
    found = await query(store, "SELECT call_id FROM flow_decisions WHERE verdict = 'asked'")
    assert found == [{"call_id": "good"}]


async def test_flagged_definitions_are_shown_with_their_rules_and_score(store: ClickHouse) -> None:
    flagged = DefinitionFlagged(
        id="f", at=AT, customer="acme", server="docs", kind="tools", tool="search",
        definition_digest="d1", rules="hidden_text,instructions", score=0.9,
    )  # fmt: skip
    await add(store, [flagged])
    (row,) = await ask(store, "definition-changes", since=SINCE)
    assert part(row, "event", "tool", "rules", "score") == (
        "definition.flagged", "search", "hidden_text,instructions", 0.9,
    )  # fmt: skip

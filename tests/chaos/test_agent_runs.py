"""Services killed during a run: nothing is executed or charged twice, and the run continues."""

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from typing import Any

import httpx2
import pytest

from harness.models.agent_gateway import (
    MODEL,
    PROMPT,
    RUN,
    AgentGateway,
    call,
    running_agents,
)
from harness.waits import PATIENCE, until_blocking

OK = 200


@pytest.fixture(scope="module")
def agents(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentGateway]:
    """Run every service in a process of its own."""
    directory = tmp_path_factory.mktemp("agents")
    with running_agents(directory, fused=False, TOOLBUS_OUTCOME_GRACE="1") as gateway:
        yield gateway


def body_of(victim: str, where: str) -> dict[str, Any]:
    """Return a request whose model makes three turns of calls; `where` a service is killed."""
    name = f"{victim}-{where}"
    slow = ":chunks=3,gap=1500" if where == "model" else ""
    wait = call("wait", id=f"{name}-2", seconds=3 if where == "tool" else 0)
    script = [[call("count", id=f"{name}-1")], [wait], [call("count", id=f"{name}-3")]]
    return {"model": f"{MODEL}{slow}", "messages": PROMPT, "script": script, "stream": bool(slow)}


@pytest.mark.parametrize(
    ("victim", "where"),
    list(product(["codemode", "executor", "ingress", "policy"], ["tool", "model"])),
)
def test_a_killed_service_executes_and_charges_nothing_twice(
    agents: AgentGateway, victim: str, where: str
) -> None:
    agents.forget()
    body = body_of(victim, where)

    def in_the_middle() -> bool:
        return "wait" in agents.calls() if where == "tool" else len(agents.mock.received()) == 2

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(send, agents, body, "")
        until_blocking(in_the_middle, "the middle of the run")
        (process,) = agents.cluster.processes.pop(victim)
        process.kill()
        if victim == "ingress":
            agents.cluster.forget_port(0)
        agents.cluster.run(victim).wait_ready()
        response = running.result()
    run = newest(agents)
    until_blocking(lambda: response_of(agents, body, run, response), "the end", 4 * PATIENCE)
    arrived = Counter(each["id"] for each in agents.upstream.arrived())
    assert set(arrived.values()) == {1}
    assert len(arrived) == 3
    budget = until_blocking(lambda: settled(agents), "the settlement", 2 * PATIENCE)
    assert budget.spent == charged_by_the_events(agents)


def send(agents: AgentGateway, body: dict[str, Any], run: str) -> httpx2.Response | None:
    """Send a request; None if its connection broke."""
    try:
        with agents.http() as client:
            headers = {RUN: run} if run else {}
            return client.post(
                "/v1/chat/completions", json=body, headers=headers, timeout=4 * PATIENCE
            )
    except httpx2.TransportError:
        return None


def response_of(
    agents: AgentGateway, body: dict[str, Any], run: str, first: httpx2.Response | None
) -> bool:
    """Return whether the run is complete; continue it if it is not."""
    if completed(first):
        return True
    return completed(send(agents, body, run))


def completed(response: httpx2.Response | None) -> bool:
    """Return whether a response is one of a completed run."""
    if response is None or response.status_code != OK:
        return False
    return "[DONE]" in response.text if "data: " in response.text else "choices" in response.json()


def newest(agents: AgentGateway) -> str:
    """Return the newest run."""
    with agents.http() as client:
        return str(client.get("/v1/agent/runs").json()["runs"][0]["run"])


def settled(agents: AgentGateway) -> Any:
    """Return the budget when nothing is reserved."""
    budget = agents.budget("bot")
    same = budget.spent == charged_by_the_events(agents)
    return budget if not budget.reserved and same else None


def charged_by_the_events(agents: AgentGateway) -> int:
    """Return the charge of the outcome events, each call once."""
    rows = agents.cluster.rows(
        "SELECT sum(c) AS total FROM (SELECT call_id, max(charge) AS c FROM events"
        " WHERE event IN ('call.completed', 'call.failed') AND key = 'bot' GROUP BY call_id)"
    )
    return int(rows[0]["total"])

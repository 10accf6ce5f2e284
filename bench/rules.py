"""Latency of a decision with 100 rules, with and without an index (`make bench-rules`).

Calls differ from one another; one in a hundred is denied. *Naive* evaluates all rules with
everything parsed beforehand, for the same calls.
"""

import argparse
import json
import sys
from collections.abc import Callable
from statistics import median
from time import perf_counter_ns
from typing import Any

from cedarpy import PolicySet, is_authorized

from figures import keep, met, row, show
from toolbus_common.config import Rule
from toolbus_common.rules import Asker, Case, Rulebook
from toolbus_common.rules.policy_set import moment
from toolbus_common.rules.request import entities_of

COMPILATIONS = 9
NOW = 1_800_000_000.0
CASE = Case(
    Asker("bench", "support", "ada", "acme", "production"),
    "tools/call", "echo", "echo", ("internal",), 1000, "modern",
)  # fmt: skip
DEMANDS = {"decision_p50_us": 40.0, "compile_ms": 100.0}


def rules(count: int, server: str = "echo", tool: str = "echo") -> dict[str, str]:
    """Return rules as a platform team writes them; one in ten can apply to the tool."""
    forms = (
        'forbid(principal in Team::"team{n}", action, resource);',
        (
            'forbid(principal, action == Action::"tools/call", resource == Tool::"s{n}__delete")'
            " unless {{ context.time.hour >= 9 && context.time.hour < 17 }};"
        ),
        'forbid(principal, action, resource in Server::"s{n}") when {{ context.cost > {n}000 }};',
        (
            'forbid(principal, action, resource) when {{ resource.labels.contains("label{n}")'
            " && context.arguments has amount && context.arguments.amount > {n} }};"
        ),
        (
            'forbid(principal, action, resource) when {{ principal.environment == "staging{n}"'
            ' && context.arguments has path && context.arguments.path like "/srv/{n}/*" }};'
        ),
    )
    applying = (
        f'forbid(principal, action, resource == Tool::"{server}__{tool}") when {{{{'
        ' context.arguments has text && context.arguments.text like "/etc/{n}/*" }};'
    )
    return {
        f"rule{n}": (applying if n % 10 == 0 else forms[n % len(forms)]).format(n=n)
        for n in range(count)
    }


def main() -> int:
    """Run the benchmark; return 0 if every demand holds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rules", type=int, default=100)
    parser.add_argument("--calls", type=int, default=20_000)
    options = parser.parse_args()
    figures = _measured(options.rules, options.calls)
    rows = [row(name, figures[name], "<=", most) for name, most in DEMANDS.items()]
    show(rows)
    keep("rules", {"rules": options.rules, **figures})
    return 0 if met(rows) else 1


def _measured(count: int, calls: int) -> dict[str, float]:
    texts = rules(count)
    declared = {name: Rule(cedar=text) for name, text in texts.items()}
    compiled, first = [], []
    for _ in range(COMPILATIONS):
        began = perf_counter_ns()
        book = Rulebook(declared)
        compiled.append(perf_counter_ns() - began)
        part = book.slice(CASE)
        first.append(perf_counter_ns() - began - compiled[-1])
    arguments = [_arguments(number) for number in range(calls)]
    refused = sum(bool(part.decide(each, NOW).denied_by) for each in arguments)
    everything = _naive("\n".join(texts.values()))
    wrong = [a for a in arguments[:500] if everything(a) != bool(part.decide(a, NOW).denied_by)]
    if wrong:
        raise SystemExit(f"{len(wrong)} decisions differ: {wrong[0]!r}")
    return {
        "compile_ms": median(compiled) / 1e6,
        "first_call_ms": median(first) / 1e6,
        "refused": refused,
        **_timed("decision", lambda each: part.decide(each, NOW), arguments),
        **_timed("naive", everything, arguments[: calls // 10]),
        "naive_from_text_us": _from_text("\n".join(texts.values())),
    }


def _arguments(number: int) -> bytes:
    text = f"/etc/{number // 10 % 100}/x" if number % 100 == 0 else f"/home/{number}"
    return json.dumps({"text": text, "amount": number, "note": "as agents write"}).encode()


def _naive(texts: str) -> Callable[[bytes], bool]:
    policies, entities = PolicySet.from_str(texts), entities_of(CASE)

    def refuses(arguments: bytes) -> bool:
        context = {**CASE.settled, "arguments": json.loads(arguments), "time": moment(NOW)}
        request = {**CASE.request, "context": json.dumps(context)}
        return bool(is_authorized(request, policies, entities).diagnostics.reasons)

    return refuses


def _from_text(texts: str) -> float:
    entities, context = str(entities_of(CASE)), json.dumps({**CASE.settled, "arguments": {}})
    request = {**CASE.request, "context": context}
    timed = _timed("text", lambda _: is_authorized(request, texts, entities), [b""] * 50)
    return timed["text_p50_us"]


def _timed(name: str, work: Callable[[bytes], Any], arguments: list[bytes]) -> dict[str, float]:
    spent = []
    for each in arguments:
        began = perf_counter_ns()
        work(each)
        spent.append((perf_counter_ns() - began) / 1e3)
    spent.sort()
    return {
        f"{name}_p50_us": round(spent[len(spent) // 2], 2),
        f"{name}_p99_us": round(spent[len(spent) * 99 // 100], 2),
    }


if __name__ == "__main__":
    sys.exit(main())

"""Contracts that are built without validation are built from fields they have."""

import ast
from pathlib import Path

import pytest

from toolbus_common import contracts

ROOT = Path(__file__).resolve().parents[2]


def _trusted(tree: ast.AST) -> dict[str, str]:
    """Return the names of `name = trusted(Contract)` with their contracts."""
    found = {}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Assign):
            continue
        pairs = zip(_each(node.targets[0]), _each(node.value), strict=False)
        for name, call in pairs:
            if isinstance(call, ast.Call) and ast.unparse(call.func) == "trusted":
                found[ast.unparse(name)] = ast.unparse(call.args[0])
    return found


def _each(node: ast.expr) -> list[ast.expr]:
    return list(node.elts) if isinstance(node, ast.Tuple) else [node]


def _made() -> list[tuple[str, str, str]]:
    made = []
    for path in sorted((ROOT / "services").rglob("*.py")):
        if "trusted(" not in (text := path.read_text()):
            continue
        tree = ast.parse(text)
        names = _trusted(tree)
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in names:
                contract = names[ast.unparse(node.func)]
                made += [(path.name, contract, each.arg) for each in node.keywords if each.arg]
    return made


MADE = _made()


def test_there_are_contracts_built_without_validation() -> None:
    assert {contract for _, contract, _ in MADE} >= {"CallRequested", "CallAdmitted"}


@pytest.mark.parametrize(("module", "contract", "field"), sorted(set(MADE)))
def test_a_contract_built_without_validation_has_that_field(
    module: str, contract: str, field: str
) -> None:
    assert field in getattr(contracts, contract).model_fields, f"{module}: unknown field {field}"

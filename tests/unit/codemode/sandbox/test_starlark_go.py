"""Faults of starlark-go, the binding of Google's own Starlark, for which starlark-pyo3 is used.

A failure here is good news: the binding may be usable now.
"""

import subprocess
import sys

import pytest

RECONSIDER = "starlark-go {}: reconsider ADR 43 (docs/adr/0043-libraries-not-taken.md)"
CALLBACK = """
from starlark_go import Starlark
engine = Starlark({given})
{then}
others = [lambda x: None for _ in range(10_000)]  # take the memory of a freed function
print(engine.eval("call(41)"))
"""
PUBLIC = {"eval", "exec", "get", "globals", "pop", "print", "set"}


def child(program: str) -> subprocess.CompletedProcess[bytes]:
    """Run a program in a process of its own, which may crash."""
    return subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)


@pytest.mark.parametrize(
    ("given", "then"),
    [("globals={'call': lambda x: x + 1}", ""), ("", "engine.set(call=lambda x: x + 1)")],
)
def test_a_function_that_only_the_engine_refers_to_crashes_the_process(
    given: str, then: str
) -> None:
    ended = child(CALLBACK.format(given=given, then=then))
    assert ended.stdout != b"42\n", RECONSIDER.format("keeps a reference to callbacks now")
    assert b"SIGSEGV" in ended.stderr or ended.returncode != 0


def test_a_program_cannot_be_cancelled_or_bounded() -> None:
    ended = child(
        "from starlark_go import Starlark\nprint(*dir(Starlark))\nprint(Starlark.exec.__doc__)"
    )
    assert ended.returncode == 0, ended.stderr
    names, _, described = ended.stdout.decode().partition("\n")
    public = {name for name in names.split() if not name.startswith("_")}
    assert public == PUBLIC, RECONSIDER.format(f"has {sorted(public - PUBLIC)} now")
    for word in ("cancel", "timeout", "max_steps", "steps"):
        assert word not in described, RECONSIDER.format(f"mentions {word} now")

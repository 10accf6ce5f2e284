"""Generated programs on the real engine: what the analysis calls separate never meets.

A program runs twice, with different private data. Every outward call for which the analysis names
no private input must receive the same arguments in both runs.
"""

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from toolbus_codemode.flow.data_flow import inputs_of
from toolbus_codemode.sandbox.program import Function, Limits, Namespace, Program
from toolbus_codemode.sandbox.protocol import Call, Outcome, Start, Tool
from toolbus_codemode.sandbox.starlark.engine import Run

PRIVATE = "notes__read"
FUNCTIONS = {"notes": "read", "web": "fetch", "chat": "post"}
SPACES = tuple(
    Namespace(space, space, (Function(name, name, ("it",)),)) for space, name in FUNCTIONS.items()
)
SECRETS = (0, 1, 2, 7)
START = """
n = 0
l = [0]
m = l
d = {"k": [0]}
t = "x"
"""
# Statements that mostly succeed, so that a program comes far.
SIMPLE = st.sampled_from((
    "s = notes.read()", "s = notes.read(n)", "n = notes.read()", "n = s", "n = 0", "n = n + 1",
    "n += 1", "n = 2 if s else 3", "n = len(l)", "n = l[0]", "n = m[-1]", "n = len(str(d))",
    "n = s == 1", "n = (s, 0)[1]", "n = sorted([s, 1])[0]", "n, t = s, 'y'", "n = d['k'][0]",
    "l.append(s)", "l.append(n)", "m = l", "m = [n]", "m = l + [1]", "l = [x for x in m]",
    "l = [s if x else 0 for x in m]", "m[0] = n", "l[0] = s", "z = l.pop()", "l = [m, 1]",
    "l = list(m)", "d['k'] = m", "d['k'].append(n)", "d = {'k': l}", "d = {'k': [s]}",
    "d.update({'k': [n]})", "m = d.get('k')", "d = dict(d)", "l = [m][0]",
    "t = f'{n}'", "t = f'{s} {t}'", "t = t + 'x'", "t = '{}'.format(l)", "t = str(s)",
    "t = json.encode(d)", "[0, 1][n]", "[0, 1][s]", "1 // s", "1 // n", "{'0': 1}[t]",
    "[0 // x for x in l]", "notes.read(l[n])", "print(s)", "print(n)", "bool(s)", "[s, n == s]",
    "chat.post(n)", "chat.post(str(l))", "chat.post(t)", "chat.post(m)", "chat.post('x')",
    "chat.post('x')", "chat.post('y')", "chat.post(d)", "chat.post(it=len(m))",
    "[chat.post(x) for x in [1, 2]]", "[chat.post('c') for x in l]", "n and chat.post('z')",
    "s = web.fetch()", "t = web.fetch(t)[1]", "l = web.fetch(n)", "web.fetch('w')",
))  # fmt: skip
STOPS = st.sampled_from(("break", "continue", "1 // s", "[0, 1][n]"))
TESTS = st.sampled_from(("n", "s", "l", "t", "n == 1", "len(m) > 1", "1", "not s", "n in l"))
LOOPS = st.sampled_from((
    "for i in range(2):", "for n in range(3):", "for n in list(l):", "for x in range(s):",
    "for n in [0, 1]:", "for x in list(m):", "for i in [s]:",
))  # fmt: skip


def _indented(blocks: list[str]) -> str:
    return "\n".join(f"    {line}" for block in blocks for line in block.split("\n"))


def _blocks(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    body = st.lists(inner, min_size=1, max_size=3).map(_indented)
    looped = st.lists(
        st.one_of(inner, st.tuples(TESTS, STOPS).map("if {0[0]}:\n    {0[1]}".format)),
        min_size=1, max_size=3,
    ).map(_indented)  # fmt: skip
    return st.one_of(
        st.tuples(TESTS, body).map("if {0[0]}:\n{0[1]}".format),
        st.tuples(TESTS, body, body).map("if {0[0]}:\n{0[1]}\nelse:\n{0[2]}".format),
        st.tuples(LOOPS, looped).map("{0[0]}\n{0[1]}".format),
        st.tuples(LOOPS, looped).map("{0[0]}\n{0[1]}".format),
    )


STATEMENTS = st.one_of(
    SIMPLE, SIMPLE, SIMPLE, _blocks(SIMPLE), _blocks(st.one_of(SIMPLE, _blocks(SIMPLE)))
)
PROGRAMS = st.tuples(
    st.sampled_from(
        (
            "s = notes.read()",
            "s = 0",
            "chat.post('first')\ns = 1",
            *["s = notes.read()"] * 4,
        )
    ),
    st.lists(STATEMENTS, min_size=1, max_size=6).map("\n".join),
    st.sampled_from(("",) * 20 + ("f = lambda: chat.post(s)\nf()",)),
).map(lambda parts: START + "\n".join(parts))


def received(source: str, secret: object) -> dict[str, list[bytes]]:
    """Return what each tool receives from a program that reads this private data."""
    found: dict[str, list[bytes]] = {}

    def value(call: Call) -> object:
        name = f"{call.namespace}__{call.function}"
        found.setdefault(name, []).append(msgspec.json.encode(call.arguments))
        if name == PRIVATE:
            return secret
        return [0, call.arguments.get("it"), "w"] if name == "web__fetch" else "ok"

    def answer(calls: tuple[Call, ...]) -> tuple[Outcome, ...]:
        return tuple(Outcome(each.id, value(each)) for each in calls)

    spaces: dict[str, tuple[Tool, ...]] = {
        space: (Tool(name, ("it",), 0),) for space, name in FUNCTIONS.items()
    }
    Run(Start(source, spaces, 60.0, 500, 1 << 20, 1 << 20, 1 << 28), answer).run()
    return found


def check(source: str, first: object, second: object) -> None:
    """Fail if an outward call without a private input depends on private data."""
    inputs = inputs_of(Program(source, "starlark", SPACES, Limits()))
    if inputs is None:
        return
    before, after = received(source, first), received(source, second)
    for tool in ("web__fetch", "chat__post"):
        if PRIVATE not in inputs.get(tool, ()):
            assert before.get(tool) == after.get(tool), source


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(PROGRAMS, st.sampled_from(SECRETS), st.sampled_from(SECRETS))
def test_no_private_value_reaches_an_outward_call_without_private_inputs(
    program: str, first: object, second: object
) -> None:
    check(program, first, second)

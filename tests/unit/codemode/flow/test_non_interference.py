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
SECRETS = (0, 1, 3, -1, "", "ab", "0", [], [0], [[1], 2], {}, {"k": [1]}, None, True, 0.5)
NAMES = st.sampled_from(("a", "b", "c", "d"))


def _each(template: str, *parts: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.tuples(*parts).map(lambda found: template.format(*found))


TOOLS = st.sampled_from(("notes.read", "web.fetch", "chat.post", "notes.read"))
ATOMS = st.one_of(
    NAMES,
    st.sampled_from(("0", "1", "2", '""', '"ab"', "[]", "[0]", "None", "{}", '{"k": 1}')),
    _each("{}()", TOOLS),
)


def _larger(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    two = (inner, inner)
    operators = ("+", "-", "*", "//", "%", "==", "!=", "<", "in", "and", "or", "/")
    return st.one_of(
        _each("{}({})", TOOLS, inner),
        _each("{}(it={})", TOOLS, inner),
        _each("({} {} {})", inner, st.sampled_from(operators), inner),
        _each("({} if {} else {})", inner, inner, inner),
        _each("[{}, {}]", *two),
        _each('{{"k": {}, "j": {}}}', *two),
        _each("{{{}: 1}}", inner),
        _each("{}[{}]", *two),
        _each("[0, 1][{}]", inner),
        _each("(1 // {})", inner),
        _each("not {}", inner).map(lambda text: f"({text})"),
        _each(
            "{}({})",
            st.sampled_from(
                (
                    "len",
                    "str",
                    "list",
                    "bool",
                    "sorted",
                    "type",
                    "repr",
                    "int",
                    "reversed",
                    "enumerate",
                    "json.encode",
                    "hash",
                    "dict",
                    "max",
                )
            ),
            inner,
        ),
        _each("[{} for {} in {}]", inner, NAMES, inner),
        _each("[{} for {} in {} if {}]", inner, NAMES, inner, inner),
        _each('f"{{{}}}"', NAMES),
        _each('"{{}}".format({})', inner),
        _each("{}.get({})", *two),
        _each('{}.get("k", {})', *two),
    )


EXPRESSIONS = st.recursive(ATOMS, _larger, max_leaves=4)
SIMPLE = st.one_of(
    _each("{} = {}", NAMES, EXPRESSIONS),
    _each("{} = {}", NAMES, EXPRESSIONS),
    _each("{} = {}()", NAMES, TOOLS),
    _each("{} = {}", NAMES, NAMES),
    _each("{}", EXPRESSIONS),
    _each("chat.post({})", EXPRESSIONS),
    _each("{} += {}", NAMES, EXPRESSIONS),
    _each("{}.append({})", NAMES, EXPRESSIONS),
    _each("{} = {}.pop()", NAMES, NAMES),
    _each("{}.update({})", NAMES, EXPRESSIONS),
    _each('{}["k"] = {}', NAMES, EXPRESSIONS),
    _each("{}[0] = {}", NAMES, EXPRESSIONS),
    _each("{}, {} = {}", NAMES, NAMES, EXPRESSIONS),
    _each("print({})", EXPRESSIONS),
    _each("fail({})", EXPRESSIONS),
    st.sampled_from(("pass", "web.fetch()", 'chat.post("x")', 'chat.post("x")')),
)
LOOPED = st.one_of(SIMPLE, SIMPLE, st.sampled_from(("break", "continue")))


def _indented(lines: list[str]) -> str:
    return "\n".join(f"    {line}" for block in lines for line in block.split("\n"))


def _blocks(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    body = st.lists(inner, min_size=1, max_size=3).map(_indented)
    looped = st.lists(st.one_of(inner, LOOPED), min_size=1, max_size=3).map(_indented)
    stopping = _each("if {}:\n    {}", EXPRESSIONS, st.sampled_from(("break", "continue")))
    return st.one_of(
        _each("if {}:\n{}", EXPRESSIONS, body),
        _each("if {}:\n{}\nelse:\n{}", EXPRESSIONS, body, body),
        _each("for {} in {}:\n{}", NAMES, EXPRESSIONS, looped),
        _each("for {} in range(3):\n{}", NAMES, looped),
        _each(
            "for {} in range(3):\n{}",
            NAMES,
            st.lists(st.one_of(inner, stopping), min_size=2, max_size=3).map(_indented),
        ),
    )


STATEMENTS = st.recursive(SIMPLE, _blocks, max_leaves=5)
CLOSURES = st.one_of(
    _each("def f(d):\n    {}\nf({})", SIMPLE, EXPRESSIONS),
    _each("chat.post([lambda d={}: {}][0]())", EXPRESSIONS, EXPRESSIONS),
)
PROGRAMS = st.one_of(
    *[st.lists(STATEMENTS, min_size=1, max_size=6).map("\n".join)] * 7,
    st.lists(st.one_of(STATEMENTS, CLOSURES), min_size=1, max_size=4).map("\n".join),
)
STARTS = st.sampled_from((
    'a = notes.read()\nb = web.fetch()\nc = []\nd = "x"\n',
    'a = notes.read()\nb = {"k": a}\nc = [0, 1]\nd = 1\n',
    "b = [0, 1]\nc = b\nd = 1\na = 2\n",
))  # fmt: skip


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

    spaces = {space: (Tool(name, ("it",), 0),) for space, name in FUNCTIONS.items()}
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
@given(STARTS, PROGRAMS, st.sampled_from(SECRETS), st.sampled_from(SECRETS))
def test_no_private_value_reaches_an_outward_call_without_private_inputs(
    start: str, program: str, first: object, second: object
) -> None:
    check(start + program, first, second)

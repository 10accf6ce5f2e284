"""Tools as a model reads them: identifiers, signatures, stub files, manuals."""

import ast
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolbus_codemode.catalog.examples import LONGEST_EXAMPLE, example, example_lines, sampled
from toolbus_codemode.catalog.identifiers import distinct
from toolbus_codemode.catalog.namespace import ToolNamespace
from toolbus_codemode.catalog.signatures import LONGEST_TYPE, parameters, signature, type_of
from toolbus_codemode.catalog.stub_tree import WHOLE, read, stub, tree
from toolbus_codemode.catalog.tool_docs import manual
from toolbus_common.access.principal import EffectiveGrants
from toolbus_common.errors import InvalidError

EVERYTHING = EffectiveGrants((("*",),))
ISSUE = {
    "type": "object",
    "properties": {
        "labels": {"type": "array", "items": {"type": "string"}},
        "title": {"type": "string", "description": "What it is about."},
        "state": {"enum": ["open", "closed"], "default": "open"},
        "author": {"type": "object", "properties": {"id": {"type": "integer"}}, "required": ["id"]},
    },
    "required": ["title"],
}


def namespace(bounds: EffectiveGrants = EVERYTHING) -> ToolNamespace:
    issue = {"description": "Create an issue. It is public.", "inputSchema": ISSUE}
    listed = {"description": "List the issues of a repository.", "inputSchema": {"type": "object"}}
    mail = {"description": "Send an e-mail to a person."}
    github = {"create_issue": issue, "list_issues": listed}
    return ToolNamespace({"git-hub": github, "mail": {"send": mail}}, bounds)


@given(st.lists(st.text("ab-_.", min_size=1, max_size=4), unique=True))
def test_no_two_names_share_an_identifier(names: list[str]) -> None:
    made = distinct(names)
    assert sorted(made.values()) == sorted(names)
    assert all(each.isidentifier() for each in made)


def test_a_signature_lists_required_parameters_first() -> None:
    assert signature("create_issue", ISSUE) == (
        'create_issue(title: str, labels: list[str] = None, state: "open" | "closed" = "open", '
        "author: {id: int} = None)"
    )


@pytest.mark.parametrize(
    ("schema", "type_text"),
    [
        ({"type": "string"}, "str"),
        ({"type": ["string", "null"]}, "str | None"),
        ({"anyOf": [{"type": "integer"}, {"type": "array"}]}, "int | list"),
        ({"const": 5}, "5"),
        ({"type": "object", "additionalProperties": {"type": "number"}}, "dict[str, float]"),
        ({"$ref": "#/x"}, "Any"),
        (None, "Any"),
        ({"enum": list(range(20))}, "0 | 1 | 2 | 3 | 4 | 5 | 6 | 7 | …"),
    ],
)
def test_a_schema_reads_as_a_type(schema: Any, type_text: str) -> None:
    assert type_of(schema) == type_text


def test_a_signature_ends_with_the_return_type_if_known() -> None:
    output = {"type": "object", "properties": {"id": {"type": "integer"}}, "required": ["id"]}
    assert signature("get", {}, output) == "get() -> {id: int}"
    assert signature("get", {}, {"type": "array", "items": {"type": "string"}}).endswith(
        "-> list[str]"
    )
    assert signature("get", {}, None) == signature("get", {}, {}) == "get()"


def test_a_return_type_is_shortened_to_fit_on_a_line() -> None:
    inner = {"type": "object", "properties": {f"field_{n}": {"type": "string"} for n in range(30)}}
    output = {"type": "object", "properties": {"one": inner, "many": {"type": "array"}}}
    assert signature("get", {}, output) == "get() -> {one?: dict, many?: list}"
    wide = {"type": "object", "properties": {f"f{n}": {"type": "string"} for n in range(500)}}
    assert signature("get", {}, wide) == "get() -> dict"


def nested(kind: str, levels: int) -> Any:
    """Return a schema of this kind with so many levels."""
    made: Any = {"type": "string"}
    for _ in range(levels):
        made = {
            "list": {"type": "array", "items": made},
            "either": {"anyOf": [made, made, made, made]},
            "kinds": {"type": ["object", "array", "null"] * 50, "properties": {"a": made}},
            "object": {"type": "object", "properties": {"a": made, "b": made, "c": made}},
            "dict": {"type": "object", "additionalProperties": made},
        }[kind]
    return made


@pytest.mark.parametrize("kind", ["list", "either", "kinds", "object", "dict"])
def test_a_hostile_schema_gets_a_bounded_type(kind: str) -> None:
    # The levels share one object, so it is small in memory.
    levels = 500 if kind != "either" else 60
    schema = nested(kind, levels)
    assert len(type_of(schema)) <= LONGEST_TYPE
    result = signature("f", {"properties": {"x": schema}}, schema)
    assert len(result) <= LONGEST_TYPE + 300


def test_a_signature_with_too_many_parameters_is_shortened() -> None:
    many = {"properties": {f"p{n}\n": {"enum": ["x" * 9999]} for n in range(50_000)}}
    result = signature("f", many)
    assert result.endswith(", …)")
    assert "\n" not in result
    assert len(result) < 20_000


@given(
    st.recursive(
        st.none() | st.booleans() | st.text(max_size=5) | st.integers(),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    ["type", "properties", "required", "items", "enum", "anyOf", "default", "a"]
                ),
                inner,
                max_size=4,
            )
        ),
        max_leaves=20,
    )
)
def test_no_schema_makes_a_stub_fail(schema: Any) -> None:
    assert all(isinstance(each, str) for each in parameters(schema))


def test_the_tree_lists_a_file_for_each_server_and_tool() -> None:
    servers = tree(namespace()).splitlines()
    assert servers[:2] == ["git_hub.pyi  # 2 tools", "mail.pyi  # 1 tool"]
    tools = tree(namespace(), "git_hub").splitlines()
    assert tools[:2] == ["git_hub/create_issue.pyi", "git_hub/list_issues.pyi"]
    assert tree(namespace(EffectiveGrants(()).narrowed([()]))) == "(no tools)"


def test_a_tool_outside_the_callers_grants_is_not_shown() -> None:
    bounded = namespace(EffectiveGrants((("git-hub__list_issues",),)))
    assert "create_issue" not in read(bounded, "git_hub.pyi")
    assert tree(bounded).splitlines() == [
        "git_hub.pyi  # 1 tool",
        "# in a program: result = git_hub.list_issues()",
    ]
    with pytest.raises(InvalidError):
        read(bounded, "mail.pyi")


def test_a_file_has_a_sample_call_and_a_line_for_each_tool() -> None:
    lines = read(namespace(), "servers/git_hub.pyi").splitlines()
    assert lines[0] == "# call as git_hub.<function>(name=value)"
    assert lines[1] == '# in a program: result = git_hub.create_issue(title="…")'
    assert lines[2].startswith("create_issue(title: str")
    assert lines[3] == "list_issues()  # List the issues of a repository"
    assert "create_issue" in read(namespace(), "git_hub/create_issue.pyi")


@pytest.mark.parametrize(("start", "end"), [(1, 1), (3, 3), (9, None), (0, 0), (2, 1)])
def test_a_small_file_is_returned_whole_for_any_range(start: int, end: int | None) -> None:
    whole = read(namespace(), "git_hub.pyi")
    assert read(namespace(), "git_hub.pyi", start, end) == whole


def test_a_long_file_is_read_by_lines() -> None:
    tools: dict[str, Any] = {f"tool_{number:03}": {} for number in range(WHOLE)}
    long = ToolNamespace({"big": tools}, EVERYTHING)
    lines = read(long, "big.pyi").splitlines()
    assert len(lines) == WHOLE + 2
    assert read(long, "big.pyi", 3, 3).splitlines()[0] == lines[2]
    cut = read(long, "big.pyi", 1, 1).splitlines()
    assert cut == [lines[0], f"# … {WHOLE + 1} more lines; read on with startLine=2"]
    assert read(long, "big.pyi", WHOLE + 2) == lines[-1]
    with pytest.raises(InvalidError, match=f"lines 1 to {WHOLE + 2}"):
        read(long, "big.pyi", WHOLE + 3)


def test_the_list_of_servers_has_two_sample_calls_of_the_callers_tools() -> None:
    assert tree(namespace()).splitlines()[2:] == [
        '# in a program: result = git_hub.create_issue(title="…")',
        "# in a program: result = mail.send()",
    ]


def test_a_sample_call_is_of_a_read_only_tool_if_there_is_one() -> None:
    tools: dict[str, Any] = {
        "add": {"inputSchema": {"properties": {"a": {}}, "required": ["a"]}},
        "show": {"annotations": {"readOnlyHint": True}},
    }
    shown = ToolNamespace({"notes": tools}, EVERYTHING)
    for text in (tree(shown), tree(shown, "notes"), read(shown, "notes.pyi")):
        assert "# in a program: result = notes.show()" in text.splitlines()
        assert "result = notes.add" not in text


def test_found_tools_have_a_sample_call_that_reads_before_one_that_may_write() -> None:
    reading: dict[str, Any] = {"annotations": {"readOnlyHint": True}}
    tools = ToolNamespace({"git": {"commit": {}, "log": reading, "show": reading}}, EVERYTHING)
    commit, log, show = sorted(tools.tools(), key=lambda tool: tool.name)
    assert example_lines(sampled([commit, log, show]), 2) == [
        "# in a program: result = git.log()",
        "# in a program: result = git.commit()",
    ]
    assert sampled([log, commit]) == [log]
    assert sampled([commit]) == [commit]


def test_a_sample_call_is_short_and_can_be_parsed() -> None:
    numbers = [f"p{number}" for number in range(99)]
    schemas: dict[str, Any] = {
        "odd": {"properties": {"x-y": {"type": "integer"}, "a": {}}, "required": ["x-y", "a"]},
        "long": {"properties": {"a": {"enum": ["x" * 9_999]}}, "required": ["a"]},
        "many": {"properties": {each: {} for each in numbers}, "required": numbers},
        "keyword": {"properties": {"from": {"type": "string"}}, "required": ["from"]},
    }
    tools = {name: {"inputSchema": schema} for name, schema in schemas.items()}
    made = example_lines(ToolNamespace({"s": tools}, EVERYTHING).tools(), 9)
    calls = [line.removeprefix("# in a program: result = ") for line in made]
    assert calls[0] == "s.keyword(**{'from': '…'})"
    assert "s.odd(a=\"…\", **{'x-y': 1})" in calls
    assert not any(call.startswith(("s.long", "s.many")) for call in calls)
    for call in calls:
        assert len(call) <= LONGEST_EXAMPLE
        ast.parse(call)


def test_a_missing_file_is_an_error_that_lists_what_exists() -> None:
    with pytest.raises(InvalidError, match="the servers are git_hub, mail"):
        read(namespace(), "github.pyi")
    with pytest.raises(InvalidError, match=r"git_hub\.create_issue"):
        read(namespace(), "git_hub/create_isue.pyi")


def test_a_manual_describes_every_parameter_and_an_example() -> None:
    tool = namespace().tool("git_hub", "create_issue")
    assert tool is not None
    result = manual(tool)
    assert "It is public." in result
    assert "- title: str: What it is about." in result
    assert 'result = git_hub.create_issue(title="…")' in result
    ast.parse(example(tool))


def test_a_stub_is_one_line() -> None:
    for tool in namespace().tools():
        assert "\n" not in stub(tool, tool.path)


# -- without programs --------------------------------------------------------------------------


def test_a_tool_is_shown_by_the_name_its_caller_uses() -> None:
    tool = namespace().tool("git_hub", "git-hub__create_issue")
    assert tool is not None
    assert tool.called == "git-hub__create_issue"
    result = manual(tool, plain=True)
    assert result.startswith("git-hub__create_issue(title: str")
    assert result.endswith('Example:\ngit-hub__create_issue {"title": "…"}')


@pytest.mark.parametrize("server", ["json", "results", "print", "result", "asyncio"])
def test_a_server_cannot_shadow_a_builtin_of_programs(server: str) -> None:
    made = ToolNamespace({server: {"get": {}}}, EVERYTHING)
    assert list(made.spaces) == [f"{server}_2"]
    assert made.tool(server, "get") is not None


@pytest.mark.parametrize(
    ("output", "member"),
    [
        ({"properties": {"content": {"type": "string"}}, "required": ["content"]}, '["content"]'),
        ({"properties": {"items": {"type": "array"}}, "required": ["items"]}, '["items"]'),
        ({"properties": {"content": {"type": "string"}}}, ""),
        ({"properties": {"count": {"type": "integer"}}, "required": ["count"]}, ""),
        ({"properties": {"a": {"type": "string"}, "b": {}}, "required": ["a"]}, ""),
        ({"properties": {"a": True}, "required": ["a"]}, ""),
        ([], ""),
    ],
)
def test_an_example_selects_the_only_text_or_list_of_a_result(output: Any, member: str) -> None:
    definition = {"outputSchema": output, "annotations": {"readOnlyHint": True}}
    (tool,) = ToolNamespace({"disk": {"read": definition}}, EVERYTHING).tools()
    assert example(tool) == f"disk.read(){member}"
    assert example_lines([tool]) == [f"# in a program: result = disk.read(){member}"]

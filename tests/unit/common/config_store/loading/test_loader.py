"""The configuration file: problems with line and fix; an invalid file is not loaded."""

from pathlib import Path

import pytest
import yaml

from toolbus_cli.config_file import LARGEST_FILE, ConfigurationError, load_file
from toolbus_cli.errors import CommandError
from toolbus_common.access.config_snapshot import hash_of, key_digest_of
from toolbus_common.config import Configuration
from toolbus_common.config_store.loading.document import read
from toolbus_common.config_store.loading.loader import Loaded, load

SECRET = "a-secret-of-24-characters"
WHOLE = """\
servers:
  docs: {url: "https://docs.example/mcp", headers: {Authorization: "${env:DOCS_TOKEN}"}}
  git:  {command: ["mcp-server-git", "--repository", "."], env: {LANG: C.UTF-8}}
customers: {acme: {budget: {usd: 500, per: month}}}
teams:     {support: {customer: acme, tools: ["docs__*"]}}
keys:
  bot: {team: support, secret: "${env:BOT_KEY}", tools: ["docs__*", "git__git_log"],
        budget: {usd: 20, per: day}, rate: {calls: 600, per: minute}}
  coder: {tools: ["*"], expires: 2127-01-01}
prices: {"docs__search": 0.002, "*": 0}
"""


def problems(text: str, **environ: str) -> list[tuple[int, str]]:
    return [(problem.line, str(problem)) for problem in load(text, environ).problems]


def only_problem(text: str, **environ: str) -> tuple[int, str]:
    (found,) = problems(text, **environ)
    return found


def clean(text: str, **environ: str) -> Loaded:
    loaded = load(text, environ)
    assert [str(problem) for problem in loaded.problems] == []
    return loaded


def test_the_documented_form_is_loaded() -> None:
    loaded = clean(WHOLE, BOT_KEY=SECRET, DOCS_TOKEN="x")
    declared = loaded.configuration
    assert list(declared.servers) == ["docs", "git"]
    assert declared.teams["support"].customer == "acme"
    assert declared.keys["bot"].secret_hash == hash_of(key_digest_of(SECRET))
    assert declared.keys["coder"].secret_hash == ""
    assert declared.prices == {"docs__search": 0.002, "*": 0}
    assert loaded.warnings == ()


def test_a_file_of_this_version_may_say_so() -> None:
    assert clean("version: 1\n" + WHOLE, BOT_KEY=SECRET, DOCS_TOKEN="x") == clean(
        WHOLE, BOT_KEY=SECRET, DOCS_TOKEN="x"
    )


def test_a_file_of_a_newer_version_is_refused_with_what_to_do() -> None:
    line, message = only_problem("servers: {}\nversion: 2\n")
    assert line == 2
    assert message == (
        "version: is 2, but this Toolbus reads files up to version 1; use a newer Toolbus, or "
        "write the file for this one"
    )


@pytest.mark.parametrize("version", ["0", "-1", "'1'", "1.0", "true", "[1]"])
def test_a_version_is_a_whole_number(version: str) -> None:
    assert "must be a whole number" in only_problem(f"version: {version}\n")[1]


def test_a_servers_reference_is_left_for_the_executor() -> None:
    declared = clean(WHOLE, BOT_KEY=SECRET, DOCS_TOKEN="x").configuration
    assert declared.servers["docs"].headers == {"Authorization": "${env:DOCS_TOKEN}"}


def test_a_reader_without_a_secret_is_a_warning() -> None:
    text = f'readers: {{a: {{customers: [acme]}}, b: {{customers: [x], secret: "{SECRET}"}}}}'
    (warning,) = clean(text).warnings
    assert str(warning).startswith("readers.a: has no secret")


def test_a_configuration_holds_no_secret() -> None:
    loaded = clean(f'keys: {{bot: {{secret: "{SECRET}"}}}}')
    assert SECRET not in loaded.configuration.model_dump_json()
    assert SECRET not in repr(loaded)


def test_an_empty_file_is_an_empty_configuration() -> None:
    assert clean("").configuration == Configuration()
    assert clean("servers:\nkeys:\n").configuration == Configuration()


def test_every_problem_is_reported() -> None:
    text = """\
servers:
  docs: {url: "ftp://docs"}
keys:
  bot:
    team: suport
    tols: ["*"]
    budget: {usd: -1, per: day}
teams: {support: {}}
"""
    assert [line for line, _ in problems(text)] == [2, 5, 6, 7]


MESSAGES = {
    "unknown field": (
        'keys:\n  bot: {tols: ["*"]}', 2, "keys.bot.tols: is unknown; did you mean 'tools'?",
    ),
    "unknown team": (
        "teams: {support: {}}\nkeys:\n  bot: {team: suport}", 3,
        "keys.bot.team: no team 'suport' is configured; did you mean 'support'?",
    ),
    "repeated name": (
        "keys:\n  bot: {}\n  bot: {}", 3, "keys.bot: occurs twice; the first is on line 2",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("text", "line", "message"), MESSAGES.values(), ids=MESSAGES)
def test_a_problem_names_its_field_and_a_fix(text: str, line: int, message: str) -> None:
    assert only_problem(text) == (line, message)


ALIASES = """servers:
  docs:
    url: "http://docs.example/mcp"
    tools:
      a: {alias: c}
      b: {alias: c}
"""
TWO_CUSTOMERS = """customers: {a: {}, b: {}}
teams: {t: {customer: a}}
users: {u: {customer: b}}
keys: {k: {team: t, user: u}}
"""
NO_SECTIONS, BAD_NAME = "must have sections", "is not a valid name: use at most 32"
PROBLEMS = {
    "unknown section": ("server: {}", 1, "did you mean 'servers'?"),
    "later section": ('hooks: {a: {url: "http://a"}}', 1, "is not supported by this version"),
    "unknown customer": (
        "teams:\n  support:\n    customer: acme", 3, "no customer 'acme' is configured",
    ),
    "missing variable": (
        'keys:\n  bot: {secret: "${env:BOT_KEY}"}', 2, "the environment has no BOT_KEY; set it",
    ),
    "two kinds": ('servers:\n\n  a: {url: "http://a", command: [b]}', 3, "exactly one of 'url'"),
    "unknown group": (
        "groups: {readers: {tools: ['*']}}\nkeys: {a: {groups: [reader]}}", 2,
        "did you mean 'readers'?",
    ),
    "two customers": (TWO_CUSTOMERS, 4, "only one customer can pay"),
    "one alias": (ALIASES, 4, "a and b would both have the name c; give one of them another alias"),
    "reserved name": ('servers: {toolbus: {url: "http://a.example"}}', 1, "reserved for Toolbus"),
    "a list": ("- a\n- b\n", 1, NO_SECTIONS),
    "words": ("just words", 1, NO_SECTIONS),
    "a number": ("7", 1, NO_SECTIONS),
    "name with separator": ('keys:\n  "a__b": {}', 2, BAD_NAME),
    "name with space": ('keys:\n  "has space": {}', 2, BAD_NAME),
    "name too long": (f'keys:\n  "{"x" * 33}": {{}}', 2, BAD_NAME),
    "name with dash first": ('keys:\n  "-a": {}', 2, BAD_NAME),
}  # fmt: skip


@pytest.mark.parametrize(("text", "line", "words"), PROBLEMS.values(), ids=PROBLEMS)
def test_a_problem_is_reported_on_its_line(text: str, line: int, words: str) -> None:
    found, message = only_problem(text)
    assert found == line
    assert words in message


@pytest.mark.parametrize(
    ("text", "secret", "words"),
    [
        ("keys:\n  bot:\n    secret: hunter2", "hunter2", "shorter than 24 characters"),
        (
            f"keys:\n  a: {{secret: {SECRET}}}\n  b: {{secret: {SECRET}}}", SECRET,
            "also the secret of the key 'a'",
        ),
    ],
    ids=["too short", "used twice"],
)  # fmt: skip
def test_a_problem_of_a_secret_does_not_show_it(text: str, secret: str, words: str) -> None:
    line, message = only_problem(text)
    assert line == 3
    assert words in message
    assert secret not in message


def test_invalid_yaml_is_reported_with_its_line() -> None:
    line, message = only_problem("keys:\n  bot: {tools: [")
    assert line >= 2
    assert "the file is not valid YAML" in message


@pytest.mark.parametrize("text", ["- " * 50_000 + "x", "keys: " + "[" * 50_000])
def test_deep_nesting_is_reported(text: str) -> None:
    (problem,) = read(text).problems
    assert problem.message == "the file is nested too deeply"


@pytest.mark.parametrize(
    "text", [WHOLE, "a: &x {b: [1, 2.5, null]}\nc: *x\nd: |\n  text\n\n  more\ne: {<<: *x, f: 'g'}"]
)
def test_both_yaml_parsers_agree(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for quick in (yaml.__with_libyaml__, False):
        monkeypatch.setattr(yaml, "__with_libyaml__", quick)
        found.append(read(text))
    assert found[0] == found[1]
    assert found[0].data


def test_a_python_tag_is_not_executed(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    assert problems(f'keys: !!python/object/apply:os.system ["touch {trace}"]')
    assert problems(f"keys: {{a: {{team: !!python/object/apply:os.mkdir [{trace}]}}}}")
    assert not trace.exists()


def test_an_unknown_tag_is_reported() -> None:
    assert any(
        "uses the unknown tag" in message for _, message in problems("keys: {a: {team: !x y}}")
    )


def test_an_alias_bomb_is_rejected() -> None:
    lines = ["a0: &a0 {x: 1}"]
    lines += [
        f"a{n}: &a{n} {{" + ", ".join(f"k{i}: *a{n - 1}" for i in range(9)) + "}"
        for n in range(1, 9)
    ]
    _, message = only_problem("\n".join(lines))
    assert "an alias counts at each use" in message
    assert "'toolbus keys create'" in message


def test_a_pattern_without_a_server_is_a_warning() -> None:
    loaded = clean('servers: {docs: {url: "http://a.example"}}\nkeys:\n  a: {tools: ["dogs__*"]}')
    (warning,) = loaded.warnings
    assert warning.line == 3
    assert "did you mean 'docs'?" in str(warning)


def test_an_invalid_file_is_reported_with_path_and_lines(tmp_path: Path) -> None:
    path = tmp_path / "toolbus.yaml"
    path.write_text("keys:\n  bot: {tols: []}\nservers: 3\n")
    with pytest.raises(ConfigurationError) as result:
        load_file(path, {})
    lines = str(result.value).splitlines()
    assert lines[0].startswith(f"{path}:2: keys.bot.tols")
    assert lines[1].startswith(f"{path}:3: servers")
    assert lines[2] == f"{path} has 2 errors; nothing was applied."


RULES = """\
teams: {support: {}}
rules:
  etc:
    cedar: forbid(principal, action, resource) when { context.arguments.path like "/etc*" };
  broken:
    cedar: forbid(
  lost:
    cedar: |
      forbid(principal in Team::"suport", action, resource);
"""


def test_every_invalid_rule_is_reported_with_its_line_and_a_fix() -> None:
    found = problems(RULES)
    assert [line for line, _ in found] == [4, 6]
    assert "test it first: context.arguments has path" in found[0][1]
    assert found[1][1] == "rules.broken.cedar: is not Cedar: unexpected end of input"


def test_an_unknown_name_in_a_rule_is_a_warning() -> None:
    (warning,) = load(RULES, {}).warnings
    assert warning.line == 8
    assert "did you mean 'support'?" in str(warning)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"#" * (LARGEST_FILE + 1), "'toolbus keys create'"),
        (b"\xff\xfe\x00k", "not UTF-8"),
        (None, r"cannot be read .* choose another file with -c"),
    ],
    ids=["too large", "no text", "missing"],
)
def test_a_file_that_cannot_be_read_is_reported_with_a_fix(
    content: bytes | None, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "toolbus.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CommandError, match=message):
        load_file(path, {})


def test_an_api_has_references_and_a_file_path_relative_to_the_configuration(
    tmp_path: Path,
) -> None:
    path = tmp_path / "toolbus.yaml"
    path.write_text(
        "servers:\n"
        "  crm:\n"
        "    openapi: ./crm.yaml\n"
        '    credentials: {token: "${env:CRM_TOKEN}"}\n'
        '    operations: {include: ["tag:contacts"]}\n'
    )
    loaded = load_file(path, {})
    server = loaded.configuration.servers["crm"]
    assert server.openapi == str(tmp_path.resolve() / "crm.yaml")
    assert server.credentials == {"token": "${env:CRM_TOKEN}"}
    (warning,) = loaded.warnings
    assert (warning.line, warning.path) == (4, "servers.crm.credentials.token")


def test_replicas_are_urls_with_optional_weights(tmp_path: Path) -> None:
    path = tmp_path / "toolbus.yaml"
    path.write_text(
        "servers:\n"
        "  docs:\n"
        "    replicas:\n"
        '      - "http://a.example/mcp"\n'
        '      - {url: "http://b.example/mcp", weight: 3}\n'
    )
    server = load_file(path, {}).configuration.servers["docs"]
    items = [(each.url, each.weight) for each in server.replicas]
    assert items == [("http://a.example/mcp", 1), ("http://b.example/mcp", 3)]


@pytest.mark.parametrize(
    ("server", "words"),
    [
        ("{url: 'http://a.example', replicas: ['http://b.example']}", "needs exactly one of 'url'"),
        ("{replicas: ['ftp://a.example']}", "must begin with http:// or https://"),
        ("{replicas: ['http://a.example', 'http://a.example']}", "names a URL twice"),
        ("{replicas: [{url: 'http://a.example', weight: 0}]}", "greater than or equal to 1"),
        ("{replicas: []}", "needs exactly one of 'url'"),
        ("{openapi: a.yaml, operations: {includes: [a]}}", "did you mean 'include'?"),
        ("{openapi: a.yaml, url: 'http://a.example'}", "needs exactly one of 'url'"),
        ("{openapi: 'ftp://a.example/x'}", "must be a file, or a URL with http"),
        (
            "{url: 'http://a.example', credentials: {a: b}}",
            "applies only to servers with 'openapi'; remove it",
        ),
        ("{openapi: a.yaml, credentials: {a: '${CRM}'}}", "not of the form ${env:NAME}"),
        ("{openapi: a.yaml, refresh: 1}", "greater than or equal to 5"),
        ("{python: 'os.system'}", "write package.module:function"),
    ],
)
def test_an_invalid_server_is_reported_on_its_line(server: str, words: str) -> None:
    line, message = only_problem(f"keys: {{}}\nservers:\n  a: {server}")
    assert line == 3
    assert words in message

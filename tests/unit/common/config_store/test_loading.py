"""The configuration file: each fault with its line and a mend, and a faulty file gives nothing."""

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


def faults(text: str, **environ: str) -> list[tuple[int, str]]:
    return [(fault.line, str(fault)) for fault in load(text, environ).problems]


def only_problem(text: str, **environ: str) -> tuple[int, str]:
    (found,) = faults(text, **environ)
    return found


def clean(text: str, **environ: str) -> Loaded:
    loaded = load(text, environ)
    assert [str(fault) for fault in loaded.problems] == []
    return loaded


def test_the_documented_form_is_taken_whole() -> None:
    loaded = clean(WHOLE, BOT_KEY=SECRET, DOCS_TOKEN="x")
    declared = loaded.configuration
    assert list(declared.servers) == ["docs", "git"]
    assert declared.teams["support"].customer == "acme"
    assert declared.keys["bot"].secret_hash == hash_of(key_digest_of(SECRET))
    assert declared.keys["coder"].secret_hash == ""
    assert declared.prices == {"docs__search": 0.002, "*": 0}
    assert loaded.warnings == ()


def test_a_reference_of_a_server_is_left_for_the_executor() -> None:
    declared = clean(WHOLE, BOT_KEY=SECRET, DOCS_TOKEN="x").configuration
    assert declared.servers["docs"].headers == {"Authorization": "${env:DOCS_TOKEN}"}


def test_a_reader_without_a_secret_is_warned_of() -> None:
    text = f'readers: {{a: {{customers: [acme]}}, b: {{customers: [x], secret: "{SECRET}"}}}}'
    (warning,) = clean(text).warnings
    assert str(warning).startswith("readers.a: has no secret")


def test_a_secret_is_nowhere_in_what_is_declared() -> None:
    loaded = clean(f'keys: {{bot: {{secret: "{SECRET}"}}}}')
    assert SECRET not in loaded.configuration.model_dump_json()
    assert SECRET not in repr(loaded)


def test_an_empty_file_declares_nothing() -> None:
    assert clean("").configuration == Configuration()
    assert clean("servers:\nkeys:\n").configuration == Configuration()


def test_every_problem_is_told_with_its_line() -> None:
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
    assert [line for line, _ in faults(text)] == [2, 5, 6, 7]


def test_an_unknown_field_is_reported_with_the_nearest_name() -> None:
    assert only_problem('keys:\n  bot: {tols: ["*"]}') == (
        2,
        "keys.bot.tols: is unknown; did you mean 'tools'?",
    )


def test_an_unknown_section_is_reported_with_the_nearest_name() -> None:
    line, message = only_problem("server: {}")
    assert line == 1
    assert "did you mean 'servers'?" in message


def test_a_thing_of_a_later_version_is_reported_as_such() -> None:
    message = only_problem('hooks: {a: {url: "http://a.example"}}')[1]
    assert "is not supported by this version" in message


def test_an_unknown_team_is_reported_with_the_nearest_name() -> None:
    line, message = only_problem("teams: {support: {}}\nkeys:\n  bot: {team: suport}")
    assert line == 3
    assert message == "keys.bot.team: no team 'suport' is configured; did you mean 'support'?"


def test_an_unknown_customer_is_reported() -> None:
    line, message = only_problem("teams:\n  support:\n    customer: acme")
    assert line == 3
    assert "no customer 'acme' is configured" in message


def test_a_name_given_twice_is_reported_with_both_lines() -> None:
    line, message = only_problem("keys:\n  bot: {}\n  bot: {}")
    assert line == 3
    assert message == "keys.bot: occurs twice; the first is on line 2"


def test_a_short_secret_is_reported_and_not_shown() -> None:
    line, message = only_problem("keys:\n  bot:\n    secret: hunter2")
    assert line == 3
    assert "shorter than 24 characters" in message
    assert "hunter2" not in message


def test_a_missing_variable_is_reported_by_its_name() -> None:
    line, message = only_problem('keys:\n  bot: {secret: "${env:BOT_KEY}"}')
    assert line == 2
    assert "the environment has no BOT_KEY; set it" in message


def test_a_secret_shared_by_two_keys_is_reported_and_not_shown() -> None:
    line, message = only_problem(f"keys:\n  a: {{secret: {SECRET}}}\n  b: {{secret: {SECRET}}}")
    assert line == 3
    assert "also the secret of the key 'a'" in message
    assert SECRET not in message


def test_a_server_of_both_kinds_is_reported_on_its_line() -> None:
    line, message = only_problem('servers:\n\n  a: {url: "http://a.example", command: [b]}')
    assert line == 3
    assert "exactly one of url" in message


@pytest.mark.parametrize("name", ["a__b", "has space", "x" * 33, "-a"])
def test_a_name_that_is_none_is_reported_with_the_rule(name: str) -> None:
    line, message = only_problem(f"keys:\n  {name!r}: {{}}".replace("'", '"'))
    assert line == 2
    assert "is not a valid name: use at most 32" in message


def test_a_text_that_is_no_yaml_is_reported_with_its_line() -> None:
    line, message = only_problem("keys:\n  bot: {tools: [")
    assert line >= 2
    assert "the file is not valid YAML" in message


@pytest.mark.parametrize("text", ["- " * 50_000 + "x", "keys: " + "[" * 50_000])
def test_a_text_nested_without_end_is_reported(text: str) -> None:
    (fault,) = read(text).problems
    assert fault.message == "the file is nested too deeply"


@pytest.mark.parametrize(
    "text", [WHOLE, "a: &x {b: [1, 2.5, null]}\nc: *x\nd: |\n  text\n\n  more\ne: {<<: *x, f: 'g'}"]
)
def test_both_parsers_read_the_same(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for quick in (yaml.__with_libyaml__, False):
        monkeypatch.setattr(yaml, "__with_libyaml__", quick)
        found.append(read(text))
    assert found[0] == found[1]
    assert found[0].data


@pytest.mark.parametrize("text", ["- a\n- b\n", "just words", "7"])
def test_a_text_without_sections_is_reported(text: str) -> None:
    assert "must have sections" in only_problem(text)[1]


def test_a_tag_runs_nothing(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    assert faults(f'keys: !!python/object/apply:os.system ["touch {trace}"]')
    assert faults(f"keys: {{a: {{team: !!python/object/apply:os.mkdir [{trace}]}}}}")
    assert not trace.exists()


def test_an_unknown_tag_is_reported() -> None:
    assert any(
        "uses the unknown tag" in message for _, message in faults("keys: {a: {team: !x y}}")
    )


def test_a_bomb_of_aliases_is_refused() -> None:
    lines = ["a0: &a0 {x: 1}"]
    lines += [
        f"a{n}: &a{n} {{" + ", ".join(f"k{i}: *a{n - 1}" for i in range(9)) + "}"
        for n in range(1, 9)
    ]
    _, message = only_problem("\n".join(lines))
    assert "an alias counts at each use" in message
    assert "'toolbus keys create'" in message


def test_a_file_that_is_too_large_is_reported_with_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "toolbus.yaml"
    path.write_text("#" * (LARGEST_FILE + 1))
    with pytest.raises(CommandError, match="'toolbus keys create'"):
        load_file(path, {})


def test_a_pattern_of_no_server_is_a_warning_only() -> None:
    loaded = clean('servers: {docs: {url: "http://a.example"}}\nkeys:\n  a: {tools: ["dogs__*"]}')
    (warning,) = loaded.warnings
    assert warning.line == 3
    assert "did you mean 'docs'?" in str(warning)


def test_a_faulty_file_tells_its_path_and_lines_and_gives_nothing(tmp_path: Path) -> None:
    path = tmp_path / "toolbus.yaml"
    path.write_text("keys:\n  bot: {tols: []}\nservers: 3\n")
    with pytest.raises(ConfigurationError) as result:
        load_file(path, {})
    lines = str(result.value).splitlines()
    assert lines[0].startswith(f"{path}:2: keys.bot.tols")
    assert lines[1].startswith(f"{path}:3: servers")
    assert lines[2] == f"{path} has 2 errors; nothing was applied."


def test_a_missing_file_is_one_sentence_with_the_fix(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match=r"cannot be read .* choose another file with -c"):
        load_file(tmp_path / "none.yaml", {})


def test_a_file_that_is_not_text_is_one_message(tmp_path: Path) -> None:
    path = tmp_path / "toolbus.yaml"
    path.write_bytes(b"\xff\xfe\x00k")
    with pytest.raises(CommandError, match="not UTF-8"):
        load_file(path, {})


def test_two_tools_of_one_alias_are_a_problem_with_its_line() -> None:
    text = """servers:
  docs:
    url: "http://docs.example/mcp"
    tools:
      a: {alias: c}
      b: {alias: c}
"""
    line, message = only_problem(text)
    assert line == 4
    assert "a and b would both have the name c; give one of them another alias" in message


def test_a_group_nobody_declared_is_named() -> None:
    text = "groups: {readers: {tools: ['*']}}\nkeys: {a: {groups: [reader]}}"
    assert "did you mean 'readers'?" in only_problem(text)[1]


def test_a_key_of_two_customers_is_a_problem() -> None:
    text = (
        "customers: {a: {}, b: {}}\nteams: {t: {customer: a}}\nusers: {u: {customer: b}}\n"
        "keys: {k: {team: t, user: u}}"
    )
    assert "only one customer can pay" in only_problem(text)[1]


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


def test_every_faulty_rule_is_told_with_its_line_and_a_fix() -> None:
    found = faults(RULES)
    assert [line for line, _ in found] == [4, 6]
    assert "test it first: context.arguments has path" in found[0][1]
    assert found[1][1] == "rules.broken.cedar: is not Cedar: unexpected end of input"


def test_a_name_in_a_rule_that_leads_nowhere_is_warned_of() -> None:
    (warning,) = load(RULES, {}).warnings
    assert warning.line == 8
    assert "did you mean 'support'?" in str(warning)


def test_a_server_by_our_own_name_is_a_problem() -> None:
    assert (
        "reserved for Toolbus" in only_problem('servers: {toolbus: {url: "http://a.example"}}')[1]
    )


def test_an_api_is_declared_with_references_and_a_file_that_lies_beside(tmp_path: Path) -> None:
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


def test_replicas_are_urls_with_weights_or_without(tmp_path: Path) -> None:
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
        ("{url: 'http://a.example', replicas: ['http://b.example']}", "needs exactly one of url"),
        ("{replicas: ['ftp://a.example']}", "must begin with http:// or https://"),
        ("{replicas: ['http://a.example', 'http://a.example']}", "names a URL twice"),
        ("{replicas: [{url: 'http://a.example', weight: 0}]}", "greater than or equal to 1"),
        ("{replicas: []}", "needs exactly one of url"),
        ("{openapi: a.yaml, operations: {includes: [a]}}", "did you mean 'include'?"),
        ("{openapi: a.yaml, url: 'http://a.example'}", "needs exactly one of url"),
        ("{openapi: 'ftp://a.example/x'}", "must be a file, or begin with http"),
        (
            "{url: 'http://a.example', credentials: {a: b}}",
            "applies only to servers with openapi; remove it",
        ),
        ("{openapi: a.yaml, credentials: {a: '${CRM}'}}", "not of the form ${env:NAME}"),
        ("{openapi: a.yaml, refresh: 1}", "greater than or equal to 5"),
        ("{python: 'os.system'}", "write package.module:function"),
    ],
)
def test_what_is_wrong_with_an_api_or_a_function_is_reported_on_its_line(
    server: str, words: str
) -> None:
    line, message = only_problem(f"keys: {{}}\nservers:\n  a: {server}")
    assert line == 3
    assert words in message

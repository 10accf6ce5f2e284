"""Providers, aliases and model prices in the file: loaded, or reported with line and fix."""

import pytest

from toolbus_common.config_store.loading.loader import load

SAMPLE = """\
providers:
  local:  {kind: openai, url: "http://127.0.0.1:8081/v1"}
  claude: {kind: anthropic, key: "${env:ANTHROPIC_API_KEY}"}
models:
  team-fast: [{provider: local, model: gemma-270m, weight: 3}, {provider: claude, model: haiku}]
model_prices: {"local/*": {input: 0, output: 0}, "claude/*": {input: 1.0, output: 5.0}}
keys: {bot: {models: ["team-fast"], tools: ["docs__*"], budget: {usd: 20, per: day}}}
servers: {docs: {url: "https://docs.example/mcp"}}
"""


def problems(text: str) -> list[tuple[int, str]]:
    return [(problem.line, str(problem)) for problem in load(text, {}).problems]


def warned(text: str) -> list[str]:
    loaded = load(text, {"ANTHROPIC_API_KEY": "x"})
    assert loaded.problems == ()
    return [str(problem) for problem in loaded.warnings]


def test_the_simplest_form_is_loaded() -> None:
    loaded = load(SAMPLE, {"ANTHROPIC_API_KEY": "x"})
    assert (loaded.problems, loaded.warnings) == ((), ())
    declared = loaded.configuration
    assert declared.providers["claude"].credentials == {"key": "${env:ANTHROPIC_API_KEY}"}
    assert [each.weight for each in declared.models["team-fast"]] == [3, None]
    assert declared.model_prices["claude/*"].output == 5
    assert declared.keys["bot"].models == ("team-fast",)


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        ("{provider: local,", "{provider: locl,", 5, "no provider 'locl'.*did you mean 'local'"),
        ("servers: {docs:", "servers: {local:", 2, "also the name of a server; choose another"),
        (
            '/v1"}',
            '/v1", cache: {semantic: {embeddings: locl/e}}}',
            2,
            "no provider 'locl' is configured; did you mean 'local'",
        ),
        ('/v1"}', '/v1", cache: {scope: world}}', 2, "'key', 'user', 'team' or 'customer'"),
        (
            '/v1"}',
            '/v1", weights: {spare: 2}}',
            2,
            "'weights' names the key 'spare', which is not in 'credentials'",
        ),
        ("kind: anthropic,", "kind: claude,", 3, "openai.*anthropic"),
        ("weight: 3", "weight: 0", 5, "greater than or equal to 1"),
        ("team-fast: [", "team/fast: [", 5, "team/fast"),
        ("budget: {usd: 20,", "rate: {tokens: 9, calls: 1,", 7, "one of 'calls' and 'tokens'"),
        ("{input: 1.0,", "{input: -1.0,", 6, "greater than or equal to 0"),
    ],
    ids=[
        "unknown provider", "name of a server", "unknown embeddings", "unknown scope",
        "weight without a key", "unknown kind",
        "weight of zero", "alias with a slash", "rate in two units", "negative price",
    ],
)  # fmt: skip
def test_a_mistake_is_reported_with_its_line_and_fix(
    old: str, new: str, line: int, message: str
) -> None:
    assert old in SAMPLE
    found = problems(SAMPLE.replace(old, new))
    assert [at for at, _ in found] == [line], found
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(found[0][1])


@pytest.mark.parametrize(
    ("pattern", "hint"),
    [("team-fsat", "'team-fast'"), ("lcoal/*", "'local'"), ("local", "provider/model")],
)
def test_a_pattern_that_matches_no_model_is_a_warning(pattern: str, hint: str) -> None:
    (warning,) = warned(SAMPLE.replace('models: ["team-fast"]', f'models: ["{pattern}"]'))
    assert f"'{pattern}' matches no model" in warning
    assert hint in warning


@pytest.mark.parametrize("pattern", ["*", "team-*", "*/gemma", "local/*", "claude/claude-haiku"])
def test_a_pattern_that_can_match_is_no_warning(pattern: str) -> None:
    assert warned(SAMPLE.replace('models: ["team-fast"]', f'models: ["{pattern}"]')) == []


@pytest.mark.parametrize(
    ("fields", "messages"),
    [
        ("kind: gemini", ["needs a key of the Gemini API"]),
        ("kind: gemini, key: k, ambient: true", ["'ambient' applies only"]),
        ("kind: openai, project: p-1", ["'project' applies only to providers of kind 'vertex'"]),
        ("kind: vertex", ["needs a project", "needs a location", "needs the key of a service"]),
        ("kind: vertex, project: p-1, location: a/b, ambient: true", ["needs a location"]),
        ("kind: vertex, project: p-1, location: us, key: k, ambient: true", ["remove one of them"]),
        ("kind: bedrock", ["needs a region of AWS", "needs 'key'"]),
        (
            "kind: bedrock, region: eu-west-1, credentials: {access_key: a}",
            ["needs secret_key too"],
        ),
        (
            "kind: bedrock, region: eu-west-1, credentials: {access_key: a, secret_key: b, c: d}",
            ["permits no other 'credentials' and no 'weights'"],
        ),
        ("kind: bedrock, region: eu-west-1, key: k, apis: [chat]", ["'apis' applies only"]),
        ('kind: gemini, credentials: {"": k}', ["'credentials' has a key without a name"]),
        (
            'kind: vertex, url: "https://x.example/v1?a=b", project: p-1, location: us, key: k',
            ["a 'url' without a query"],
        ),
    ],
)
def test_all_mistakes_about_a_kind_are_reported_at_once(fields: str, messages: list[str]) -> None:
    ((_, found),) = problems(f"providers: {{p: {{{fields}}}}}\n")
    for message in messages:
        assert message in found


@pytest.mark.parametrize(
    ("fields", "url"),
    [
        ("kind: gemini, key: k", "https://generativelanguage.googleapis.com/v1beta"),
        (
            "kind: vertex, project: p-1, location: europe-west1, key: k",
            "https://europe-west1-aiplatform.googleapis.com/v1/projects/p-1/locations/europe-west1",
        ),
        (
            "kind: vertex, project: p-1, location: global, ambient: true",
            "https://aiplatform.googleapis.com/v1/projects/p-1/locations/global",
        ),
        (
            "kind: bedrock, region: us-east-1, key: k",
            "https://bedrock-runtime.us-east-1.amazonaws.com",
        ),
    ],
)
def test_each_kind_has_the_address_of_its_own_api(fields: str, url: str) -> None:
    loaded = load(f"providers: {{p: {{{fields}}}}}\n", {})
    assert loaded.problems == ()
    assert loaded.configuration.providers["p"].base_url == url

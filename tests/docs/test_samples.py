"""Every sample of the documentation is checked, or says why it is not run."""

import ast
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import starlark
import yaml
from typer.core import TyperGroup

from harness.samples.page_samples import Sample, commands, every_sample, faults
from toolbus_cli.app import with_every_command
from toolbus_codemode.sandbox.starlark.engine import DIALECT
from toolbus_common.config_store.loading.loader import load

SAMPLES = every_sample()
COMMAND_LINE = with_every_command()


class AnyVariable(Mapping[str, str]):
    """An environment in which every variable of an operator's own is set."""

    def __getitem__(self, name: str) -> str:
        if name.startswith(("TOOLBUS_HTTP", "TOOLBUS_PROXY", "TOOLBUS_PUBLIC", "TOOLBUS_TRUSTED")):
            raise KeyError(name)
        return f"a-value-for-{name}-in-documentation".replace("_", "-")

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 1  # not empty


def of(language: str) -> list[Sample]:
    return [sample for sample in SAMPLES if sample.language == language]


@pytest.mark.parametrize("sample", SAMPLES, ids=str)
def test_a_sample_has_a_valid_marker(sample: Sample) -> None:
    assert list(faults(sample)) == []


@pytest.mark.parametrize("sample", of("yaml"), ids=str)
def test_a_configuration_is_valid(sample: Sample) -> None:
    if "not run" in sample.directives:
        assert yaml.safe_load(sample.text) is not None
        return
    alone = {"in", "with"}.isdisjoint(sample.directives)
    text = sample.text if alone else yaml.safe_dump(sample.configuration, sort_keys=False)
    loaded = load(text, AnyVariable())
    assert [str(problem) for problem in loaded.problems] == []
    warned = [
        each for each in loaded.warnings if each.path.startswith(("rules", "exports", "sinks"))
    ]
    assert [str(each) for each in warned] == []


@pytest.mark.parametrize("sample", of("sh"), ids=str)
def test_a_command_line_names_a_command_and_its_options(sample: Sample) -> None:
    for written in commands(sample.text):
        words = written[2:] if written[0] == "--context" else written
        command, options = known(words)
        assert not isinstance(command, TyperGroup) or "--help" in words, shlex.join(words)
        for word in words:
            if word.startswith("-") and word.strip("-"):
                assert word.partition("=")[0] in options, shlex.join(words)


def known(words: list[str]) -> tuple[object, set[str]]:
    """Find the command that words name, and its options."""
    command: Any = COMMAND_LINE
    for word in words:
        if not isinstance(command, TyperGroup):
            break
        if word not in command.commands and command.name == "import":
            command = command.commands["clients"]  # `toolbus import FILE`
        else:
            assert word in command.commands or word == "--help", f"no command: {shlex.join(words)}"
            command = command.commands.get(word, command)
    options = {name for each in command.params for name in (*each.opts, *each.secondary_opts)}
    return command, options | {"--help"}


@pytest.mark.parametrize("sample", of("python"), ids=str)
def test_a_program_has_valid_syntax(sample: Sample) -> None:
    language = sample.directives.get("program", sample.directives.get("run program"))
    if language == "":
        starlark.parse("program", sample.text, DIALECT)
    else:
        flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT if language else 0
        compile(sample.text, str(sample), "exec", flags | ast.PyCF_ONLY_AST)


def test_samples_are_found_with_their_markers() -> None:
    text = "TOOLBUS_KEY=x toolbus call a__b '{\n\"a\": 1}' | jq . # toolbus nothing\n"
    text += (
        "ADMIN=$(.venv/bin/toolbus admins login \\\n --read-only) && claude add toolbus http://x"
    )
    assert list(commands(text)) == [
        ["call", "a__b", '{\n"a": 1}'],
        ["admins", "login", "--read-only"],
    ]
    marked = Sample("a.md", 1, "yaml", "bot: {tools: ['*']}", "in keys; with {teams: {a: {}}}")
    assert marked.directives == {"in": "keys", "with": "{teams: {a: {}}}"}
    assert marked.configuration == {"teams": {"a": {}}, "keys": {"bot": {"tools": ["*"]}}}
    assert list(faults(Sample("a.md", 1, "sh", "ls", ""))) != []
    assert list(faults(Sample("a.md", 1, "sh", "ls", "not run: no"))) != []

"""Search by words and embeddings, within the caller's grants."""

import asyncio
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from toolbus_codemode.catalog.namespace import ToolNamespace
from toolbus_codemode.catalog.search.bm25 import DocumentCache, words
from toolbus_common.access.principal import EffectiveGrants
from toolbus_common.model_api.embeddings import EmbeddingModel, NoModelError

EVERYTHING = EffectiveGrants((("*",),))
TABLE = {"[UNK]": (0, 0), "mail": (1, 0), "letter": (1, 0.1), "issue": (0, 1), "bug": (0.1, 1)}


def namespace(bounds: EffectiveGrants = EVERYTHING) -> ToolNamespace:
    opened: dict[str, Any] = {"properties": {"title": {}, "labels": {}}}
    issue = {"description": "Create an issue. It is public.", "inputSchema": opened}
    listed = {"description": "List the issues of a repository."}
    mail = {"description": "Send an e-mail to a person."}
    return ToolNamespace(
        {"git": {"create_issue": issue, "list_issues": listed}, "mail": {"send": mail}}, bounds
    )


def found(
    query: str, maximum: int = 5, *, bounds: EffectiveGrants = EVERYTHING, model: str = ""
) -> list[str]:
    """Return the paths a search finds, best first."""
    library = DocumentCache(EmbeddingModel(model) if model else None)
    index = asyncio.run(library.index(namespace(bounds).tools()))
    return [tool.path for tool in index.best(query, maximum)]


@pytest.fixture
def model(tmp_path: Path) -> str:
    """Write a model of four words in the format of model2vec."""
    vectors = np.array(list(TABLE.values()), dtype=np.float32)
    save_file({"embeddings": vectors}, tmp_path / "model.safetensors")
    words = {
        "version": "1.0",
        "normalizer": {"type": "Lowercase"},
        "pre_tokenizer": {"type": "Whitespace"},
        "model": {
            "type": "WordLevel",
            "vocab": {word: number for number, word in enumerate(TABLE)},
            "unk_token": "[UNK]",
        },
    }
    (tmp_path / "tokenizer.json").write_text(json.dumps(words))
    return str(tmp_path)


def test_search_finds_by_name_description_and_parameters() -> None:
    assert found("create issues")[0] == "git.create_issue"
    assert found("labels") == ["git.create_issue"]
    assert found("send an email to people", 1) == ["mail.send"]


def test_a_word_of_the_name_outweighs_the_same_word_in_long_descriptions() -> None:
    described = {
        "description": f"Delete a label. {'Orders are sent with labels. ' * 20}orders order"
    }
    offered = {"shop": {"get_order": {"description": "Get one by its id."}, "clear": described}}
    index = asyncio.run(DocumentCache().index(ToolNamespace(offered, EVERYTHING).tools()))
    assert [tool.name for tool in index.best("order", 2)] == ["get_order", "clear"]


def test_a_query_without_a_match_finds_nothing(model: str) -> None:
    for where in ("", model):
        assert found("zebra", model=where) == []
        assert found("", model=where) == []


def test_without_a_model_an_unused_word_finds_nothing() -> None:
    assert found("letter") == []


def test_with_a_model_a_synonym_finds_the_tool(model: str) -> None:
    assert found("letter", model=model) == ["mail.send"]
    assert found("bug", model=model)[0].startswith("git.")


def test_the_packaged_model_finds_synonyms() -> None:
    assert found("message someone", 1, model="wordllama") == ["mail.send"]


def test_exact_words_count_along_with_embeddings(model: str) -> None:
    assert found("list issues", 1, model=model) == ["git.list_issues"]


def test_embeddings_find_nothing_outside_the_callers_grants(model: str) -> None:
    narrow = EffectiveGrants((("git__*",),))
    assert "mail.send" not in found("letter mail", model=model, bounds=narrow)


def test_a_missing_model_is_an_error_with_advice(tmp_path: Path) -> None:
    with pytest.raises(NoModelError, match=r"model\.safetensors is not in"):
        EmbeddingModel(str(tmp_path))
    (tmp_path / "model.safetensors").write_bytes(b"no table")
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(NoModelError, match="cannot be read"):
        EmbeddingModel(str(tmp_path))


def test_changing_descriptions_do_not_grow_the_cache(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(DocumentCache, "LARGEST_KEPT", 1000)
    library = DocumentCache()
    for day in range(50):
        fields = {"description": f"{day}: {'long ' * 40}"}
        index = asyncio.run(
            library.index(ToolNamespace({"docs": {"read": fields}}, EVERYTHING).tools())
        )
        assert [tool.name for tool in index.best("long", 1)] == ["read"]
        assert 0 < library.size <= DocumentCache.LARGEST_KEPT


def test_an_overlong_word_is_not_indexed() -> None:
    assert words(f"send {'x' * 65} mail") == ["send", "mail"]


def test_a_file_name_in_a_query_finds_the_tool_that_reads_files() -> None:
    tree = {"description": "Get a tree of directories as JSON."}
    read = {"description": "Return the text of a file."}
    tools = ToolNamespace({"disk": {"directory_tree": tree, "read_file": read}}, EVERYTHING)
    index = asyncio.run(DocumentCache().index(tools.tools()))
    for query in ("settings.json", "port in /etc/harbor/settings.json", "people.csv"):
        assert index.best(query, 1)[0].path == "disk.read_file"

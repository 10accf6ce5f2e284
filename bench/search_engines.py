"""Search engines on the 508 tools: found tools, time and memory (`python bench/search_engines.py`).

Each engine runs in a process of its own. `tantivy` and `bm25s` are not dependencies: install them
first. Queries are the searches of the scripted tasks (best 4) and their questions (best 8); a
tool counts as found if a task calls it.
"""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

from scripted.catalogue import tools
from scripted.tasks import tasks
from toolbus_codemode.catalog.namespace import Tool, ToolNamespace
from toolbus_codemode.catalog.search.bm25 import WEIGHTS, DocumentCache, words
from toolbus_codemode.catalog.signatures import properties
from toolbus_common.access.principal import EffectiveGrants

ROUNDS = 5
Search = Callable[[str, int], list[str]]  # query and number -> paths, best first


def own(found: Sequence[Tool]) -> Search:
    """Index with our BM25."""
    index = asyncio.run(DocumentCache().index(found))
    return lambda query, most: [tool.path for tool in index.best(query, most)]


def bm25s(found: Sequence[Tool]) -> Search:
    """Index with bm25s: our words and weights, its scores."""
    import bm25s as engine  # type: ignore[import-not-found] # noqa: PLC0415

    texts = [
        words(tool.description) + words(" ".join(properties(tool.schema)))
        + words(tool.name) * WEIGHTS[0] + words(tool.server) * WEIGHTS[1]
        for tool in found
    ]  # fmt: skip
    index = engine.BM25(k1=1.2, b=0.75)
    index.index(texts, show_progress=False)

    def search(query: str, most: int) -> list[str]:
        places, scores = index.retrieve([words(query)], k=most, show_progress=False)
        pairs = zip(places[0], scores[0], strict=True)
        return [found[place].path for place, score in pairs if score > 0]

    return search


def tantivy(found: Sequence[Tool]) -> Search:
    """Index with tantivy: its English stemmer, boosted fields, in memory."""
    import tantivy as engine  # type: ignore[import-not-found] # noqa: PLC0415

    schema = engine.SchemaBuilder().add_text_field("path", stored=True, tokenizer_name="raw")
    for name in ("name", "server", "text"):
        schema = schema.add_text_field(name, tokenizer_name="en_stem")
    index = engine.Index(schema.build())
    writer = index.writer(15_000_000, 1)  # the least it accepts
    for tool in found:
        text = [*words(tool.description), *words(" ".join(properties(tool.schema)))]
        document = engine.Document(path=[tool.path], text=[" ".join(text)])
        document.add_text("name", " ".join(words(tool.name)))
        document.add_text("server", " ".join(words(tool.server)))
        writer.add_document(document)
    writer.commit()
    writer.wait_merging_threads()
    index.reload()
    boosts = {"name": float(WEIGHTS[0]), "server": float(WEIGHTS[1])}

    def search(query: str, most: int) -> list[str]:
        parsed, _ = index.parse_query_lenient(
            " ".join(words(query)), ["name", "server", "text"], field_boosts=boosts
        )
        searcher = index.searcher()
        hits = searcher.search(parsed, most).hits
        return [searcher.doc(address)["path"][0] for _, address in hits]

    return search


ENGINES = {"own": own, "bm25s": bm25s, "tantivy": tantivy}


def measured(engine: str) -> dict[str, float]:
    """Measure one engine in this process."""
    offered = {
        server: {each["name"]: each for each in listed} for server, listed in tools().items()
    }
    found = list(ToolNamespace(offered, EffectiveGrants((("*",),))).tools())
    before = _resident()
    builds = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        search = ENGINES[engine](found)
        builds.append(time.perf_counter() - started)
    queries = [
        (query, 4, task.used) for task in tasks() for query in task.family.searches
    ]  # fmt: skip
    spent = []
    for query, most, _ in queries * ROUNDS:
        started = time.perf_counter()
        search(query, most)
        spent.append(time.perf_counter() - started)
    by_search = [
        (set().union(*(search(query, 4) for query in task.family.searches)), task.used)
        for task in tasks()
    ]
    by_question = [(set(search(task.question, 8)), task.used) for task in tasks()]
    return {
        "tools": len(found),
        "by_search": _share(by_search),
        "by_question": _share(by_question),
        "first_build_ms": builds[0] * 1e3,
        "build_ms": median(builds) * 1e3,
        "query_us": median(spent) * 1e6,
        "memory_mb": _resident() - before,
    }


def _share(pairs: Sequence[tuple[set[str], frozenset[str]]]) -> float:
    """Return the percentage of the tools in use that were found."""
    return 100 * sum(len(found & used) for found, used in pairs) / sum(len(u) for _, u in pairs)


def _resident() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6


def main() -> None:
    """Print a row for each engine."""
    table = Table("engine", "found by search %", "by question %", "first index ms", "index ms",
                  "query µs", "memory MB")  # fmt: skip
    for name in ENGINES:
        run = subprocess.run([sys.executable, __file__, name], capture_output=True, check=False)
        if run.returncode:
            table.add_row(name, run.stderr.decode().strip().rpartition("\n")[2])
            continue
        figures = json.loads(run.stdout)
        columns = ("by_search", "by_question", "first_build_ms", "build_ms", "query_us")
        table.add_row(
            name, *(f"{figures[each]:.1f}" for each in columns), f"{figures['memory_mb']:.0f}"
        )
    Console(width=100).print(table)


if __name__ == "__main__":
    if sys.argv[1:]:
        sys.stdout.write(json.dumps(measured(sys.argv[1])))
    else:
        main()

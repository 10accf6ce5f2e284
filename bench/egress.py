"""Every address spelling at every entry point that takes a URL, and the number that got through."""

import asyncio
import logging
import sys
import tempfile
from pathlib import Path
from typing import Any

from rich.table import Table

from figures import console, keep
from harness.samples.address_spellings import spellings
from harness.samples.url_settings import (
    CALLED,
    LED_TO,
    Count,
    Entrance,
    Listener,
    Tried,
    counted,
    lists,
)


def main() -> int:
    """Run all attempts; return 1 if a forbidden address was reached."""
    logging.disable()  # every denial is logged
    rows = asyncio.run(_tried())
    hits = sum(row["hits"] for row in rows)
    _show(rows, hits)
    met = not hits and all(row["control"] for row in rows)
    keep("egress", {"hits": hits, "met": met, "rows": rows})
    return 0 if met else 1


async def _tried() -> list[dict[str, Any]]:
    rows = []
    with tempfile.TemporaryDirectory() as directory:
        for kind, entrances in (("called", CALLED), ("led to", LED_TO)):
            for name, entrance in entrances.items():
                rows.append({"entrance": name, "is": kind} | await _row(entrance, Path(directory)))
    return rows


async def _row(entrance: Entrance, directory: Path) -> dict[str, Any]:
    """Return the figures of one entry point, and as a control the hits of an allowed server."""
    async with Listener().listening() as seen, Listener().listening() as leader:
        tried = Tried(lists(f"127.0.0.1:{leader.port}"), leader, directory)
        count: Count = await counted(entrance, spellings(seen.port), tried, seen)
        control = leader.hits
        if not control:
            listed = Tried(lists("127.0.0.0/8"), leader, directory)
            control = (await counted(entrance, [seen.url], listed, seen)).hits
    return {
        "probes": count.probes,
        "refused": count.refused,
        "hits": count.hits,
        "through": count.through,
        "control": control,
    }


def _show(rows: list[dict[str, Any]], hits: int) -> None:
    table = Table("entry point", "kind", "probes", "denied", "hits", "hits of the control")
    for row in rows:
        items = (row[each] for each in ("entrance", "is", "probes", "refused", "hits", "control"))
        table.add_row(*map(str, items))
    console.print(table)
    console.print(f"S9: {hits} hits at loopback of {sum(row['probes'] for row in rows)} probes")


if __name__ == "__main__":
    sys.exit(main())

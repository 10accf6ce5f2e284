"""The entries that come with Toolbus: files of the folder `data`, read once."""

from collections.abc import Iterable, Mapping
from functools import cache
from importlib.resources import files
from types import MappingProxyType

import yaml

from toolbus_common.server_catalogue.entry import CatalogueEntry

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@cache
def entries() -> Mapping[str, CatalogueEntry]:
    """Return all entries by name, sorted."""
    found: dict[str, CatalogueEntry] = {}
    for file in sorted(files(__package__).joinpath("data").iterdir(), key=lambda each: each.name):
        if file.name.endswith(".yaml"):
            # The loader is a safe one; the files come with this package.
            data = yaml.load(file.read_text("utf-8"), _Loader)  # noqa: S506
            for name, fields in data.items():
                if name in found:
                    raise ValueError(f"{file.name}: the entry '{name}' exists twice")
                found[name] = CatalogueEntry.model_validate({"name": name, **fields})
    return MappingProxyType(dict(sorted(found.items())))


def matching(found: Iterable[CatalogueEntry], text: str) -> list[CatalogueEntry]:
    """Return the entries that contain every word of a text, best first.

    Words in the name count most, then words in the title, the publisher and the topics, then words
    in the description.
    """
    words = text.lower().split()
    rated = [(_rating(each, words), each.name, each) for each in found]
    return [each for rating, _, each in sorted(rated, key=lambda one: (-one[0], one[1])) if rating]


def _rating(entry: CatalogueEntry, words: list[str]) -> int:
    places = (
        (entry.description.lower(), 1),
        (" ".join((entry.title, entry.publisher, *entry.topics)).lower(), 2),
        (entry.name.lower(), 4),
    )
    total = 1
    for word in words:
        rating = max((weight for text, weight in places if word in text), default=0)
        if not rating:
            return 0
        total += rating + (4 if word == entry.name.lower() else 0)
    return total

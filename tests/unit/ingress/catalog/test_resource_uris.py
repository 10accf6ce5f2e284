"""Resource URIs: each URI that is shown leads back to the server that lists it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolbus_common.contracts import CatalogEntry, Listing, ServerState
from toolbus_ingress.catalog.resource_uris import ResourceIndex, _matches


def listing(server: str, *uris: str, templates: tuple[str, ...] = ()) -> Listing:
    return Listing(
        server=server,
        state=ServerState.READY,
        resources=tuple(CatalogEntry(name=uri, definition={"uri": uri}) for uri in uris),
        templates=tuple(CatalogEntry(name=each, definition={}) for each in templates),
    )


def owner(index: ResourceIndex, uri: str) -> tuple[str, str] | None:
    return next(index.owners(uri), None)


def made(template: str, uri: str) -> bool:
    return owner(ResourceIndex([listing("s", templates=(template,))]), uri) is not None


def test_a_uri_of_one_server_is_unchanged() -> None:
    index = ResourceIndex([listing("docs", "file:///a"), listing("web", "https://x/")])
    assert index.shown("docs", "file:///a") == "file:///a"
    assert owner(index, "file:///a") == ("docs", "file:///a")


def test_of_two_owners_the_later_is_marked_and_both_are_reached() -> None:
    index = ResourceIndex([listing("web", "file:///a"), listing("docs", "file:///a")])
    assert index.shown("docs", "file:///a") == "file:///a"
    assert index.shown("web", "file:///a") == "web+file:///a"
    assert owner(index, "web+file:///a") == ("web", "file:///a")
    assert list(index.owners("file:///a"))[-1] == ("web", "file:///a"), (
        "for a caller that sees only web"
    )


def test_a_server_cannot_claim_the_marked_uri_of_another() -> None:
    index = ResourceIndex([listing("a", "file:///x", "z+file:///x"), listing("z", "file:///x")])
    assert index.shown("z", "file:///x") == "z+file:///x"
    assert owner(index, "z+file:///x") == ("z", "file:///x")
    assert index.shown("a", "z+file:///x") == "a+z+file:///x"
    assert owner(index, "a+z+file:///x") == ("a", "z+file:///x")


def test_an_unlisted_uri_has_no_owner() -> None:
    assert owner(ResourceIndex([listing("docs", "file:///a")]), "file:///b") is None
    assert owner(ResourceIndex(), "") is None


SERVERS = st.sampled_from(["a", "b", "git", "z9"])
URIS = st.text("abgitz9+:/", min_size=1, max_size=8)
LISTINGS = st.dictionaries(SERVERS, st.lists(URIS, unique=True, max_size=6))


@given(LISTINGS)
def test_every_shown_uri_is_unique_and_resolves_to_its_server(
    listed: dict[str, list[str]],
) -> None:
    index = ResourceIndex([listing(server, *uris) for server, uris in listed.items()])
    places = [(server, uri) for server, uris in listed.items() for uri in uris]
    shown = [index.shown(*place) for place in places]
    assert len(set(shown)) == len(places)
    assert [owner(index, each) for each in shown] == places


@given(LISTINGS, st.randoms())
def test_the_order_of_servers_does_not_matter(
    listed: dict[str, list[str]], random: "object"
) -> None:
    listings = [listing(server, *uris) for server, uris in listed.items()]
    turned = sorted(listings, key=lambda _: random.random())  # type: ignore[attr-defined]
    for server, uris in listed.items():
        for uri in uris:
            assert ResourceIndex(listings).shown(server, uri) == ResourceIndex(turned).shown(
                server, uri
            )


@pytest.mark.parametrize(
    ("template", "uri"),
    [
        ("file:///{name}", "file:///a"),
        ("file:///{+path}", "file:///a/b/c"),
        ("x://h{/a,b}", "x://h/1/2"),
        ("x://h{/list*}", "x://h/1/2/3"),
        ("x://h/{a:3}/z", "x://h/abc/z"),
        ("x://h{?q,r}", "x://h?q=1&r=2"),
        ("x://h{?q}", "x://h"),
        ("x://h?a=1{&b}", "x://h?a=1&b=2"),
        ("x://h{#part}", "x://h#p"),
        ("x://h{;v}", "x://h;v=1"),
        ("x://h/a{.ext}", "x://h/a.txt"),
        ("{scheme}://{host}/{path}", "s3://bucket/key"),
        ("x://{a}{b}", "x://anything"),
        ("x://{a}/x/{b}", "x://1/x/2"),
        ("plain:only", "plain:only"),
    ],
)
def test_a_template_matches_what_its_expressions_produce(template: str, uri: str) -> None:
    assert made(template, uri)


@pytest.mark.parametrize(
    ("template", "uri"),
    [
        ("file:///{name}", "http:///a"),
        ("x://{a}/end", "x://1/en"),
        ("ab{x}bc", "abc"),
        ("x://{a}/y/{b}", "x://1/z/2"),
        ("x://{a}/p/{b}/q/{c}", "x://1/q/2/p/3"),
        ("plain:only", "plain:only/more"),
        ("plain:only", "plain:onl"),
    ],
)
def test_a_template_matches_nothing_else(template: str, uri: str) -> None:
    assert not made(template, uri)


def test_a_listed_uri_wins_over_a_template_of_another() -> None:
    index = ResourceIndex([listing("a", templates=("file:///{x}",)), listing("b", "file:///1")])
    assert list(index.owners("file:///1")) == [
        ("b", "file:///1"), ("b", "file:///1"), ("a", "file:///1"),
    ]  # fmt: skip


@given(
    st.lists(st.text("abc/:", max_size=4), min_size=2, max_size=5),
    st.lists(st.text("abc/:", max_size=4), min_size=4, max_size=4),
)
def test_every_expansion_of_a_template_matches_it(literals: list[str], values: list[str]) -> None:
    uri = literals[0] + "".join(
        value + literal for value, literal in zip(values, literals[1:], strict=False)
    )
    assert made("{x}".join(literals), uri)


class CountedSearches(str):
    """A string that counts its searches, and keeps their start positions."""

    __slots__ = ("searches",)
    searches: list[int]

    def find(self, sub: str, start: int = 0, end: int | None = None) -> int:  # type: ignore[override]
        self.searches.append(start)
        return super().find(sub, start, end)


@pytest.mark.parametrize("literal", ["", "a", "aa", "ab"])
def test_a_hostile_template_is_searched_once_from_left_to_right(literal: str) -> None:
    uri = CountedSearches("a" * 4096)
    uri.searches = []
    literals = ("", *[literal] * 2000, "b")
    assert not _matches(literals, uri[:-1] + "a")
    assert not _matches(("", *[literal] * 2000, "a", "ab", ""), uri)
    assert len(uri.searches) <= 2002
    assert uri.searches == sorted(uri.searches), "a search never starts before the last one"


@pytest.mark.parametrize("template", ["{" * 50_000, "{a" * 30_000, "{}" * 30_000, "}" * 50_000])
def test_malformed_braces_are_harmless(template: str) -> None:
    assert made(template, "x" * 4096) is (template.startswith("{}"))

"""Names of an API's tools and arguments: accepted by clients, and stable."""

import re
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from toolbus_common.confusables import skeleton
from toolbus_common.openapi.names import argument_names, tool_names

CLIENT_SAFE = r"[A-Za-z0-9_-]{1,64}"

operations = st.lists(
    st.tuples(
        st.text(max_size=80) | st.sampled_from(["list", "1ist", "get-a", "get_a", "a b", "a.b"]),
        st.sampled_from(["get", "post"]),
        st.text(max_size=30).map(lambda text: f"/{text}"),
    ),
    max_size=12,
    unique_by=lambda each: each[1:],
)


@settings(max_examples=50)
@given(operations)
def test_names_are_valid_for_clients_and_distinct(
    operations: list[tuple[str, str, str]],
) -> None:
    names = tool_names(operations)
    assert all(re.fullmatch(CLIENT_SAFE, name) and "__" not in name for name in names)
    assert len({skeleton(name) for name in names}) == len(names)


@settings(max_examples=50)
@given(operations, st.randoms())
def test_names_do_not_depend_on_the_order_of_a_document(
    operations: list[tuple[str, str, str]], random: Any
) -> None:
    named = dict(zip(operations, tool_names(operations), strict=True))
    random.shuffle(operations)
    assert dict(zip(operations, tool_names(operations), strict=True)) == named


def test_an_operations_id_is_its_name_among_any_others() -> None:
    first = ("list_pets", "get", "/pets")
    assert tool_names([first]) == ["list_pets"]
    before, after = ("list.pets", "get", "/a"), ("list pets", "get", "/z")
    names = tool_names([before, first, after])
    assert names[1] == "list_pets"
    assert names[0] != names[2]
    assert tool_names([("", "get", "/pets/{petId}/toys")]) == ["get_pets_petId_toys"]


@given(st.lists(st.tuples(st.text(max_size=70), st.sampled_from(["path", "query"])), max_size=8))
def test_arguments_have_names_of_their_own(parameters: list[tuple[str, str]]) -> None:
    parameters = list(dict.fromkeys(parameters))
    names = argument_names(parameters)
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", name) and name != "body" for name in names)


def test_a_parameter_of_one_name_in_two_places_is_two_arguments() -> None:
    assert argument_names([("id", "path"), ("id", "query"), ("filter[a]", "query")]) == [
        "id",
        "id_query",
        "filter_a",
    ]

"""A key index is immutable, and an index derived from another equals one built from scratch."""

from hypothesis import given
from hypothesis import strategies as st

from toolbus_common.access.key_index import LayeredMapping

NAMES = st.integers(0, 60).map(str)
ENTRIES = st.dictionaries(NAMES, st.none() | st.integers(0, 9), max_size=4)


@given(first=st.integers(0, 60), changes=st.lists(ENTRIES, max_size=12))
def test_the_index_behaves_like_a_dictionary(
    first: int, changes: list[dict[str, int | None]]
) -> None:
    plain = {str(number): number for number in range(first)}
    layers = LayeredMapping(plain.copy())
    held = []
    for entries in changes:
        held.append((layers, plain.copy()))
        layers = layers.changed(entries)
        plain |= {name: value for name, value in entries.items() if value is not None}
        for name in (name for name, value in entries.items() if value is None):
            plain.pop(name, None)
    held.append((layers, plain))
    for found, wanted in held:
        assert found == wanted
        assert len(found) == len(list(found)) == len(wanted)
        assert [str(number) in found for number in (0, 30, 60)] == [
            str(number) in wanted for number in (0, 30, 60)
        ]


def test_a_few_changes_copy_only_the_changed_entries() -> None:
    many = {str(number): number for number in range(10_000)}
    layers: LayeredMapping[int] = LayeredMapping(many)
    for number in range(100):
        layers = layers.changed({str(number): -1})
        assert layers._below is many
    layers = layers.changed({"another": 1})
    assert layers._below is not many
    assert layers._above == {}
    assert len(layers) == len(many) + 1

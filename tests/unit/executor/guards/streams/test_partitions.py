"""Every partition of a text into the events of a stream has the verdict of the whole text."""

import asyncio
import json
import re
from itertools import pairwise
from time import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.guards.guarded_streams import (
    DIALECTS,
    REDACT,
    STREAMS,
    secret_guards,
    sent,
    stream,
    text_of,
)
from harness.services.call_runner import RecordedEvents, admitted
from harness.services.guarded import TOKEN, guards_of
from toolbus_common.errors import GuardBlockedError
from toolbus_executor.guards.call_guards import GuardedContent

WORDS = st.sampled_from(
    ["the", "quick", "naïve", "日本", "ghp_", TOKEN[:30], "\n", "is", "[redacted:", '{"a":', "\\"]
)


@st.composite
def partitions(draw: st.DrawFn) -> list[str]:
    """Draw a text, with a token or without one, in pieces."""
    words = draw(st.lists(WORDS, max_size=60))
    if draw(st.booleans()):
        words.insert(draw(st.integers(0, len(words))), TOKEN)
    text = " ".join(words)
    borders = draw(st.lists(st.integers(0, len(text)), max_size=30))
    cuts = sorted({0, len(text), *borders})
    return [text[start:end] for start, end in pairwise(cuts)]


@pytest.mark.parametrize("dialect", DIALECTS)
@given(pieces=partitions())
def test_a_text_in_any_pieces_has_the_verdict_of_the_whole(dialect: str, pieces: list[str]) -> None:
    async def run() -> None:
        text = "".join(pieces)
        guards = secret_guards()
        call = admitted("1", guards=("g",), deadline=time() + 60)
        whole = await GuardedContent(guards, call, "completions").inspect(
            json.dumps([text]).encode()
        )
        events = STREAMS[dialect](pieces)
        if whole.error is None:
            assert text_of(dialect, await sent(stream(guards), *events)) == text
            return
        with pytest.raises(GuardBlockedError):
            await sent(stream(guards), *events)
        redacting = guards_of(RecordedEvents(), g=REDACT)
        received = await sent(stream(redacting), *events)
        shown = text_of(dialect, received)
        assert TOKEN not in shown
        assert re.sub(r"\[redacted:github-pat:[0-9a-f]{16}\]", lambda _: TOKEN, shown) == text

    asyncio.run(run())

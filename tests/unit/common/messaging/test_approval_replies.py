"""Requests for input: policy's own name an approval, and those of servers never do."""

import json

from toolbus_common.contracts import InputRequired, decode_reply


def test_only_the_field_of_a_reply_names_an_approval() -> None:
    body = json.dumps({"requestState": "toolbus.approval.x"}).encode()
    assert decode_reply(InputRequired(body, "a1").encode()) == InputRequired(body, "a1")
    assert decode_reply(InputRequired(b"v1\n" + body).encode()) == InputRequired(b"v1\n" + body)

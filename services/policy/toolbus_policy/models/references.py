"""Content that a model request only names, such as a document at a URL (no I/O).

The size of the body then says nothing about the number of input tokens.
"""

import re

from toolbus_common.config import Provider

_URL = rb'"\s*+(?i:http)'
# Stored files, and documents, audio and videos at a URL. Tools' parameters can have these names,
# but then the value is an object.
_NAMED = re.compile(
    rb'"file_(?:id|url)"\s*+:\s*+"|"file_data"\s*+:\s*+' + _URL + rb"|"
    rb'"type"\s*+:\s*+"(?:video|audio|document)_url"'
)
_SOURCE = re.compile(rb'"type"\s*+:\s*+"url"')  # in Anthropic's messages
_LINK = re.compile(rb'"(?:image_)?url"\s*+:\s*+' + _URL)
_DOCUMENT, _IMAGE = b'"document"', b'"image_url"'
_READING_ALL = ("gemini", "vertex")  # they read any kind of file as an image
_ESCAPED_LETTER = re.compile(rb"\\u00(4[1-9a-fA-F]|5[0-9aAfF]|6[1-9a-fA-F]|7[0-9aA])")


def names_content(body: bytes, provider: Provider) -> bool:
    """Return whether a body names content of any size that it does not contain.

    Images at a URL are not counted, because their tokens are few, unless the provider would also
    read a document or a video there.
    """
    if _ESCAPED_LETTER.search(body) is not None:
        body = _ESCAPED_LETTER.sub(lambda found: bytes.fromhex(found[1].decode()), body)
    if _NAMED.search(body) is not None:
        return True
    reads_all = provider.kind in _READING_ALL
    if (reads_all or _DOCUMENT in body) and _SOURCE.search(body) is not None:
        return True
    return reads_all and _IMAGE in body and _LINK.search(body) is not None

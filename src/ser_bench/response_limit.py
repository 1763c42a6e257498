"""Limits on the responses of services: their size, and how they are compressed.

A response is read no further than its limit, and a compressed one is not unpacked beyond it: a few kilobytes of gzip
can hold gigabytes. The HTTP client unpacks whole pieces, so the hooks of this module unpack before it does.
"""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator, Iterator
from typing import Any, cast

import openai

MOST_RESPONSE_BYTES = 16 * 2**20
"""An answer of 4,096 tokens with 20 logprobs each has about 10 MB."""
ACCEPTED_ENCODING = "gzip"
GZIP_WINDOW = 16 + zlib.MAX_WBITS
"""Tells zlib to expect the header of gzip."""


class ResponseRefusedError(openai.APIConnectionError):
    """A response is too large or in an encoding that was not asked for. The message continues "the service …"."""

    def __init__(self, message: str) -> None:
        super().__init__(message=message, request=cast("Any", None))  # the request is not read


class BoundedDecoder:
    """Unpacks the pieces of one response up to a limit.

    Args:
        encoding: the header Content-Encoding; "" if there is none.
        most_bytes: limit of the unpacked response.

    Raises:
        ResponseRefusedError: if the encoding is not gzip.
    """

    def __init__(self, encoding: str, most_bytes: int) -> None:
        if encoding not in ("", "identity", ACCEPTED_ENCODING):
            raise ResponseRefusedError(f"sends a response in the encoding {encoding[:20]!r}, which was not asked for")
        self._unpacker = zlib.decompressobj(GZIP_WINDOW) if encoding == ACCEPTED_ENCODING else None
        self._most_bytes = most_bytes
        self._left = most_bytes

    def unpack(self, piece: bytes) -> bytes:
        """Return the next bytes of the response.

        Raises:
            ResponseRefusedError: if the response exceeds the limit.
            openai.APIConnectionError: if it is not gzip.
        """
        try:
            data = piece if self._unpacker is None else self._unpacker.decompress(piece, self._left + 1)
        except zlib.error as error:
            raise openai.APIConnectionError(message=f"damaged gzip: {error}", request=cast("Any", None)) from error
        self._left -= len(data)
        if self._left < 0:
            raise ResponseRefusedError(f"sends a response of more than {self._most_bytes / 2**20:g} MiB")
        return data


def limit_response(response: Any, most_bytes: int | None = None) -> None:
    """Limit the body of a response; a hook for `event_hooks={"response": [limit_response]}` of a client.

    Args:
        response: a response of httpx, or of another package with the same methods (openai 2 brings its own copy).
        most_bytes: the limit; None: `MOST_RESPONSE_BYTES`.

    Raises:
        ResponseRefusedError: if it is in an encoding that was not asked for.
    """
    decoder, raw = _take_decoder(response, most_bytes), response.iter_raw

    def limited(chunk_size: int | None = None) -> Iterator[bytes]:
        for piece in raw(chunk_size):
            yield decoder.unpack(piece)

    response.iter_raw = limited


async def limit_async_response(response: Any) -> None:
    """Do what `limit_response` does, as the hook of an asynchronous client."""
    decoder, raw = _take_decoder(response), response.aiter_raw

    async def limited(chunk_size: int | None = None) -> AsyncIterator[bytes]:
        async for piece in raw(chunk_size):
            yield decoder.unpack(piece)

    response.aiter_raw = limited


def _take_decoder(response: Any, most_bytes: int | None = None) -> BoundedDecoder:
    """Return the decoder of a response and remove the header that would make the client unpack it again."""
    encoding = str(response.headers.get("content-encoding", "")).strip().lower()
    decoder = BoundedDecoder(encoding, MOST_RESPONSE_BYTES if most_bytes is None else most_bytes)
    response.headers.pop("content-encoding", None)
    return decoder

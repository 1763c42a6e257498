"""Checks of the containers of audio files: sizes in the headers of WAV, AIFF, AU, CAF and W64, checksums of Ogg.

libsndfile decodes a truncated or damaged file as a shorter one, without an error. Its containers tell that something is
missing, and they are checked here.

A WAV file that was written to a pipe does not state its size: the program could not go back to the header. Its size
field is then 0 or close to a power of two. Such a file is complete, whatever its length.
"""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass
from typing import BinaryIO

UNKNOWN_WAV_BYTES = 0x7FFF_F000
"""A WAV file that states so many bytes of samples, or more, was written to a pipe: sox states 0x7FFFF000, arecord
0x80000000 less the header, ffmpeg 0xFFFFFFFF."""
UNKNOWN_AIFF_BYTES = 0x7F00_0000
"""The same limit for AIFF files."""
UNKNOWN_AU_BYTES = 0xFFFF_FFFF
"""The size of an AU file that does not state its size."""
COUNTED_HEADER_BYTES = 64
"""A size may be too large by so many bytes, because some programs count the header (36 or 44 bytes) as samples. A file
that is truncated by less is not detected; that is 2 ms of 16-bit audio at 16 kHz."""
MAX_UNEXPLAINED_BYTES = 2048
"""So many bytes may follow the last chunk of a WAV file without being a chunk."""
TAGS = (b"ID3", b"TAG", b"APETAGEX")
"""How tags start that some programs append to a file."""

OGG_PAGE = struct.Struct("<4sBBqIIIB")
"""Header of an Ogg page: mark, version, flags, position, stream, number of the page, checksum, number of segments."""
OGG_MARK = b"OggS"
OGG_CHECKSUM = slice(22, 26)
OGG_FIRST_PAGE = 0x02
OGG_LAST_PAGE = 0x04
REVERSED_BITS = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
"""Byte → the byte with its bits in reverse order."""


@dataclass(frozen=True, slots=True)
class _WavData:
    """The chunk `data` of a WAV file.

    Attributes:
        start: position of the first sample, bytes.
        length: size that the header states, bytes.
    """

    start: int
    length: int


def fault_of(file: BinaryIO, head: bytes, size: int) -> str:
    """Describe why a file is not complete; "" if it is, or if its container is not checked.

    Args:
        file: the file, opened for reading.
        head: its first 64 bytes.
        size: its size, bytes.
    """
    kind = head[:4]
    if kind in (b"RIFF", b"RIFX", b"RF64", b"BW64"):
        return _wav_fault(file, kind, size)
    if kind == OGG_MARK:
        file.seek(0)
        return _ogg_fault(file.read())
    return _too_short(_caf_end(file, size) if kind == b"caff" else _stated_end(head), size)


def with_stated_size(file: BinaryIO, head: bytes, size: int) -> io.BytesIO | None:
    """Return a copy in memory of a WAV file whose header states 0 bytes of samples although samples follow.

    The header of the copy states their size. libsndfile would read no sample of the original. The result is None for
    every other file.
    """
    kind = head[:4]
    if kind not in (b"RIFF", b"RIFX"):
        return None
    data = _find_data(file, kind, size)
    if data is None or data.length or _ends_with_chunks(file, kind, data.start, size):
        return None
    file.seek(0)
    content = bytearray(file.read())
    order = "<" if kind == b"RIFF" else ">"
    struct.pack_into(f"{order}I", content, 4, size - 8)
    struct.pack_into(f"{order}I", content, data.start - 4, size - data.start)
    return io.BytesIO(bytes(content))


def ogg_checksum(page: bytes) -> int:
    """Return the checksum of an Ogg page whose checksum field is 0: CRC-32 with the polynomial 0x04C11DB7.

    zlib computes a CRC with the same polynomial, but from the lowest bit of each byte to the highest. The bits of the
    bytes and of the result are therefore reversed. zlib also inverts its start value and its result.

    Examples:
        >>> hex(ogg_checksum(b"123456789"))
        '0x89a1897f'
    """
    reversed_crc = zlib.crc32(page.translate(REVERSED_BITS), 0xFFFF_FFFF) ^ 0xFFFF_FFFF
    return int.from_bytes(reversed_crc.to_bytes(4, "little").translate(REVERSED_BITS), "big")


def _too_short(stated: int, size: int) -> str:
    if stated <= size + COUNTED_HEADER_BYTES:
        return ""
    return f"truncated, its header states {stated:,} bytes and the file has {size:,}"


def _stated_end(head: bytes) -> int:
    """Return the end of an AIFF, AU or W64 file by its header, bytes; 0 if it does not state one."""
    if head.startswith(b"FORM"):
        length = int.from_bytes(head[4:8], "big")
        return 8 + length if length < UNKNOWN_AIFF_BYTES else 0
    if head.startswith((b".snd", b"dns.")):
        order = ">" if head.startswith(b".snd") else "<"
        start, length = struct.unpack(f"{order}II", head[4:12].ljust(8, b"\0"))
        return int(start + length) if length != UNKNOWN_AU_BYTES else 0
    if head.startswith(b"riff"):
        length = int.from_bytes(head[16:24], "little")
        return length if length < 1 << 62 else 0
    return 0


def _caf_end(file: BinaryIO, size: int) -> int:
    """Return the end of the chunk `data` of a CAF file by its header, bytes; 0 if it is open-ended."""
    position = 8
    while position + 12 <= size:
        file.seek(position)
        chunk = file.read(12)
        length = int.from_bytes(chunk[4:], "big", signed=True)
        if chunk[:4] == b"data" or length < 0:
            return position + 12 + length if length >= 0 else 0
        position += 12 + length
    return position + 12


def _wav_fault(file: BinaryIO, kind: bytes, size: int) -> str:
    data = _find_data(file, kind, size)
    if data is None:
        return f"truncated, its header states more than {size:,} bytes and the file has {size:,}"
    if not data.length or data.length >= UNKNOWN_WAV_BYTES:
        return ""
    end = data.start + data.length
    if end >= size:
        return _too_short(end, size)
    if _ends_with_chunks(file, kind, end, size) or _ends_with_chunks(file, kind, end + data.length % 2, size):
        return ""
    file.seek(end)
    rest = file.read()
    if len(rest) <= MAX_UNEXPLAINED_BYTES or rest.startswith(TAGS) or not rest.strip(b"\0"):
        return ""
    return (
        f"its header states {data.length:,} bytes of samples, but {len(rest):,} bytes follow that belong to nothing; "
        "write the file again, for example with `sox --ignore-length`"
    )


def _find_data(file: BinaryIO, kind: bytes, size: int) -> _WavData | None:
    """Return the chunk `data`; None if the file ends before it. An RF64 file states its size in the chunk `ds64`."""
    order = "big" if kind == b"RIFX" else "little"
    position, long_size = 12, 0
    while position + 8 <= size:
        file.seek(position)
        chunk = file.read(24)
        length = _length(chunk, kind)
        if chunk[:4] == b"ds64" and order == "little":
            long_size = int.from_bytes(chunk[16:24], "little")
        if chunk[:4] == b"data":
            return _WavData(position + 8, long_size if long_size and length == 0xFFFF_FFFF else length)
        position += 8 + length + length % 2  # chunks are padded to an even length
    return None


def _ends_with_chunks(file: BinaryIO, kind: bytes, position: int, size: int) -> bool:
    """Return True if the file consists of complete chunks from a position to its end. A second file is no chunk."""
    while position + 8 <= size:
        file.seek(position)
        chunk = file.read(8)
        name, length = chunk[:4], _length(chunk, kind)
        if not (name.isascii() and name.decode("ascii").isprintable()) or name == kind or position + 8 + length > size:
            return False
        position += 8 + length + length % 2
    return position >= size - 1


def _length(chunk: bytes, kind: bytes) -> int:
    return int.from_bytes(chunk[4:8], "big" if kind == b"RIFX" else "little")


def _ogg_fault(content: bytes) -> str:
    """Check that the pages follow each other, that each has its checksum, and that each stream has its last page."""
    numbers: dict[int, int] = {}
    open_streams: set[int] = set()
    position = 0
    while position < len(content):
        if not content.startswith(OGG_MARK, position):
            if open_streams or content.find(OGG_MARK, position) >= 0:
                return f"damaged, there is no Ogg page at byte {position:,}"
            return ""  # a tag or padding after the last page
        end = _ogg_page_end(content, position)
        if end > len(content):
            return "truncated, its last Ogg page is not complete"
        page = bytearray(content[position:end])
        _, _, flags, _, stream, number, checksum, _ = OGG_PAGE.unpack_from(page)
        page[OGG_CHECKSUM] = bytes(4)
        if ogg_checksum(bytes(page)) != checksum:
            return f"damaged, the Ogg page at byte {position:,} does not have its checksum"
        if flags & OGG_FIRST_PAGE:
            if numbers and not open_streams:
                return f"a second recording begins at byte {position:,}, of which nothing would be read; split the file"
            open_streams.add(stream)
        elif stream not in open_streams or number != (numbers[stream] + 1) % (1 << 32):
            return f"damaged, an Ogg page before byte {position:,} is missing"
        if flags & OGG_LAST_PAGE:
            open_streams.discard(stream)
        numbers[stream] = number
        position = end
    return "truncated, its last Ogg page is missing" if open_streams else ""


def _ogg_page_end(content: bytes, position: int) -> int:
    """Return the position after a page; a position after the end of the file if the page is not complete."""
    table = position + OGG_PAGE.size
    if table > len(content):
        return table
    segments = content[table - 1]
    lengths = content[table : table + segments]
    return table + segments + sum(lengths) if len(lengths) == segments else len(content) + 1

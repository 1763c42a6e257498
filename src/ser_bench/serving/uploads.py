"""From the body of a request to a recording: multipart forms, JSON with base64, and audio as it is.

Nothing is written to the disk: libraries that parse forms keep large uploads in temporary files, so the parts of a
form are collected here.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass

import soundfile
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from ser_bench.errors import BadClipError
from ser_bench.inference.recording import Recording
from ser_bench.serving.limits import MAX_RATE_HZ, MAX_UPLOAD_SAMPLES, MIN_RATE_HZ, RequestRefusedError, Reservation

FORM, JSON = "multipart/form-data", "application/json"
RAW = ("audio/", "application/octet-stream", "application/ogg")
"""Beginnings of the content types of bodies that are audio themselves."""
MAGIC = (b"RIFF", b"RIFX", b"RF64", b"fLaC", b"OggS", b"ID3", b"FORM", b".snd", b"caff", b"riff")
"""How files of WAV, FLAC, Ogg, MP3, AIFF, AU, CAF and W64 begin. No other format reaches the decoder."""
MAX_PARTS = 8
NAME_CHARS = 80
DEFAULT_NAME = "audio"
SAMPLE_BYTES = 4
AUDIO_FIELDS = ("audio", "file")


@dataclass(frozen=True)
class Upload:
    """What a request contains.

    Attributes:
        content: the bytes of an audio file.
        name: the name that the client gave, without folders and control characters.
        model: the run that shall answer; "" if the client named none.
    """

    content: bytes
    name: str = DEFAULT_NAME
    model: str = ""


def parse_upload(body: bytes, content_type: str, query: Mapping[str, str]) -> Upload:
    """Return the audio of a body, its name and the chosen run.

    Args:
        body: the whole body.
        content_type: value of the header.
        query: parameters of the URL; `model` and `name` are read where the body does not name them.

    Raises:
        RequestRefusedError: 415 another content type; 400 the body does not fit its content type; 422 no audio is in
            it.
    """
    kind, options = parse_options_header(content_type)
    media = kind.decode("latin-1").lower()
    if media == FORM:
        upload = _form(body, options.get(b"boundary", b""))
    elif media == JSON:
        upload = _json(body)
    elif media.startswith(RAW):
        upload = Upload(body)
    else:
        raise RequestRefusedError(
            415, "content_type", f"send {FORM} with a part 'audio', {JSON}, or audio/wav; not {_shown(media) or 'none'}"
        )
    if not upload.content:
        raise RequestRefusedError(422, "no_audio", "the audio is empty (0 bytes)")
    name = upload.name if upload.name != DEFAULT_NAME else _file_name(query.get("name", ""))
    return Upload(upload.content, name, upload.model or query.get("model", ""))


def decode_upload(upload: Upload, max_duration_s: float, memory: Reservation) -> Recording:
    """Decode the audio. Its header is checked before, so that a small file cannot become a large array.

    Args:
        upload: see `parse_upload`.
        max_duration_s: longest clip, seconds.
        memory: holds the samples from now on instead of the body.

    Raises:
        RequestRefusedError: 415 not a known format; 413 too long or too many samples; 422 damaged or not audio; 503 no
            memory is left.
    """
    content, name = upload.content, upload.name
    if not (content.startswith(MAGIC) or _is_mpeg(content)):
        raise RequestRefusedError(415, "format", f"{name}: not WAV, FLAC, Ogg, MP3, AIFF, AU, CAF or W64")
    try:
        with soundfile.SoundFile(io.BytesIO(content)) as file:
            frames, channels, rate = int(file.frames), int(file.channels), int(file.samplerate)
    except (soundfile.LibsndfileError, ValueError, OverflowError) as error:
        text = getattr(error, "error_string", type(error).__name__)
        raise RequestRefusedError(422, "audio", f"{name}: not audio that can be decoded ({text})") from None
    if not MIN_RATE_HZ <= rate <= MAX_RATE_HZ:
        raise RequestRefusedError(
            422, "audio", f"{name}: its sampling rate, {rate} Hz, is not between {MIN_RATE_HZ} and {MAX_RATE_HZ}"
        )
    if frames > max_duration_s * rate:
        raise RequestRefusedError(
            413,
            "audio_too_long",
            f"{name}: its header states {_length(frames / rate)}; the limit is {max_duration_s:g} s",
        )
    if frames * channels > MAX_UPLOAD_SAMPLES:
        raise RequestRefusedError(
            413, "audio_too_long", f"{name}: {frames * channels:,} samples; the limit is {MAX_UPLOAD_SAMPLES:,}"
        )
    memory.resize(len(content) + frames * (channels + 1) * SAMPLE_BYTES)
    try:
        recording = Recording.from_bytes(content, name, max_duration_s)
    except BadClipError as error:
        raise RequestRefusedError(422, "audio", str(error)) from None
    memory.resize(len(recording.samples) * SAMPLE_BYTES)
    return recording


def _is_mpeg(content: bytes) -> bool:
    """Return whether the content begins with a frame of MPEG audio without an ID3 tag."""
    return len(content) > 1 and content[0] == 0xFF and content[1] & 0xE0 == 0xE0


def _length(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 1e6 else "no length"


def _json(body: bytes) -> Upload:
    try:
        values = json.loads(body)
    except (ValueError, RecursionError):
        raise RequestRefusedError(400, "json", "the body is not JSON") from None
    if not isinstance(values, dict) or not isinstance(values.get("audio"), str):
        raise RequestRefusedError(422, "no_audio", 'send {"audio": "base64 of a WAV, FLAC, Ogg or MP3 file"}')
    model, name = values.get("model") or "", values.get("name") or ""
    if not isinstance(model, str) or not isinstance(name, str):
        raise RequestRefusedError(422, "json", "'model' and 'name' are texts")
    try:
        content = base64.b64decode(values["audio"], validate=True)
    except (binascii.Error, ValueError):
        raise RequestRefusedError(422, "base64", "'audio' is not base64") from None
    return Upload(content, _file_name(name), model)


class _FormParts:
    """Collects the parts of a form; the methods are the callbacks of the parser."""

    def __init__(self) -> None:
        self.parts: dict[str, bytearray] = {}
        self.file_name = ""
        self._name = ""
        self._field, self._value, self._disposition = bytearray(), bytearray(), b""
        self._count = 0

    def begin(self) -> None:
        self._count += 1
        if self._count > MAX_PARTS:
            raise RequestRefusedError(400, "form", f"the form has more than {MAX_PARTS} parts")
        self._name, self._disposition = "", b""

    def header_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def header_end(self) -> None:
        if bytes(self._field).lower() == b"content-disposition":
            self._disposition = bytes(self._value)
        self._field, self._value = bytearray(), bytearray()

    def headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        self._name = options.get(b"name", b"").decode("utf-8", "replace")
        if self._name in self.parts:
            raise RequestRefusedError(400, "form", f"the form has two parts named {_shown(self._name)!r}")
        self.parts[self._name] = bytearray()
        if self._name in AUDIO_FIELDS:
            self.file_name = options.get(b"filename", b"").decode("utf-8", "replace")

    def data(self, data: bytes, start: int, end: int) -> None:
        self.parts[self._name] += data[start:end]


def _form(body: bytes, boundary: bytes) -> Upload:
    found = _FormParts()
    ended = []
    try:
        parser = MultipartParser(
            boundary,
            {
                "on_part_begin": found.begin,
                "on_header_field": found.header_field,
                "on_header_value": found.header_value,
                "on_header_end": found.header_end,
                "on_headers_finished": found.headers_finished,
                "on_part_data": found.data,
                "on_end": lambda: ended.append(True),
            },
        )
        parser.write(body)
        parser.finalize()
    except FormParserError:
        raise RequestRefusedError(400, "form", "the body is not a form of multipart/form-data") from None
    if not boundary or not ended:
        raise RequestRefusedError(400, "form", "the form is not complete, or its header states no boundary")
    audio = next((found.parts[name] for name in AUDIO_FIELDS if name in found.parts), None)
    if audio is None:
        raise RequestRefusedError(422, "no_audio", "the form has no part named 'audio'")
    model = bytes(found.parts.get("model", b"")).decode("utf-8", "replace").strip()
    return Upload(bytes(audio), _file_name(found.file_name), model)


def _file_name(text: str) -> str:
    """Return the last part of a path that a client gave, without control characters."""
    return _shown(text.replace("\\", "/").rstrip("/").rsplit("/", 1)[-1]) or DEFAULT_NAME


def _shown(text: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in text)[:NAME_CHARS].strip()

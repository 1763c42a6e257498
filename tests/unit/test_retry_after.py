from __future__ import annotations

import math
import random

import pytest

from ser_bench.retry_after import retry_after_s


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "0"}, 0.0),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after": "Tue, 01 Jan 2030 00:00:20 GMT"}, 20.0),
        ({"retry-after": "Mon, 31 Dec 2029 00:00:20 GMT"}, 0.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "1.5"}, 1.5),
        ({}, None),
        ({"retry-after": "\u00b2"}, None),
        ({"retry-after": "1_0"}, None),
        ({"retry-after": "\uff11\uff12"}, None),
        ({"retry-after": "1e9"}, None),
        ({"retry-after": "9" * 400}, None),
        ({"retry-after": "9" * 10_000}, None),
        ({"retry-after": " 2 "}, 2.0),
        ({"retry-after": "Tue, 01 Jan 99999 00:00:00 GMT"}, None),
        ({"retry-after": "Tue, 01 Jan 999999999999999999999 00:00:00 GMT"}, None),
        ({"retry-after": "Tue, 99 Jan 2030 99:00:00 GMT"}, None),
        ({"retry-after": "Tue, 01 Jan \u00b2 00:00:00 GMT"}, None),
        ({"retry-after": "Tue, 01 Jan 2030 00:00:20 +99999999999999999999"}, None),
        ({"retry-after": "Tue, 01 Jan 2030 \u00b2:\u00b2:\u00b2 GMT"}, None),
        ({"retry-after": ","}, None),
        ({"retry-after": "Fri, 01 Jan 9999 00:00:00 GMT"}, None),
        ({"retry-after": "100000000"}, None),
        ({"retry-after": "Tue, 01 Jan 2030 00:00:20"}, 20.0),
        ({"retry-after": "Tue, 01 Jan 2030 00:00:20 -0000"}, 20.0),
        ({"retry-after-ms": "\u00b2", "retry-after": "9"}, 9.0),
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
    ],
)
def test_retry_after_in_all_its_forms(headers, seconds):
    assert retry_after_s(headers, now=1_893_456_000.0) == seconds


def test_any_text_is_a_wait_or_none():
    draw = random.Random(0)
    pieces = [
        "Tue, ",
        "01 ",
        "Jan ",
        "2030 ",
        "00:00:20",
        " GMT",
        "\u00b2",
        "-",
        "9" * 30,
        ":",
        ";",
        "+0000",
        "\x00",
        "e",
    ]
    for _ in range(3_000):
        value = "".join(draw.choices(pieces, k=draw.randrange(1, 9)))
        for header in ("retry-after", "retry-after-ms"):
            seconds = retry_after_s({header: value})
            assert seconds is None or (math.isfinite(seconds) and seconds >= 0)

from __future__ import annotations

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
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
    ],
)
def test_retry_after_in_all_its_forms(headers, seconds):
    assert retry_after_s(headers, now=1_893_456_000.0) == seconds

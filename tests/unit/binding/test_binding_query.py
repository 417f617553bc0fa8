"""The plan's own way of reading a query string, against that of `HttpRequest.query`."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from armature import HTTPException, QueryParams
from armature.binding.query import last_values, pairs_of

ALPHABET = st.sampled_from([b"a", b"b", b"=", b"&", b"+", b"%", b"%41", b"%ff", b"\xff", b"\xc3\xa9", b"1"])


@given(st.lists(ALPHABET, max_size=30).map(b"".join) | st.binary(max_size=40))
@example(b"")
@example(b"a&&=&b=")
@example(b"a=1&a=2")
def test_the_same_pairs(query: bytes) -> None:
    theirs = QueryParams(query)
    assert pairs_of(query) == theirs.multi_items()
    assert last_values(query) == dict(theirs.multi_items())


def test_the_same_bound() -> None:
    assert len(last_values(b"&".join(b"n%d=1" % n for n in range(1000)).replace(b"%", b""))) == 1000
    with pytest.raises(HTTPException, match="more than 1000 parameters"):
        last_values(b"&" * 1000)

"""The buffer twins, and a plain `bytearray` beside them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

operation = st.one_of(
    st.tuples(st.just("append"), st.binary(max_size=40) | st.integers(1, 20_000).map(lambda size: b"x" * size)),
    st.tuples(st.just("consume"), st.integers(-2, 60) | st.integers(0, 20_000)),
    st.tuples(st.sampled_from(["take", "peek", "clear"]), st.none()),
)


@given(st.lists(operation, max_size=30))
@settings(max_examples=300, deadline=None)
def test_a_buffer_is_bytes_in_order(impl: Any, operations: list[tuple[str, Any]]) -> None:
    buffer, model = impl.buffers.Buffer(), bytearray()
    for name, argument in operations:
        if name == "append":
            buffer.append(argument)
            model += argument
        elif name == "consume":
            if 0 <= argument <= len(model):
                buffer.consume(argument)
                del model[:argument]
            else:
                with pytest.raises(ValueError, match=f"^cannot consume {argument} of {len(model)} bytes$"):
                    buffer.consume(argument)
        elif name == "take":
            assert buffer.take() == bytes(model)
            model.clear()
        elif name == "peek":
            assert buffer.peek() == bytes(model)
        else:
            buffer.clear()
            model.clear()
        assert len(buffer) == len(model)
        assert buffer.peek() == bytes(model)
        assert type(buffer.peek()) is bytes


@pytest.mark.parametrize("make", [bytes, bytearray, memoryview, lambda data: memoryview(bytearray(data))])
def test_what_is_like_bytes_may_be_added(impl: Any, make: Any) -> None:
    buffer = impl.buffers.Buffer()
    source = make(b"abc")
    buffer.append(source)
    buffer.append(b"")
    if isinstance(source, bytearray):
        source[:] = b"zzz"
        source += b"may grow: nobody holds on to it"
    assert buffer.take() == b"abc"


@pytest.mark.parametrize("wrong", ["abc", None, 5, [1, 2], object()])
def test_anything_else_is_refused(impl: Any, wrong: Any) -> None:
    buffer = impl.buffers.Buffer()
    with pytest.raises(TypeError):
        buffer.append(wrong)
    assert buffer.take() == b""


@pytest.mark.parametrize("count", [2**31, 2**63, -(2**63), 2**200])
def test_huge_counts(impl: Any, count: int) -> None:
    buffer = impl.buffers.Buffer()
    with pytest.raises(ValueError, match=f"^cannot consume {count} of 0 bytes$"):
        buffer.consume(count)


@pytest.mark.parametrize("wrong", [None, "1", 1.5])
def test_counts_of_other_types(impl: Any, wrong: Any) -> None:
    buffer = impl.buffers.Buffer()
    buffer.append(b"abc")
    with pytest.raises(TypeError):
        buffer.consume(wrong)
    assert buffer.peek() == b"abc"


def test_memory_that_was_given_back_is_not_shared(impl: Any) -> None:
    """Blocks go through a free-list: two live buffers must never have the same one."""
    for _ in range(5):
        buffers = [impl.buffers.Buffer() for _ in range(200)]
        for number, buffer in enumerate(buffers):
            buffer.append(b"%d " % number * 50)
        for buffer in buffers[::2]:
            buffer.clear()
            buffer.clear()
        fresh = [impl.buffers.Buffer() for _ in range(100)]
        for number, buffer in enumerate(fresh):
            buffer.append(b"fresh %d" % number)
        assert [buffer.take() for buffer in buffers[1::2]] == [b"%d " % number * 50 for number in range(1, 200, 2)]
        assert [buffer.take() for buffer in fresh] == [b"fresh %d" % number for number in range(100)]


def test_keep(impl: Any) -> None:
    assert impl.buffers.Buffer.KEEP == 4096

"""What a test sends as form or files is encoded as browsers do."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from armature.testing.multipart import encode_form, encode_multipart, encode_pairs


def test_pairs_of_every_kind() -> None:
    assert encode_pairs({"a": 1, "b": [1, "x"], "c": True, "d": None, "e": b"raw"}) == [
        ("a", "1"),
        ("b", "1"),
        ("b", "x"),
        ("c", "true"),
        ("d", ""),
        ("e", "raw"),
    ]


def test_a_form_is_percent_encoded() -> None:
    assert encode_form([("name", "Ada & Co"), ("city", "Köln")]) == b"name=Ada+%26+Co&city=K%C3%B6ln"


def test_a_file_with_a_field() -> None:
    body, content_type = encode_multipart({"kind": "x"}, {"f": ("a.txt", b"hello")}, boundary="B")
    assert content_type == "multipart/form-data; boundary=B"
    assert body == (
        b'--B\r\nContent-Disposition: form-data; name="kind"\r\n\r\nx\r\n'
        b'--B\r\nContent-Disposition: form-data; name="f"; filename="a.txt"\r\nContent-Type: text/plain\r\n\r\nhello\r\n'
        b"--B--\r\n"
    )


def test_names_cannot_break_out() -> None:
    body, _ = encode_multipart({}, {'a"b': ('x"\r\ny', b"")}, boundary="B")
    assert b'name="a%22b"; filename="x%22%0D%0Ay"' in body


@pytest.mark.parametrize("content", [b"x", "x", bytearray(b"x"), io.BytesIO(b"x"), io.StringIO("x")])
def test_contents_of_every_kind(content: object) -> None:
    body, _ = encode_multipart({}, {"f": content}, boundary="B")
    assert b'filename="upload"' in body
    assert b"\r\n\r\nx\r\n" in body


def test_an_open_file_brings_its_name(tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    path.write_bytes(b"\x89PNG")
    with path.open("rb") as file:
        body, _ = encode_multipart({}, {"f": file}, boundary="B")
    assert b'filename="photo.png"\r\nContent-Type: image/png' in body


def test_type_and_headers_can_be_given() -> None:
    body, _ = encode_multipart({}, [("f", ("a", b"x", "text/csv", {"X-A": "1"}))], boundary="B")
    assert b"Content-Type: text/csv\r\nX-A: 1\r\n\r\nx" in body


def test_a_part_without_a_file_name() -> None:
    body, _ = encode_multipart({}, {"f": (None, b"x")}, boundary="B")
    assert body.startswith(b'--B\r\nContent-Disposition: form-data; name="f"\r\n\r\nx')


def test_what_is_no_file_is_refused() -> None:
    with pytest.raises(TypeError, match="int"):
        encode_multipart({}, {"f": 1})
    with pytest.raises(TypeError, match="filename"):
        encode_multipart({}, {"f": ("a",)})

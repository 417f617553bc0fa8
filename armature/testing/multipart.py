"""Encoding what a test sends: forms and files (RFC 7578), query strings."""

from __future__ import annotations

import mimetypes
import os
import secrets
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias
from urllib.parse import urlencode

__all__ = ["encode_form", "encode_multipart", "encode_pairs"]

Pairs: TypeAlias = Mapping[str, Any] | Iterable[tuple[str, Any]]


def encode_pairs(pairs: Pairs) -> list[tuple[str, str]]:
    """Return pairs of `str`: a list gives one pair per item, True is `true`, None is empty."""
    flat: list[tuple[str, str]] = []
    items: Iterable[Any]
    for name, value in pairs.items() if isinstance(pairs, Mapping) else pairs:
        items = value if isinstance(value, (list, tuple, set)) else (value,)
        flat.extend((str(name), _text(item)) for item in items)
    return flat


def encode_form(pairs: Pairs) -> bytes:
    """Return `pairs` as `application/x-www-form-urlencoded`."""
    return urlencode(encode_pairs(pairs)).encode("ascii")


def encode_multipart(data: Pairs, files: Pairs, boundary: str | None = None) -> tuple[bytes, str]:
    """Return a `multipart/form-data` body and its content type.

    Args:
        data: Plain fields.
        files: Files by field name: bytes, `str` or an open file, or a tuple of file name, content and, if wanted,
            content type and a mapping of further part headers.
        boundary: What separates the parts; random by default.

    Raises:
        TypeError: A file is none of these, or an open file yields something that is neither bytes nor `str`.
    """
    boundary = boundary or "armature-" + secrets.token_hex(12)
    parts: list[bytes] = []
    for name, value in encode_pairs(data):
        parts.append(
            _part(boundary, {"Content-Disposition": f'form-data; name="{_quoted(name)}"'}, value.encode("utf-8"))
        )
    for name, value in files.items() if isinstance(files, Mapping) else files:
        filename, content, content_type, extra = _file(value)
        disposition = f'form-data; name="{_quoted(name)}"'
        if filename is not None:
            disposition += f'; filename="{_quoted(filename)}"'
        headers = {"Content-Disposition": disposition}
        if content_type is not None:
            headers["Content-Type"] = content_type
        parts.append(_part(boundary, {**headers, **extra}, content))
    parts.append(f"--{boundary}--\r\n".encode("ascii"))
    return b"".join(parts), f"multipart/form-data; boundary={boundary}"


def _part(boundary: str, headers: Mapping[str, str], content: bytes) -> bytes:
    lines = [f"--{boundary}", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    return "\r\n".join(lines).encode("utf-8") + content + b"\r\n"


def _file(value: Any) -> tuple[str | None, bytes, str | None, Mapping[str, str]]:
    filename: str | None = None
    content_type: str | None = None
    extra: Mapping[str, str] = {}
    if isinstance(value, tuple):
        if not 2 <= len(value) <= 4:
            raise TypeError("a file is (filename, content), (…, content_type) or (…, headers)")
        filename, content = value[0], value[1]
        content_type = value[2] if len(value) > 2 else None
        extra = value[3] if len(value) > 3 else {}
    else:
        content = value
        name = getattr(value, "name", None)
        filename = os.path.basename(name) if isinstance(name, str) else "upload"
    if hasattr(content, "read"):
        content = content.read()
    if isinstance(content, str):
        content = content.encode("utf-8")
    if not isinstance(content, (bytes, bytearray, memoryview)):
        raise TypeError(f"a file's content must be bytes, str or an open file, not {type(content).__name__}")
    if content_type is None and filename is not None:
        content_type = mimetypes.guess_type(filename)[0] or "application/octet-stream"
    return filename, bytes(content), content_type, extra


def _quoted(name: str) -> str:
    # What the WHATWG's multipart/form-data encoding escapes, and how.
    return name.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")


def _text(value: Any) -> str:
    if value is True:
        return "true"
    if value is False:
        return "false"
    if value is None:
        return ""
    if isinstance(value, (bytes, bytearray)):
        return bytes(value).decode("utf-8")
    return str(value)

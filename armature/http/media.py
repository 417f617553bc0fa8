"""Media types with their parameters (RFC 9110 section 8.3)."""

from __future__ import annotations

__all__ = ["parse_media_type", "split_quoted", "unquote"]


def split_quoted(text: str, separator: str) -> list[str]:
    """Split at a separator outside of quoted strings, in linear time; the pieces are stripped, empty ones left out.

    Args:
        text: A list or a parameter sequence.
        separator: One character.
    """
    if '"' not in text:
        return [piece for piece in (part.strip(" \t") for part in text.split(separator)) if piece]
    pieces: list[str] = []
    start = 0
    quoted = False
    position = 0
    while position < len(text):
        char = text[position]
        if quoted:
            if char == "\\":
                position += 1
            elif char == '"':
                quoted = False
        elif char == '"':
            quoted = True
        elif char == separator:
            pieces.append(text[start:position])
            start = position + 1
        position += 1
    pieces.append(text[start:])
    return [piece for piece in (part.strip(" \t") for part in pieces) if piece]


def unquote(value: str) -> str:
    """Return the text of a token or a quoted string (RFC 9110 section 5.6.4).

    Args:
        value: As it stands in the field.
    """
    if len(value) < 2 or value[0] != '"' or value[-1] != '"':
        return value
    value = value[1:-1]
    if "\\" not in value:
        return value
    out: list[str] = []
    escaped = False
    for char in value:
        if char == "\\" and not escaped:
            escaped = True
        else:
            out.append(char)
            escaped = False
    return "".join(out)


def parse_media_type(value: str) -> tuple[str, dict[str, str]]:
    """Split a media type into `type/subtype` in lower case and its parameters; of a repeated one the first counts.

    Args:
        value: The value of a `Content-Type` field, or one element of `Accept`.
    """
    if ";" not in value:
        return value.strip(" \t").lower(), {}
    pieces = split_quoted(value, ";")
    if value.lstrip(" \t").startswith(";"):
        pieces.insert(0, "")
    parameters: dict[str, str] = {}
    for piece in pieces[1:]:
        name, found, raw = piece.partition("=")
        if found:
            parameters.setdefault(name.strip(" \t").lower(), unquote(raw.strip(" \t")))
    return (pieces[0].lower() if pieces else ""), parameters

"""Byte classes of HTTP's grammar (RFC 9110 section 5.6, RFC 9112, RFC 3986), as 256-entry tables.

A table is a `bytes` of length 256: entry *b* is 1 if byte *b* belongs to the class. The compiled twins index
them, the pure twins build their regular expressions from them, so that both accept the same language.
"""

from __future__ import annotations

__all__ = [
    "FIELD_VALUE",
    "HEX_VALUE",
    "HOST",
    "LOWER",
    "QUOTED_TEXT",
    "TARGET",
    "TOKEN",
    "WHITESPACE",
    "char_class",
]

_ALPHA = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
_DIGIT = b"0123456789"


def _table(members: bytes) -> bytes:
    wanted = frozenset(members)
    return bytes(int(byte in wanted) for byte in range(256))


#: tchar (RFC 9110 section 5.6.2): methods, field names, chunk-extension names.
TOKEN = _table(b"!#$%&'*+-.^_`|~" + _DIGIT + _ALPHA)

#: field-vchar, SP, HTAB and obs-text (RFC 9110 section 5.5): everything a field value may hold.
FIELD_VALUE = _table(b"\t" + bytes(range(0x20, 0x7F)) + bytes(range(0x80, 0x100)))

#: What a request-target may hold: RFC 3986 characters plus the ones that browsers send raw
#: (`"`, `<`, `>`, `\\`, `^`, `` ` ``, `{`, `|`, `}` and octets above 0x7F). Controls, SP and DEL are refused.
TARGET = _table(bytes(range(0x21, 0x7F)) + bytes(range(0x80, 0x100)))

#: What the host of a Host field or an authority-form target may hold (RFC 3986 section 3.2.2 and port).
HOST = _table(b"-._~!$&'()*+,;=%:[]" + _DIGIT + _ALPHA)

#: qdtext without the double quote and the backslash (RFC 9110 section 5.6.4).
QUOTED_TEXT = _table(b"\t !" + bytes(range(0x23, 0x5C)) + bytes(range(0x5D, 0x7F)) + bytes(range(0x80, 0x100)))

#: OWS (RFC 9110 section 5.6.3).
WHITESPACE = _table(b" \t")

#: ASCII lower case, for `bytes.translate` and for the compiled folds.
LOWER = bytes(byte + 32 if 0x41 <= byte <= 0x5A else byte for byte in range(256))

#: Value of a hexadecimal digit, 255 for any other byte.
HEX_VALUE = bytes(
    int(chr(byte), 16) if byte < 128 and chr(byte) in "0123456789abcdefABCDEF" else 255 for byte in range(256)
)


def char_class(table: bytes) -> bytes:
    """Spell a table as the inside of a regular expression's character class."""
    return b"".join(b"\\x%02x" % byte for byte in range(256) if table[byte])

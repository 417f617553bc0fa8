"""The media type of a file, by its name."""

from __future__ import annotations

import os.path

__all__ = ["guess_media_type"]

# The registry of the operating system is not asked: the same file has the same type on every machine.
_ADDED = {
    ".avif": "image/avif",
    ".cjs": "text/javascript",
    ".flac": "audio/flac",
    ".gz": "application/gzip",
    ".heic": "image/heic",
    ".ico": "image/vnd.microsoft.icon",
    ".js": "text/javascript",
    ".jsonld": "application/ld+json",
    ".m4a": "audio/mp4",
    ".map": "application/json",
    ".md": "text/markdown",
    ".mjs": "text/javascript",
    ".mkv": "video/x-matroska",
    ".ndjson": "application/x-ndjson",
    ".ogg": "audio/ogg",
    ".ogv": "video/ogg",
    ".opus": "audio/ogg",
    ".otf": "font/otf",
    ".parquet": "application/vnd.apache.parquet",
    ".rst": "text/x-rst",
    ".toml": "application/toml",
    ".ttf": "font/ttf",
    ".wasm": "application/wasm",
    ".webm": "video/webm",
    ".webmanifest": "application/manifest+json",
    ".webp": "image/webp",
    ".woff": "font/woff",
    ".woff2": "font/woff2",
    ".xz": "application/x-xz",
    ".yaml": "application/yaml",
    ".yml": "application/yaml",
    ".zst": "application/zstd",
    ".bz2": "application/x-bzip2",
    ".br": "application/octet-stream",
}

_types: dict[str, str] = {}


def _load() -> None:
    from mimetypes import MimeTypes

    _types.update(MimeTypes(filenames=()).types_map[True])
    _types.update(_ADDED)


def guess_media_type(name: str) -> str:
    """Return the media type for a file's name, with `charset=utf-8` for text; `application/octet-stream` if unknown.

    Args:
        name: A file name or path; of `a.tar.gz` the last suffix counts.
    """
    if not _types:
        _load()
    media_type = _types.get(os.path.splitext(name)[1].lower(), "application/octet-stream")
    return f"{media_type}; charset=utf-8" if media_type.startswith("text/") else media_type

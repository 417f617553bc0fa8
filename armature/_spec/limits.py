"""Default bounds of everything that a client can make grow, in bytes unless the name says otherwise."""

from __future__ import annotations

__all__ = [
    "BODY_HIGH_WATER",
    "BODY_LIMIT",
    "CHUNK_EXTENSION_LIMIT",
    "EMPTY_LINE_LIMIT",
    "HEADER_COUNT_LIMIT",
    "HEAD_LIMIT",
    "JOIN_LIMIT",
    "JSON_LARGE",
    "JSON_SLICE",
    "JSON_SLICE_BYTES",
    "PIPELINE_HIGH_WATER",
    "READ_BUFFER_SIZE",
    "REQUEST_LINE_LIMIT",
    "SERVER_FIELD_LIMIT",
    "SMALL_FILE_LIMIT",
    "STREAM_GATHER",
    "STREAM_TURN",
    "TRAILER_LIMIT",
    "UNREAD_BODY_LIMIT",
    "WHOLE_BODY_MAXIMUM",
    "WHOLE_BODY_MINIMUM",
    "WRITE_HIGH_WATER",
    "WRITE_LOW_WATER",
]

#: Request line; above it 414 (RFC 9112 section 3 recommends at least 8,000 octets).
REQUEST_LINE_LIMIT = 16 * 1024

#: Whole head, request line included; above it 431.
HEAD_LIMIT = 64 * 1024

#: Field lines of one head; above it 431.
HEADER_COUNT_LIMIT = 128

#: Empty lines tolerated before a request line (RFC 9112 section 2.2).
EMPTY_LINE_LIMIT = 8

#: Extensions of one chunk, and of all chunks of a body together (RFC 9112 section 7.1.1).
CHUNK_EXTENSION_LIMIT = 4 * 1024

#: Trailer section of a chunked body.
TRAILER_LIMIT = 8 * 1024

#: Body of a request; above it 413.
BODY_LIMIT = 16 * 1024 * 1024

#: Body bytes kept for a handler that has not asked for them, before reading pauses.
BODY_HIGH_WATER = 64 * 1024

#: Body bytes read and thrown away after the answer to keep a connection alive; beyond it the connection closes.
UNREAD_BODY_LIMIT = 256 * 1024

#: Bytes of later, pipelined requests kept while one is being answered, before reading pauses.
PIPELINE_HIGH_WATER = 64 * 1024

#: From this size on the compiled twin sends a body beside its head, in one call, instead of copying it behind the head.
JOIN_LIMIT = 16 * 1024

#: A returned value of this weight (see the twin `weight`) is encoded in slices, each of the second weight and about the
#: third size, in bytes, with a turn of the loop behind each. Lighter ones take about a millisecond in one go.
JSON_LARGE = 16 * 1024
JSON_SLICE = 4 * 1024
JSON_SLICE_BYTES = 128 * 1024

#: A file up to this size is read whole, in the step that opens it.
SMALL_FILE_LIMIT = 64 * 1024

#: Pieces of a stream are gathered until they are worth this write, or until the producer waits.
STREAM_GATHER = 64 * 1024

#: What a producer that never waits may send before the other connections, and the news that the peer has gone, get
#: their turn: pieces, each counted once and once more for every full KiB.
STREAM_TURN = 256

#: A body of which at least so much is to come is received into its own memory, once somebody waits for all of it.
WHOLE_BODY_MINIMUM = 16 * 1024

#: The largest body that memory is set aside for before its bytes have arrived; a larger one is gathered in pieces.
WHOLE_BODY_MAXIMUM = 16 * 1024 * 1024

#: The receive buffer shared by the connections of one loop.
READ_BUFFER_SIZE = 64 * 1024

#: Value of the Server field; every head has room for it.
SERVER_FIELD_LIMIT = 256

#: A stream's writer waits above the first and goes on below the second.
WRITE_HIGH_WATER = 64 * 1024
WRITE_LOW_WATER = 16 * 1024

"""The page that `armature dev` answers an unhandled exception with.

A browser gets one self-contained page without scripts, which a strict Content-Security-Policy does not hinder and on
which nothing that a client sent is more than text; other clients get problem details with the traceback (RFC 9457).
"""

from __future__ import annotations

import base64
import functools
import hashlib
import platform
import re
import string
import traceback
from html import escape
from importlib import resources
from typing import TYPE_CHECKING, Any

from armature.app import App
from armature.cli.failure import Failure, Frame, Line, collect, printable, safe_text
from armature.http.negotiation import accepts
from armature.http.request import HttpRequest
from armature.http.response import HttpResponse

if TYPE_CHECKING:
    from armature.routing.router import Router

__all__ = ["failed_app", "install", "render", "respond"]

#: Names of header fields, cookies and parameters whose values are not shown.
_SECRET = re.compile(
    r"auth|cookie|token|secret|passw|pwd|api[-_]?key|session|sid$|csrf|xsrf|credential|signature|private|^key$|jwt",
    re.IGNORECASE,
)
_MASK = "••••••"

TRACEBACK_LIMIT = 200_000
VALUE_LIMIT = 2_000
FIELD_LIMIT = 100


def install(app: Router) -> App:
    """Return `app`, or an app around that router, with this page switched on.

    Args:
        app: The app that is about to be served; not built yet.
    """
    shown = App.of(app)
    shown.debug = True
    if shown.debug_responder is None:
        shown.debug_responder = respond
    return shown


def failed_app(error: BaseException) -> App:
    """Return an app that answers every request with the page about `error`.

    Args:
        error: Why the real app could not be loaded or built.
    """
    headline = "The app cannot be started: " + safe_text(getattr(error, "message", None) or error, 1000)

    async def show(request: HttpRequest) -> HttpResponse:
        return respond(request, error.__cause__ or error, headline=headline, hint=getattr(error, "hint", None))

    app = App()
    app.default_service(show)
    return app


def respond(
    request: Any, error: BaseException, *, headline: str | None = None, hint: str | None = None
) -> HttpResponse:
    """Answer a request whose handler failed; a debug responder of `App`.

    Args:
        request: The request.
        error: What was raised.
        headline: What failed, if it was not the request's handler.
        hint: How to mend it, if that is known.
    """
    accept = request.headers.joined("accept")
    # A client that takes anything is a program; browsers name HTML.
    if accept is not None and accepts(accept, ("application/problem+json", "text/html")) == "text/html":
        response = HttpResponse.html(render(error, request, headline=headline, hint=hint), 500)
        response.headers["content-security-policy"] = (
            f"default-src 'none'; style-src '{_style_hash()}'; "
            "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
        response.headers["referrer-policy"] = "no-referrer"
    else:
        response = _problem(error, headline, hint)
    response.headers["cache-control"] = "no-store"
    response.headers["x-content-type-options"] = "nosniff"
    response.headers.add_vary("accept")
    return response


def _problem(error: BaseException, headline: str | None, hint: str | None) -> HttpResponse:
    failure = collect(error)[0]
    culprit = failure.culprit
    members: dict[str, Any] = {
        "exception": failure.kind,
        "message": failure.message,
        "traceback": _traceback(error).splitlines(),
    }
    if culprit is not None:
        members["location"] = f"{culprit.shown}:{culprit.number}"
    if hint or failure.hint:
        members["hint"] = hint or failure.hint
    detail = headline or f"{failure.kind}: {failure.message}"
    return HttpResponse.problem(status=500, detail=detail, **members)


def _traceback(error: BaseException) -> str:
    try:
        text = "".join(traceback.format_exception(error))
    except Exception as failed:
        # An exception whose text cannot be made, deep in the chain.
        text = f"the traceback cannot be formatted: {type(failed).__name__}"
    if len(text) > TRACEBACK_LIMIT:
        half = TRACEBACK_LIMIT // 2
        text = f"{text[:half]}\n… {len(text) - 2 * half} characters left out …\n{text[-half:]}"
    return printable(text)


def render(error: BaseException, request: Any = None, *, headline: str | None = None, hint: str | None = None) -> str:
    """Return the page about an exception, as HTML.

    Args:
        error: The exception.
        request: The request that it was raised for.
        headline: What failed, if it was not the request's handler.
        hint: How to mend it, if that is known.
    """
    chain = collect(error)
    first = chain[0]
    shown_hint = hint or first.hint or next((failure.hint for failure in chain if failure.hint), None)
    values = {
        "title": escape(f"{first.kind}: {first.message[:120]}"),
        "kicker": _kicker(request, headline),
        "kind": escape(first.kind),
        "message": escape(first.message),
        "long": " long" if len(first.message) > 240 or "\n" in first.message else "",
        "notes": "".join(f'<p class="note">{escape(note)}</p>' for note in first.notes),
        "hint": f'<p class="hint"><b>Hint</b> {_with_code(safe_text(shown_hint, 2000))}</p>' if shown_hint else "",
        "failures": "".join(_render_failure(failure, first=index == 0) for index, failure in enumerate(chain)),
        "request": _render_request(request),
        "traceback": escape(_traceback(error)),
        "versions": escape(_versions()),
        "style": _style(),
    }
    return _template().substitute(values)


@functools.cache
def _template() -> string.Template:
    return string.Template(resources.files("armature.cli").joinpath("templates/error_page.html").read_text("utf-8"))


@functools.cache
def _style() -> str:
    return resources.files("armature.cli").joinpath("templates/error_page.css").read_text("utf-8")


@functools.cache
def _style_hash() -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(_style().encode("utf-8")).digest()).decode("ascii")


@functools.cache
def _versions() -> str:
    import armature
    from armature._impl import IMPL

    twins = "compiled" if IMPL == "c" else "pure"
    return f"Armature {armature.__version__} ({twins}) · {platform.python_implementation()} {platform.python_version()}"


def _kicker(request: Any, headline: str | None) -> str:
    if headline is not None:
        return escape(safe_text(headline, 1000))
    if request is None:
        return "Unhandled exception"
    return f"<b>{escape(safe_text(request.method, 50))}</b> <span>{escape(_target(request))}</span>"


def _target(request: Any) -> str:
    return safe_text(request.raw_path.decode("ascii", "backslashreplace"), VALUE_LIMIT)


def _with_code(text: str) -> str:
    """Escape a text and show what stands between backquotes as code."""
    pieces = escape(text).split("`")
    if len(pieces) % 2 == 0:
        return "`".join(pieces)
    return "".join(f"<code>{piece}</code>" if index % 2 else piece for index, piece in enumerate(pieces))


# Exceptions and frames.


def _render_failure(failure: Failure, *, first: bool) -> str:
    parts = ["<section>"]
    if not first:
        parts.append(f"<h2>… which {escape(failure.relation)}: {_heading(failure)}</h2>")
        parts += [f'<p class="note">{escape(note)}</p>' for note in failure.notes]
    parts.append(_render_frames(failure))
    for index, chain in enumerate(failure.inner):
        inner = "".join(_render_failure(member, first=place == 0) for place, member in enumerate(chain))
        opened = " open" if index == 0 else ""
        parts.append(f'<details class="member"{opened}><summary>{_heading(chain[0])}</summary>{inner}</details>')
    if failure.omitted:
        parts.append(f'<p class="quiet">{failure.omitted} more exceptions of the group are not shown.</p>')
    parts.append("</section>")
    return "".join(parts)


def _heading(failure: Failure) -> str:
    return f'<span class="kind">{escape(failure.kind)}</span> <span class="said">{escape(failure.message)}</span>'


def _render_frames(failure: Failure) -> str:
    culprit = failure.culprit
    if culprit is None:
        return "" if failure.inner else '<p class="quiet">There is no traceback.</p>'
    parts: list[str] = []
    hidden: list[Frame] = []
    # Innermost first: where it went wrong stands on top.
    for frame in reversed(failure.frames):
        if frame.library and frame is not culprit:
            hidden.append(frame)
        else:
            parts.append(_render_hidden(hidden))
            hidden = []
            parts.append(_render_frame(frame, is_open=True, main=frame is culprit))
        if frame.omitted:
            parts.append(_render_hidden(hidden))
            hidden = []
            parts.append(f'<p class="quiet">{frame.omitted} frames are not shown.</p>')
    parts.append(_render_hidden(hidden))
    return f'<div class="frames">{"".join(parts)}</div>'


def _render_hidden(frames: list[Frame]) -> str:
    if not frames:
        return ""
    places = list(dict.fromkeys(_package(frame) for frame in frames))
    named = ", ".join(places[:3]) + (" …" if len(places) > 3 else "")
    count = f"{len(frames)} frame{'s' if len(frames) > 1 else ''}"
    inner = "".join(_render_frame(frame, is_open=False, main=False) for frame in frames)
    return f'<details class="hidden"><summary>{count} in {escape(named)}</summary>{inner}</details>'


def _package(frame: Frame) -> str:
    if frame.shown.startswith("<"):
        return frame.shown
    parts = frame.shown.replace("\\", "/").split("/")
    for marker in ("site-packages", "dist-packages"):
        if marker in parts[:-1]:
            parts = parts[parts.index(marker) + 1 :]
            break
    else:
        if frame.shown.startswith(("/", "\\")) or frame.shown[1:3] == ":\\":
            # The standard library: its packages are directories, its modules files.
            name = next((index for index, part in enumerate(parts) if re.fullmatch(r"python3\.\d+t?|Lib", part)), None)
            parts = parts[name + 1 :] if name is not None else parts[-1:]
    return (parts[0] if parts else frame.shown).removesuffix(".py")


def _render_frame(frame: Frame, *, is_open: bool, main: bool) -> str:
    where = f"{frame.shown}:{frame.number}"
    name = f" in <b>{escape(frame.name)}</b>" if frame.name else ""
    classes = "frame main" if main else "frame"
    repeated = ""
    if frame.repeated:
        what = "This frame" if frame.cycle == 1 else f"This frame and the {frame.cycle - 1} above it"
        verb = "comes" if frame.cycle == 1 else "come"
        repeated = f'<p class="quiet">{what} {verb} {frame.repeated} more times in a row.</p>'
    if not frame.lines:
        return (
            f'<div class="{classes}"><p class="place"><code>{escape(where)}</code>{name} '
            f'<span class="quiet">(no source)</span></p></div>{repeated}'
        )
    source = "".join(map(_render_line, frame.lines))
    return (
        f'<details class="{classes}"{" open" if is_open else ""}>'
        f'<summary class="place"><code title="{escape(printable(frame.filename))}">{escape(where)}</code>{name}'
        f"</summary>"
        f'<ol class="source" start="{frame.lines[0].number}">{source}</ol></details>{repeated}'
    )


def _render_line(line: Line) -> str:
    if line.mark is not None and line.current:
        start, end = line.mark
        text = (
            f"{escape(printable(line.text[:start]))}<mark>{escape(printable(line.text[start:end]))}</mark>"
            f"{escape(printable(line.text[end:]))}"
        )
    else:
        text = escape(printable(line.text))
    return f"<li{' class=current' if line.current else ''}><code>{text or ' '}</code></li>"


# The request.


def _render_request(request: Any) -> str:
    if request is None:
        return ""
    parts = ['<section class="request"><h2>Request</h2>']
    client = request.client
    basics = [
        ("Method", safe_text(request.method, 50)),
        ("Path", _target(request)),
        ("HTTP version", safe_text(request.http_version, 20)),
    ]
    if client is not None:
        basics.append(("Client", safe_text(f"{client[0]}:{client[1]}", 200)))
    route = getattr(request.endpoint, "route", None)
    described, location = getattr(route, "described", None), getattr(route, "location", None)
    if described:
        basics.append(("Handler", safe_text(described, 300)))
    if location:
        basics.append(("Defined at", safe_text(location, 400)))
    parts.append(_table("", basics))
    parts.append(_table("Path parameters", _masked(list(request.params.items()))))
    parts.append(_table("Query", _masked(_query_items(request))))
    parts.append(_table("Headers", [(name, _header(name, value)) for name, value in request.headers.multi_items()]))
    parts.append("</section>")
    return "".join(parts)


def _query_items(request: Any) -> list[tuple[str, str]]:
    try:
        return list(request.query.multi_items())
    except Exception:
        # More parameters than are parsed; perhaps that is the very error.
        return [("(raw)", "not parsed")]


def _masked(pairs: list[tuple[str, str]]) -> list[tuple[str, str]]:
    return [(name, _MASK if _SECRET.search(name) else value) for name, value in pairs]


def _header(name: str, value: str) -> str:
    lowered = name.lower()
    if lowered in ("authorization", "proxy-authorization"):
        scheme, _, rest = value.partition(" ")
        return f"{scheme} {_MASK}" if rest else _MASK
    if lowered in ("cookie", "set-cookie"):
        names = [pair.partition("=")[0].strip() for pair in value.split(";") if "=" in pair]
        return "; ".join(f"{name}={_MASK}" for name in names) or _MASK
    if lowered == "referer":
        # A query may carry secrets.
        return value.partition("?")[0] + (f"?{_MASK}" if "?" in value else "")
    return _MASK if _SECRET.search(name) else value


def _table(caption: str, pairs: list[tuple[str, str]]) -> str:
    if not pairs:
        return ""
    rows = "".join(
        f"<tr><th>{escape(safe_text(name, 200))}</th><td>{escape(safe_text(value, VALUE_LIMIT))}</td></tr>"
        for name, value in pairs[:FIELD_LIMIT]
    )
    if len(pairs) > FIELD_LIMIT:
        rows += f"<tr><th>…</th><td>{len(pairs) - FIELD_LIMIT} more</td></tr>"
    heading = f"<h3>{escape(caption)}</h3>" if caption else ""
    return f"{heading}<table>{rows}</table>"

"""Cross-origin requests: preflights, simple requests, credentials, and what caches must know."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from armature import App, ConfigurationError, CORSMiddleware, HTTPException, HttpResponse, get
from carrier import Answer

Ask = Callable[..., Answer]
ORIGIN = "https://example.org"


def app_with(**options: Any) -> App:
    app = App().wrap(CORSMiddleware(**options))
    app.route("/", get(lambda: "x").post(lambda: "y"))

    @app.get("/error")
    async def error() -> None:
        raise HTTPException(403)

    @app.get("/varied")
    async def varied() -> HttpResponse:
        return HttpResponse.text("x", headers={"vary": "Accept, Origin", "access-control-allow-origin": "bad"})

    return app


def fields(answer: Answer) -> dict[str, str]:
    return {
        name.decode(): value.decode()
        for name, value in answer.fields
        if name.startswith(b"access-control") or name == b"vary"
    }


def preflight(ask: Ask, app: App, origin: str = ORIGIN, method: str = "GET", headers: str | None = None) -> Answer:
    given = [("origin", origin), ("access-control-request-method", method)]
    if headers is not None:
        given.append(("access-control-request-headers", headers))
    return ask(app, "/", "OPTIONS", given)


def test_without_an_origin_nothing_is_added_but_vary(ask: Ask) -> None:
    assert fields(ask(app_with(allow_origins=[ORIGIN]), "/")) == {"vary": "origin"}
    assert fields(ask(app_with(allow_origins=["*"]), "/")) == {}


def test_simple_requests(ask: Ask) -> None:
    app = app_with(allow_origins=[ORIGIN], expose_headers=["X-A", "x-b"])
    answer = ask(app, "/", headers=[("origin", ORIGIN)])
    assert fields(answer) == {
        "access-control-allow-origin": ORIGIN, "access-control-expose-headers": "x-a, x-b", "vary": "origin",
    }  # fmt: skip
    assert answer.text == "x"
    other = ask(app, "/", headers=[("origin", "https://evil.example")])
    assert (other.text, fields(other)) == ("x", {"vary": "origin"})


def test_every_origin(ask: Ask) -> None:
    answer = ask(app_with(allow_origins=["*"]), "/", headers=[("origin", "https://any.example")])
    assert fields(answer) == {"access-control-allow-origin": "*"}


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        ("https://a.example.org", True),
        ("https://example.org", False),
        ("https://a.example.org.evil.example", False),
        ("http://a.example.org", False),
        ("null", False),
    ],
)
def test_origins_by_pattern_match_as_a_whole(ask: Ask, origin: str, allowed: bool) -> None:
    app = app_with(allow_origin_regex=r"https://[a-z]+\.example\.org", allow_credentials=True)
    answer = ask(app, "/", headers=[("origin", origin)])
    assert answer.header("access-control-allow-origin") == (origin if allowed else None)
    assert answer.header("access-control-allow-credentials") == ("true" if allowed else None)


def test_errors_and_refusals_carry_the_fields_too(ask: Ask) -> None:
    app = app_with(allow_origins=[ORIGIN])
    for path, method, status in [("/error", "GET", 403), ("/none", "GET", 404), ("/error", "POST", 405)]:
        answer = ask(app, path, method, [("origin", ORIGIN)])
        assert (answer.status, answer.header("access-control-allow-origin")) == (status, ORIGIN)


def test_the_handlers_own_fields_are_replaced_and_vary_is_kept(ask: Ask) -> None:
    answer = ask(app_with(allow_origins=[ORIGIN]), "/varied", headers=[("origin", ORIGIN)])
    assert answer.headers("access-control-allow-origin") == [ORIGIN]
    assert answer.headers("vary") == ["Accept, Origin"]


def test_preflight(ask: Ask) -> None:
    app = app_with(
        allow_origins=[ORIGIN],
        allow_methods=["GET", "put"],
        allow_headers=["X-Token"],
        allow_credentials=True,
        max_age=5,
    )
    answer = preflight(ask, app, method="PUT", headers="x-token, Content-Type")
    assert (answer.status, answer.body) == (204, b"")
    assert fields(answer) == {
        "access-control-allow-origin": ORIGIN,
        "access-control-allow-credentials": "true",
        "access-control-allow-methods": "GET, PUT",
        "access-control-allow-headers": "accept, accept-language, content-language, content-type, x-token",
        "access-control-max-age": "5",
        "vary": "origin",
    }


@pytest.mark.parametrize(
    ("origin", "method", "headers", "what"),
    [
        ("https://evil.example", "GET", None, "origin"),
        (ORIGIN, "DELETE", None, "method"),
        (ORIGIN, "get", None, "method"),
        (ORIGIN, "GET", "x-other", "headers"),
    ],
)
def test_preflight_refused(ask: Ask, origin: str, method: str, headers: str | None, what: str) -> None:
    answer = preflight(ask, app_with(allow_origins=[ORIGIN]), origin, method, headers)
    assert (answer.status, answer.text) == (400, f"Disallowed CORS {what}")
    assert answer.header("access-control-allow-origin") == (None if what == "origin" else ORIGIN)
    assert answer.header("access-control-allow-methods") is None


def test_permissive_allows_everything_but_credentials(ask: Ask) -> None:
    app = App().wrap(CORSMiddleware.permissive()).route("/", get(lambda: "x"))
    answer = preflight(ask, app, "https://any.example", "PATCH", "X-Whatever, x-more")
    assert fields(answer) == {
        "access-control-allow-origin": "*",
        "access-control-allow-methods": "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT",
        "access-control-allow-headers": "x-whatever, x-more",
        "access-control-max-age": "600",
        "vary": "access-control-request-headers",
    }
    # Only names are echoed.
    assert preflight(ask, app, headers="x-a, b c").status == 400


def test_an_options_request_that_is_no_preflight_passes(ask: Ask) -> None:
    answer = ask(app_with(allow_origins=[ORIGIN]), "/", "OPTIONS", [("origin", ORIGIN)])
    assert (answer.status, answer.header("allow")) == (204, "GET, HEAD, POST, OPTIONS")
    assert answer.header("access-control-allow-origin") == ORIGIN


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"allow_origins": ["*"], "allow_credentials": True}, "would let every site act for your users"),
        ({"allow_origins": "*"}, "allow_origins must be a list, not the str"),
        ({"allow_origins": ["example.org"]}, "'example.org' is no origin"),
        ({"allow_origins": ["https://example.org/path"]}, "is no origin"),
        ({"allow_methods": ["GET POST"]}, "'GET POST' is no method"),
        ({"allow_headers": ["x:y"]}, "'x:y' is no name of a header field"),
        ({"expose_headers": ["x\ny"]}, "is no name of a header field"),
    ],
)
def test_options_that_make_no_sense(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        CORSMiddleware(**options)


def test_origins_are_compared_as_browsers_send_them(ask: Ask) -> None:
    app = app_with(allow_origins=["HTTPS://Example.org/", "null"])
    assert ask(app, "/", headers=[("origin", ORIGIN)]).header("access-control-allow-origin") == ORIGIN
    assert ask(app, "/", headers=[("origin", "null")]).header("access-control-allow-origin") == "null"

"""The messages as handlers use them, on the twin that the process chose: lazy views, constructors, JSON."""

from __future__ import annotations

from typing import Any

import pytest

from armature._impl import IMPL
from armature.http import json as codec
from armature.http.cookies import format_set_cookie
from armature.http.request import HttpRequest
from armature.http.response import HttpResponse
from benchmarks.micro.test_message import FIELDS, JSON

COOKIES = b"session=3f2a9c51b7d84e06; theme=dark; lang=en; consent=yes; ab=42"
QUERY = b"q=hot%20paths&page=2&sort=name&tag=a&tag=b&empty="


@pytest.fixture
def run(benchmark: Any) -> Any:
    """The benchmark, marked with the twin that this process runs."""
    benchmark.extra_info["impl"] = IMPL
    return benchmark


def request(**options: Any) -> HttpRequest:
    return HttpRequest(None, "GET", b"/users/1234", options.pop("query", b""), options.pop("fields", FIELDS))


def test_request(run: Any) -> None:
    assert run(request).method == "GET"


def test_request_with_its_headers_view(run: Any) -> None:
    assert run(lambda: request().headers["x-request-id"])


def test_request_all_headers(run: Any) -> None:
    assert len(run(lambda: request().headers.multi_items())) == len(FIELDS)


def test_request_query(run: Any) -> None:
    assert run(lambda: request(query=QUERY).query["q"]) == "hot paths"


def test_request_cookies(run: Any) -> None:
    fields = [*FIELDS, (b"cookie", COOKIES)]
    assert run(lambda: request(fields=fields).cookies["theme"]) == "dark"


def test_request_url(run: Any) -> None:
    class Carrier:
        scheme, client, server, app = "http", None, ("127.0.0.1", 8000), None

    carrier = Carrier()
    assert run(lambda: str(HttpRequest(carrier, "GET", b"/users/1234", QUERY, FIELDS).url))


def test_response_text(run: Any) -> None:
    assert run(HttpResponse.text, "Hello, World!").status == 200


def test_response_with_a_header_set(run: Any) -> None:
    def make() -> HttpResponse:
        response = HttpResponse.ok()
        response.headers["cache-control"] = "no-store"
        return response

    assert run(make).status == 200


def test_response_with_a_cookie(run: Any) -> None:
    def make() -> HttpResponse:
        response = HttpResponse.ok()
        response.set_cookie("session", "3f2a9c51b7d84e06", httponly=True)
        return response

    assert run(make).status == 200


def test_set_cookie(run: Any) -> None:
    assert run(lambda: format_set_cookie("session", "3f2a9c51b7d84e06"))


@pytest.mark.parametrize("size", JSON)
def test_json_response(run: Any, size: str) -> None:
    assert run(HttpResponse.json, JSON[size]).body


@pytest.mark.parametrize("size", JSON)
def test_json_decode(run: Any, size: str) -> None:
    data = codec.dumps(JSON[size])
    assert run(codec.loads, data) == JSON[size]

"""The developer's error page: everything escaped, secrets masked, no scripts, right for browsers and for programs."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import html
import re
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from armature import App, HttpRequest, HttpResponse, Router
from armature.cli.error_page import failed_app, install, render
from armature.server.importer import AppImportError
from armature.testing import ClientResponse, TestClient

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"

#: Elements that the page is made of; there is none that runs, loads or submits anything.
ELEMENTS = {
    "html", "head", "meta", "title", "style", "body", "header", "main", "footer", "section", "details", "summary",
    "h1", "h2", "h3", "p", "b", "div", "span", "code", "pre", "ol", "li", "mark", "table", "tr", "th", "td",
}  # fmt: skip

ATTACKS = [
    "<script>alert(1)</script>",
    "</style><script>alert(1)</script>",
    "</title><img src=x onerror=alert(1)>",
    "\"'><svg/onload=alert(1)>",
    "' autofocus onfocus=alert(1) x='",
    "</code></pre></details><iframe src=javascript:alert(1)>",
    "<!-- <a href='javascript:alert(1)'>x</a>",
    "]]><script>alert(1)</script>",
    "${title} $style $$ %s {0}",
    "<scr\x00ipt>alert(1)</scr\x00ipt>",
    "`<b>code</b>`",
    "+ADw-script+AD4-alert(1)+ADw-/script+AD4-",
    "\u2028\u2029<script>",
    "\u202egnp.tpircs",
]


class Checker(HTMLParser):
    """Collects what the page is made of."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: set[str] = set()
        self.attributes: set[str] = set()
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def check(page: str) -> Checker:
    """Fail if the page holds anything that the template does not."""
    checker = Checker()
    checker.feed(page)
    checker.close()
    assert checker.elements <= ELEMENTS, checker.elements - ELEMENTS
    assert checker.attributes <= {"lang", "charset", "name", "content", "class", "open", "start", "title"}
    assert page.count("<!--") == 0
    return checker


@pytest.fixture
def app() -> App:
    app = App()

    @app.api_route("/orders/{order_id}", methods=["GET", "POST"])
    async def order(order_id: str, req: HttpRequest) -> None:
        prices = {"tea": 310}
        prices["sugar"]

    return app


@pytest.fixture
def ask(app: App) -> Iterator[Callable[..., ClientResponse]]:
    with TestClient(install(app), raise_server_exceptions=False) as client:

        def ask(path: str = "/orders/7", accept: str | None = BROWSER, **options: Any) -> ClientResponse:
            if accept is None:
                del client.headers["accept"]
            else:
                client.headers["accept"] = accept
            return client.get(path, **options)

        yield ask


Ask = Callable[..., ClientResponse]


def test_a_browser_gets_a_page_with_the_source(ask: Ask) -> None:
    response = ask()
    assert response.status_code == 500
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    text = "".join(check(response.text).text)
    assert "KeyError" in text
    assert "'sugar'" in text
    assert 'prices["sugar"]' in text
    assert "test_error_page.py" in text
    assert re.search(r'<details class="frame main" open>', response.text)
    assert re.search(r"<li class=current><code>        prices\[&quot;sugar&quot;\]", response.text)
    assert "GET" in text
    assert "/orders/7" in text
    assert "order_id" in text


def test_it_holds_under_its_own_strict_policy(ask: Ask) -> None:
    response = ask()
    policy = dict(part.strip().split(" ", 1) for part in response.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'"
    style = re.search(r"<style>(.*?)</style>", response.text, re.DOTALL)
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert policy["style-src"] == f"'sha256-{digest}'"
    assert 'style="' not in response.text
    assert "@import" not in response.text
    assert "url(" not in response.text
    assert "http" not in style[1]
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["vary"] == "accept"


@pytest.mark.parametrize("accept", ["*/*", "application/json", "application/problem+json, */*;q=0.1", None])
def test_a_program_gets_problem_details(ask: Ask, accept: str | None) -> None:
    response = ask(accept=accept)
    assert response.status_code == 500
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem["status"] == 500
    assert problem["detail"] == "KeyError: 'sugar'"
    assert problem["exception"] == "KeyError"
    assert problem["traceback"][-1] == "KeyError: 'sugar'"
    assert re.fullmatch(r".*test_error_page\.py:\d+", problem["location"])


def test_outside_of_development_nothing_is_told(app: App) -> None:
    with TestClient(app, raise_server_exceptions=False, headers={"accept": BROWSER}) as client:
        response = client.get("/orders/7")
    assert response.status_code == 500
    assert "sugar" not in response.text
    assert "test_error_page" not in response.text


def test_secrets_are_masked(ask: Ask) -> None:
    page = ask(
        "/orders/7?page=2&access_token=hush-1&password=hush-2",
        headers={
            "authorization": "Bearer hush-3",
            "x-api-key": "hush-4",
            "x-csrf-token": "hush-5",
            "referer": "http://testserver/login?code=hush-6",
            "x-plain": "shown",
        },
        cookies={"sid": "hush-7", "theme": "hush-8"},
    ).text
    assert "hush" not in page
    for shown in (
        "shown",
        "Bearer ••••••",
        "sid=••••••",
        "theme=••••••",
        "access_token",
        "page",
        "http://testserver/login",
    ):
        assert shown in page


@pytest.mark.parametrize("attack", ATTACKS)
def test_nothing_that_a_client_sends_is_more_than_text(ask: Ask, attack: str) -> None:
    quoted = "".join(f"%{byte:02x}" for byte in attack.encode("utf-8"))
    sent = (
        attack.encode("utf-8")
        .translate(None, bytes(range(32)))
        .decode("utf-8")
        .encode("latin-1", "ignore")
        .decode("latin-1")
    )
    page = ask(
        f"/orders/{quoted}?{quoted}={quoted}", headers={"x-a": sent, "x-b": "'\"><b>"}, cookies={"a": quoted}
    ).text
    check(page)


@pytest.mark.parametrize("attack", ATTACKS)
def test_nothing_in_an_exception_is_more_than_text(attack: str) -> None:
    kind = type(attack.replace("\x00", ""), (ValueError,), {"__module__": attack.replace("\x00", ""), "hint": attack})
    error = kind(attack)
    error.add_note(attack)
    error.__cause__ = ExceptionGroup(attack, [kind(attack), ExceptionGroup(attack, [LookupError(attack)])])
    checker = check(render(error))
    assert "••••••" not in "".join(checker.text)


@pytest.mark.parametrize("attack", ATTACKS)
def test_nothing_in_source_code_is_more_than_text(tmp_path: Path, attack: str) -> None:
    path = tmp_path / f"{attack.replace('/', '_').replace(chr(0), '')}.py"
    line = attack.replace("\x00", "").replace("\u2028", "").replace("\u2029", "")
    source = f"# {line}\ndef f():\n    return 1 / 0  # {line}\n# {line}\n"
    path.write_text(source, encoding="utf-8")
    scope: dict[str, Any] = {}
    exec(compile(source, str(path), "exec"), scope)
    with pytest.raises(ZeroDivisionError) as caught:
        scope["f"]()
    checker = check(render(caught.value))
    assert "return 1 / 0" in "".join(checker.text)


def test_characters_that_reorder_text_are_shown_as_escapes() -> None:
    page = render(ValueError("if admin\u202e:\u2066 # check"))
    assert "\u202e" not in page
    assert "\\u202e" in page


def test_a_lone_surrogate_can_be_sent() -> None:
    render(ValueError("\ud800"), hint="\ud800 \udfff").encode("utf-8")


def test_a_recursion_error_is_a_short_page(app: App) -> None:
    @app.get("/deep")
    async def deep() -> int:
        def loop(depth: int) -> int:
            return loop(depth + 1)

        return loop(0)

    with TestClient(install(app), raise_server_exceptions=False, headers={"accept": BROWSER}) as client:
        page = client.get("/deep").text
    assert "more times in a row" in page
    assert len(page) < 60_000


def test_groups_and_causes_are_on_the_page(app: App) -> None:
    @app.get("/group")
    async def group() -> None:
        async def fails(text: str) -> None:
            raise LookupError(text)

        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(fails("first"))
                tasks.create_task(fails("second"))
        except ExceptionGroup as caught:
            raise RuntimeError("both failed") from caught

    with TestClient(install(app), raise_server_exceptions=False, headers={"accept": BROWSER}) as client:
        page = client.get("/group").text
    text = "".join(check(page).text)
    assert "both failed" in text
    assert "was directly caused by" in text
    assert "first" in text
    assert "second" in text
    assert page.count('<details class="member"') == 2


def test_library_frames_are_folded_away(app: App) -> None:
    @app.get("/missing")
    def missing() -> str:
        return Path("/nowhere/at/all").read_text()

    with TestClient(install(app), raise_server_exceptions=False, headers={"accept": BROWSER}) as client:
        page = client.get("/missing").text
    assert re.search(r'<details class="hidden"><summary>\d frames? in pathlib', page)
    assert re.search(
        r'<details class="frame main" open><summary class="place"><code[^>]*>[^<]*test_error_page\.py', page
    )


def test_many_headers_and_long_values_are_cut(ask: Ask) -> None:
    page = ask("/orders/7?" + "&".join(f"p{number}=1" for number in range(300)), headers={"x-long": "y" * 20_000}).text
    assert "200 more" in page
    assert len(page) < 120_000


def test_a_query_that_cannot_be_parsed_still_gives_a_page(ask: Ask) -> None:
    assert "not parsed" in ask("/orders/7?" + "&".join(["a=1"] * 1500)).text


def test_hints_show_code_as_code() -> None:
    page = render(ValueError("x"), hint="put `await` <before> it")
    assert "put <code>await</code> &lt;before&gt; it" in page
    assert "an odd ` one" in render(ValueError("x"), hint="an odd ` one")


def test_head_and_post_are_answered_too(app: App) -> None:
    with TestClient(install(app), raise_server_exceptions=False, headers={"accept": BROWSER}) as client:
        assert client.head("/orders/7").status_code == 500
        assert "<b>POST</b>" in client.post("/orders/7").text


def test_a_router_can_be_shown_and_an_own_responder_stays() -> None:
    router = Router()

    @router.get("/")
    async def index(req: HttpRequest) -> HttpResponse:
        raise LookupError("in a router")

    with TestClient(install(router), raise_server_exceptions=False, headers={"accept": BROWSER}) as client:
        assert "in a router" in client.get("/").text

    app = App()
    app.debug_responder = lambda request, error: HttpResponse.text("mine", status=500)
    assert install(app) is app

    @app.get("/")
    async def fails() -> None:
        raise LookupError

    with TestClient(app, raise_server_exceptions=False) as client:
        assert client.get("/").text == "mine"


def test_an_app_that_cannot_be_loaded_is_shown_at_every_path() -> None:
    cause = ZeroDivisionError("while importing")
    error = AppImportError("'shop' failed while it was imported", target="shop:app", hint="look at line 3")
    error.__cause__ = cause
    with TestClient(failed_app(error), headers={"accept": BROWSER}) as client:
        for path in ("/", "/any/thing"):
            response = client.get(path)
            assert response.status_code == 500
            text = html.unescape(response.text)
            assert "The app cannot be started: 'shop' failed while it was imported" in text
            assert "while importing" in text
            assert "look at line 3" in text
        problem = client.post("/x", headers={"accept": "*/*"}).json()
        assert problem["hint"] == "look at line 3"
        assert problem["exception"] == "ZeroDivisionError"

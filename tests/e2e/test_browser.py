"""A real browser against the server: what a page of a user's app does in it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import struct
import wave
import zlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from armature import App, CORSMiddleware, HttpRequest, HttpResponse, ServerSentEvent, StaticFiles
from chromium import Browser, Page, require_browser
from e2e.command_line import command
from wire_client import Running, eventually, serving

pytestmark = [
    # One browser for all of them.
    pytest.mark.xdist_group("browser"),
    pytest.mark.skipif(os.name == "nt", reason="the browser is driven over inherited descriptors"),
]

PAGE = """<!doctype html>
<html><head>
<link rel="stylesheet" href="/static/style.css"><link rel="icon" href="data:,">
<script src="/static/page.js" defer></script>
</head><body><h1>Gr\u00fc\u00dfe</h1><img src="/picture"><pre id="got"></pre><pre id="sent"></pre></body></html>
"""
STYLE = "h1 { color: rgb(1, 2, 3) }"
SCRIPT = """
const show = (id, value) => { document.getElementById(id).textContent = value };
window.done = (async () => {
    const got = await (await fetch('/items?page=2')).json();
    show('got', got.items.join(' and '));
    const sent = await fetch('/items', {
        method: 'POST', headers: {'content-type': 'application/json'}, body: JSON.stringify({name: 'caf\u00e9', price: 3}),
    });
    show('sent', sent.status + ' ' + (await sent.json()).name);
})();
"""
WIDTH, HEIGHT = 7, 5
#: A recording of which a browser fetches the beginning alone until somebody wants to hear the rest.
RATE, SECONDS = 8000, 1000


def picture() -> bytes:
    """A PNG, blue all over."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    rows = (b"\0" + b"\0\0\xff" * WIDTH) * HEIGHT
    head = struct.pack(">IIBBBBB", WIDTH, HEIGHT, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def make_app(files: Path) -> App:
    app = App()
    app.state.ended = []
    app.state.go = asyncio.Event()
    app.mount("/static", StaticFiles(files))

    @app.get("/")
    async def index() -> HttpResponse:
        return HttpResponse.html(PAGE)

    @app.get("/blank")
    async def blank() -> HttpResponse:
        return HttpResponse.html('<!doctype html><link rel="icon" href="data:,">')

    @app.get("/picture")
    async def image() -> HttpResponse:
        return HttpResponse.file(files / "picture.png")

    @app.get("/items")
    async def items(page: int) -> dict[str, Any]:
        return {"items": [f"item {page}", "another"]}

    @app.post("/items")
    async def add(request: HttpRequest) -> tuple[dict[str, Any], int]:
        return await request.json(), 201

    @app.get("/pieces")
    async def pieces() -> HttpResponse:
        async def produce() -> AsyncIterator[str]:
            app.state.go.clear()
            yield "one"
            await app.state.go.wait()
            yield "two"

        return HttpResponse.stream(produce(), content_type="text/plain; charset=utf-8")

    @app.post("/go")
    async def go() -> None:
        app.state.go.set()

    @app.get("/endless")
    async def endless() -> HttpResponse:
        async def produce() -> AsyncIterator[bytes]:
            try:
                while True:
                    yield b"x" * 1000
                    await asyncio.sleep(0.01)
            finally:
                app.state.ended.append("endless")

        return HttpResponse.stream(produce())

    @app.get("/events")
    async def events(request: HttpRequest) -> HttpResponse:
        # Three at a time; then the stream ends, and the browser asks for what came after the last one that it has.
        last = int(request.headers.get("last-event-id", "0"))

        async def produce() -> AsyncIterator[ServerSentEvent]:
            for number in range(last + 1, last + 4):
                yield ServerSentEvent({"number": number}, event="tick", id=number, retry=1)

        return HttpResponse.sse(produce())

    @app.post("/login")
    async def login() -> HttpResponse:
        response = HttpResponse.no_content()
        response.set_cookie("session", "s3cret", httponly=True, samesite="strict")
        response.set_cookie("theme", "dark; or light", max_age=3600)
        response.set_cookie("elsewhere", "x", path="/elsewhere")
        return response

    @app.post("/logout")
    async def logout() -> HttpResponse:
        response = HttpResponse.no_content()
        response.delete_cookie("session")
        return response

    @app.get("/cookies")
    async def cookies(request: HttpRequest) -> dict[str, str]:
        return dict(request.cookies)

    @app.get("/port")
    async def port(request: HttpRequest) -> int:
        assert request.client is not None
        return request.client[1]

    @app.get("/form")
    async def form() -> HttpResponse:
        return HttpResponse.html("<form method=post action=/form><input name=word value='two w\u00f6rds &amp;'></form>")

    @app.post("/form")
    async def submitted(request: HttpRequest) -> HttpResponse:
        app.state.word = (await request.form())["word"]
        return HttpResponse.redirect("/thanks", 303)

    @app.get("/thanks")
    async def thanks() -> HttpResponse:
        return HttpResponse.html(f"<title>{len(app.state.word)}</title><p>Thanks")

    return app


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> App:
    files = tmp_path_factory.mktemp("files")
    (files / "style.css").write_text(STYLE)
    (files / "page.js").write_text(SCRIPT, "utf-8")
    (files / "picture.png").write_bytes(picture())
    (files / "numbers.bin").write_bytes(bytes(range(256)) * 1000)
    with wave.open(str(files / "sound.wav"), "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(RATE)
        sound.writeframes(bytes(2 * RATE * SECONDS))
    return make_app(files)


@pytest.fixture(scope="module")
def running(app: App) -> Iterator[Running]:
    with serving(app, "asyncio") as running:
        yield running


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(require_browser(), tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture
def page(browser: Browser, running: Running) -> Iterator[Page]:
    """A page of the app that has loaded, and shows nothing."""
    with browser.page() as page:
        page.open(f"http://127.0.0.1:{running.port}/blank")
        yield page


def test_a_page_with_all_that_belongs_to_it(page: Page, running: Running) -> None:
    page.open(f"http://127.0.0.1:{running.port}/")
    assert page.evaluate("document.querySelector('h1').textContent") == "Gr\u00fc\u00dfe"
    assert page.evaluate("getComputedStyle(document.querySelector('h1')).color") == "rgb(1, 2, 3)"
    image = "document.querySelector('img')"
    assert page.evaluate(f"[{image}.naturalWidth, {image}.naturalHeight]") == [WIDTH, HEIGHT]
    # JSON, there and back, in what the page shows.
    page.run("await window.done")
    assert page.evaluate("document.getElementById('got').textContent") == "item 2 and another"
    assert page.evaluate("document.getElementById('sent').textContent") == "201 caf\u00e9"
    for path, media_type in [
        ("/", "text/html"),
        ("/static/style.css", "text/css"),
        ("/static/page.js", "text/javascript"),
        ("/picture", "image/png"),
        ("/items", "application/json"),
    ]:
        response = page.responses(path)[-1]
        assert response["status"] in (200, 201)
        assert response["mimeType"] == media_type
        assert response["protocol"] == "http/1.1"


def test_a_file_that_is_in_the_cache_is_not_sent_again(page: Page, running: Running) -> None:
    page.open(f"http://127.0.0.1:{running.port}/")
    # The script of the page asks for something as well.
    page.run("await window.done")
    status = page.run(
        "const answer = await fetch('/static/style.css', {cache: 'no-cache'}); return [answer.status, await answer.text()]"
    )
    # The script gets what the cache holds; what came over the wire is a 304.
    assert status == [200, STYLE]
    received = page.events("Network.responseReceived")[-1]["requestId"]
    wire = page.told("Network.responseReceivedExtraInfo", lambda event: event["requestId"] == received)
    assert wire["statusCode"] == 304


def test_connections_are_used_again(page: Page) -> None:
    ports = page.run(
        """
        const ports = [];
        for (let n = 0; n < 20; n++) ports.push(await (await fetch('/port')).json());
        return ports;
        """
    )
    assert len(ports) == 20
    assert len(set(ports)) == 1
    responses = page.responses("/port")
    assert len(responses) == 20
    assert {response["connectionId"] for response in responses} == {responses[0]["connectionId"]}
    assert all(response["connectionReused"] for response in responses[1:])


def test_many_requests_at_once(page: Page) -> None:
    found = page.run(
        """
        const answers = await Promise.all([...Array(60).keys()].map(n => fetch(`/items?page=${n}`)));
        return (await Promise.all(answers.map(answer => answer.json()))).map(found => found.items[0]);
        """
    )
    assert found == [f"item {number}" for number in range(60)]


def test_a_stream_is_read_as_it_is_made(page: Page) -> None:
    read = page.run(
        """
        const reader = (await fetch('/pieces')).body.getReader();
        const text = async () => { const {done, value} = await reader.read(); return done || new TextDecoder().decode(value) };
        const read = [await text()];
        // The server holds the second piece back until it hears that the first one has been read.
        await fetch('/go', {method: 'POST'});
        read.push(await text(), await text());
        return read;
        """
    )
    assert read == ["one", "two", True]


@pytest.mark.parametrize("leaves", ["controller.abort()", "await reader.cancel()"])
def test_a_stream_that_is_given_up_ends_at_the_server(page: Page, app: App, leaves: str) -> None:
    app.state.ended.clear()
    page.run(
        f"""
        const controller = new AbortController();
        const reader = (await fetch('/endless', {{signal: controller.signal}})).body.getReader();
        await reader.read();
        {leaves};
        """
    )
    eventually(lambda: app.state.ended == ["endless"])


def test_a_page_that_is_left_ends_its_streams(page: Page, app: App) -> None:
    app.state.ended.clear()
    page.run("window.reader = (await fetch('/endless')).body.getReader(); await window.reader.read()")
    page.open("about:blank")
    eventually(lambda: app.state.ended == ["endless"])


def test_events_go_on_after_the_stream_broke_off(page: Page) -> None:
    seen = page.run(
        """
        const source = new EventSource('/events');
        const seen = [];
        return new Promise(resolve => source.addEventListener('tick', event => {
            seen.push([event.lastEventId, JSON.parse(event.data).number]);
            if (seen.length == 7) { source.close(); resolve(seen) }
        }));
        """
    )
    assert seen == [[str(number), number] for number in range(1, 8)]


def test_cookies(page: Page) -> None:
    sent = "return (await fetch('/cookies')).json()"
    assert page.run(sent) == {}
    page.run("await fetch('/login', {method: 'POST'})")
    assert page.run(sent) == {"session": "s3cret", "theme": "dark; or light"}
    # Hidden from scripts is the one that says so.
    names = page.evaluate("document.cookie.split('; ').map(cookie => cookie.split('=')[0])")
    assert names == ["theme"]
    kept = {cookie["name"]: cookie for cookie in page.call("Network.getCookies")["cookies"]}
    assert kept["session"]["httpOnly"]
    assert kept["session"]["sameSite"] == "Strict"
    assert kept["session"]["session"]
    assert not kept["theme"]["session"]
    page.run("await fetch('/logout', {method: 'POST'})")
    assert page.run(sent) == {"theme": "dark; or light"}


def test_a_form_and_the_redirect_after_it(page: Page, running: Running, app: App) -> None:
    page.open(f"http://127.0.0.1:{running.port}/form")
    page.follow("document.querySelector('form').submit()")
    assert page.evaluate("location.pathname") == "/thanks"
    assert app.state.word == "two w\u00f6rds &"
    assert page.evaluate("document.title") == str(len("two w\u00f6rds &"))


def test_a_range_of_a_file(page: Page) -> None:
    found = page.run(
        """
        const answer = await fetch('/static/numbers.bin', {headers: {range: 'bytes=300-309'}});
        return [answer.status, answer.headers.get('content-range'), [...new Uint8Array(await answer.arrayBuffer())]];
        """
    )
    assert found == [206, "bytes 300-309/256000", list(range(44, 54))]


def test_seeking_in_a_recording(page: Page) -> None:
    found = page.run(
        """
        const sound = new Audio();
        const event = name => new Promise((resolve, reject) => {
            sound.addEventListener(name, resolve, {once: true});
            sound.addEventListener('error', () => reject(new Error(sound.error.message)), {once: true});
        });
        sound.preload = 'metadata';
        const loaded = event('loadedmetadata');
        sound.src = '/static/sound.wav';
        await loaded;
        const seeked = event('seeked');
        sound.currentTime = 900;
        await seeked;
        return [sound.duration, sound.currentTime];
        """
    )
    assert found == [SECONDS, 900]
    responses = page.responses("/static/sound.wav")
    assert {response["status"] for response in responses} == {206}
    starts = [int(_field(response, "content-range").removeprefix("bytes ").partition("-")[0]) for response in responses]
    assert starts[0] == 0
    # What lies between was not fetched.
    assert max(starts) > 2 * RATE * 800


def _field(response: dict[str, Any], name: str) -> str:
    value: str = {field.lower(): value for field, value in response["headers"].items()}[name]
    return value


def test_another_origin(page: Page, running: Running) -> None:
    app = App().wrap(
        CORSMiddleware(
            allow_origins=[f"http://127.0.0.1:{running.port}"],
            allow_methods=["PUT"],
            allow_headers=["x-token"],
            expose_headers=["x-seen"],
        )
    )

    @app.put("/thing")
    async def thing(request: HttpRequest) -> HttpResponse:
        return HttpResponse.text("put", headers={"x-seen": request.headers["x-token"]})

    @app.delete("/thing")
    async def remove() -> None:
        raise AssertionError("no browser comes so far")

    with serving(app, "asyncio") as other:
        send = f"""
            const send = (method, headers) => fetch('http://127.0.0.1:{other.port}/thing', {{method, headers}})
                .then(async answer => [await answer.text(), answer.headers.get('x-seen')], error => error.name);
            """
        assert page.run(send + "return send('PUT', {'x-token': 'abc'})") == ["put", "abc"]
        page.told("Network.requestWillBeSent", lambda event: event["request"]["method"] == "OPTIONS")
        # What was not allowed is not sent.
        assert page.run(send + "return send('DELETE', {})") == "TypeError"
        assert page.run(send + "return send('PUT', {'x-other': 'abc'})") == "TypeError"


SHOP = """
from armature import App

app = App()

@app.get("/price/{name}")
async def price(name: str) -> int:
    prices = {"tea": 310}
    return prices[name]  # <blink>
"""


def test_the_error_page_of_development_shows_the_line(browser: Browser, tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(SHOP)
    with contextlib.ExitStack() as stack:
        dev = stack.enter_context(command("dev", "shop:app", "--port", "0", cwd=tmp_path))
        page = stack.enter_context(browser.page())
        url = dev.wait_for(r" on (http://127\.0\.0\.1:\d+)")[1]
        page.open(f"{url}/price/%3Cblink%3E")
        assert page.responses("/price/%3Cblink%3E")[-1]["status"] == 500
        text = page.evaluate("document.body.innerText")
        assert "KeyError" in text
        line = "return prices[name]  # <blink>"
        assert line in text
        assert f"shop.py:{SHOP[: SHOP.index(line)].count(chr(10)) + 1} in price" in text
        # What the request and the source hold is text, and never markup.
        assert page.evaluate("document.querySelectorAll('blink').length") == 0
        page.open(f"{url}/price/tea")
        assert page.evaluate("document.body.innerText") == "310"

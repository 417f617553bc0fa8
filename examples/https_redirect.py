"""An app that wants to be asked over HTTPS, behind a proxy on the same machine that ends TLS.

$ armature run examples/https_redirect.py

$ curl -s -o /dev/null -w '%{http_code} %{redirect_url}' 'http://127.0.0.1:8000/?page=2'
307 https://127.0.0.1/?page=2
$ curl -s -H 'X-Forwarded-Proto: https' -H 'X-Forwarded-For: 192.0.2.7' http://127.0.0.1:8000/
{"client":"192.0.2.7","url":"https://127.0.0.1:8000/"}
"""

from __future__ import annotations

from armature import App, HttpRequest
from armature.middleware.https_redirect import HTTPSRedirectMiddleware
from armature.middleware.proxy_headers import ProxyHeadersMiddleware

# The first one is the outermost: it says what the client used, on which the second one decides. The option
# `--trusted-proxy 127.0.0.1` of `armature run` does the work of the first for every app.
app = App(middleware=[ProxyHeadersMiddleware(["127.0.0.1"]), HTTPSRedirectMiddleware()])


@app.get("/")
async def index(request: HttpRequest) -> dict[str, str | None]:
    return {"client": request.client[0] if request.client else None, "url": str(request.url)}


if __name__ == "__main__":
    app.run("127.0.0.1:8000")

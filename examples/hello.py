"""The first app: text, a typed path parameter, a query parameter, JSON.

$ armature run examples/hello.py

$ curl -s http://127.0.0.1:8000/
Hello!
$ curl -s http://127.0.0.1:8000/hello/Ada?excited=yes
{"message":"Hello, Ada!"}
"""

from __future__ import annotations

from armature import App, HttpRequest, HttpResponse

app = App()


@app.get("/")
async def index(request: HttpRequest) -> HttpResponse:
    return HttpResponse.text("Hello!\n")


@app.get("/hello/{name}")
async def hello(name: str, excited: bool = False) -> dict[str, str]:
    return {"message": f"Hello, {name}{'!' if excited else '.'}"}


if __name__ == "__main__":
    app.run("127.0.0.1:8000")

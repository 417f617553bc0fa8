"""A router served by itself: no app, no options.

$ armature run examples/router_alone.py

$ curl -s http://127.0.0.1:8000/users/7
{"id":"7","name":"Ada"}
$ curl -s -o /dev/null -w "%{http_code}" http://127.0.0.1:8000/health
200
"""

from __future__ import annotations

from armature import HttpRequest, HttpResponse, Router

router = Router()


@router.get("/users/{user_id}")
async def show(req: HttpRequest) -> HttpResponse:
    return HttpResponse.json({"id": req.param("user_id"), "name": "Ada"})


@router.get("/health")
def health(req: HttpRequest) -> HttpResponse:
    return HttpResponse.ok()


if __name__ == "__main__":
    router.run("127.0.0.1:8000")

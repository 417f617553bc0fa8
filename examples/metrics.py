"""Metrics for Prometheus, health endpoints, and the counters of the server, in one app.

$ armature run examples/metrics.py --access-log --log-format json

$ curl -s http://127.0.0.1:8000/greet/Ada
hello, Ada
$ curl -s http://127.0.0.1:8000/health/ready
{"status":"ok","details":{"greetings":{"status":"up"}}}
$ curl -s http://127.0.0.1:8000/metrics | grep "^armature_http_requests_total.*greet"
armature_http_requests_total{method="GET",route="/greet/{name}",status="2xx"} 1
$ curl -s -H "accept: application/openmetrics-text" http://127.0.0.1:8000/metrics | tail -n 1
# EOF
$ curl -s http://127.0.0.1:8000/counters | grep -o '"router.tree_hits":[0-9]*'
"router.tree_hits":1
"""

from __future__ import annotations

import armature
from armature import App, HealthRouter
from armature.server.metrics import metrics

app = App()
health = HealthRouter(timeout=1.0)
app.include_router(health)
# Of a public server, guard this route, or leave it out and use: armature run ... --metrics-port 9464
app.add_route("/metrics", metrics, include_in_schema=False)


@health.indicator("greetings")
async def there_are_greetings() -> bool:
    return True


@app.get("/greet/{name}")
async def greet(name: str) -> str:
    return f"hello, {name}\n"


@app.get("/counters")
async def counters() -> dict[str, int]:
    return armature.stats()

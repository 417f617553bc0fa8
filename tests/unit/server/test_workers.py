"""Parts of workers that need no processes: messages, names of apps, pauses, and what is refused."""

from __future__ import annotations

import asyncio
import pickle
import ssl
import sys
import threading
import types
from typing import Any

import pytest

from armature import App
from armature.exceptions import ConfigurationError
from armature.server import Server, ServerConfig, run, supervisor, workers

app = App()


def test_messages_come_in_pieces() -> None:
    sent = [{"type": "ready"}, {"type": "renew", "why": "a\nb"}]
    data = b"".join(map(workers.encode, sent))
    decoder = workers.Decoder()
    found = [message for at in range(len(data)) for message in decoder.feed(data[at : at + 1])]
    assert found == sent
    assert list(workers.Decoder().feed(data)) == sent


def test_a_task_travels() -> None:
    task = workers.Task("shop:app", False, None, ServerConfig(port=1), 3)
    assert pickle.loads(pickle.dumps(task)) == task


def test_pauses_grow_and_stop_growing() -> None:
    pauses = [supervisor.pause_after(failures) for failures in range(100)]
    assert pauses[0] == 0
    assert pauses == sorted(pauses)
    assert pauses[-1] <= 30


@pytest.mark.parametrize(
    ("code", "text"), [(0, "exit code 0"), (7, "exit code 7"), (-9, "killed by SIGKILL"), (-250, "exit code -250")]
)
def test_how_a_process_ended(code: int, text: str) -> None:
    assert supervisor.exit_text(code) == text


def how(app: Any, **options: Any) -> tuple[str, Any]:
    return supervisor._how(app, ServerConfig(workers=2, **options))


def test_what_an_app_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    assert how("shop:app") == ("spawn", "shop:app")
    assert how(app) == ("spawn", f"{__name__}:app")
    assert how(app, start_method="forkserver") == ("forkserver", f"{__name__}:app")
    # A forked process has the app already.
    assert how(app, start_method="fork") == ("fork", app)
    main = types.ModuleType("__main__")
    main.__file__ = "main.py"
    main.served = app  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "__main__", main)
    method, target = how(app)
    assert (method, target) == ("spawn", workers.MainAttribute("served"))
    assert target.load() is app
    del main.served  # type: ignore[attr-defined]
    with pytest.raises(ConfigurationError, match=r"main.py defines no 'served' when a worker imports it"):
        target.load()


def test_an_app_without_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    nameless = App()
    with pytest.raises(ConfigurationError, match='give run.. an import string such as "shop:app"'):
        how(nameless, start_method="spawn")
    if sys.platform == "linux":
        monkeypatch.setattr("os.listdir", lambda path: ["1"])
        assert how(nameless) == ("fork", nameless)
        # With other threads a fork is not safe: they are gone in the new process, and their locks are not.
        monkeypatch.setattr("os.listdir", lambda path: ["1", "2"])
        with pytest.raises(ConfigurationError, match="without threads"):
            how(nameless)


def test_what_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="an ssl_context cannot be handed to another process"):
        run("shop:app", workers=2, ssl_context=ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
    with pytest.raises(ConfigurationError, match="reload is for one process"):
        run("shop:app", workers=2, reload=True)
    with pytest.raises(ConfigurationError, match="cannot be loaded"):
        run("shop:app", workers=2, ssl_certfile="/no/such/file.pem")


@pytest.mark.parametrize("options", [{"workers": 2}, {"workers": "auto"}, {"max_requests": 9}])
def test_a_server_is_one_process(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="a Server serves in the process it is in"):
        Server(app, **options)


def test_not_in_another_thread() -> None:
    found: list[BaseException] = []

    def start() -> None:
        try:
            run("shop:app", workers=2)
        except ConfigurationError as error:
            found.append(error)

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    assert "main thread" in str(found[0])


def test_not_while_a_worker_imports_the_app(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "worker", object())
    with pytest.raises(ConfigurationError, match='put that below `if __name__ == "__main__":`'):
        run(app)


def test_stats_without_workers() -> None:
    found = asyncio.run(workers.gather_stats())
    assert found.retired == {}
    (only,) = found.workers
    assert only["worker.number"] == 0
    assert only["connection.requests"] >= 0
    if sys.platform == "linux":
        assert only["worker.memory"] > 1_000_000

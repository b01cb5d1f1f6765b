"""What the service refuses before anything reads, parses or stores a request; and calls that answer many at once."""

from __future__ import annotations

import asyncio
import json
import tempfile
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from starlette import formparsers

from pddm_lab.service.batches import Batches
from pddm_lab.service.observed import Observed
from pddm_lab.service.refusals import Buckets, Doorkeeper, Limits

KEYS = ("a-key-of-some-length", "another-key-of-length")
Handler = Callable[[dict, Any, Any], Awaitable[None]]


def scope(headers: dict[str, str] | None = None, path: str = "/v1/search") -> dict[str, Any]:
    return {
        "type": "http", "path": path, "method": "POST", "client": ("10.0.0.1", 5), "state": {},
        "headers": [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()],
    }  # fmt: skip


def answer_of(app: Handler, of: dict[str, Any], *parts: bytes) -> tuple[int, Any, dict[str, str], int]:
    """Status, content and headers of an answer, and how many parts of the body were received."""
    received, sent = 0, []

    async def receive() -> dict[str, Any]:
        nonlocal received
        if received == len(parts):
            await asyncio.sleep(60)
        received += 1
        return {"type": "http.request", "body": parts[received - 1], "more_body": received < len(parts)}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    asyncio.run(app(of, receive, send))  # type: ignore[arg-type]
    headers = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], json.loads(sent[1]["body"]), headers, received


async def echo(of: dict, receive: Any, send: Any) -> None:
    """An application that answers with the size of the body."""
    message = await receive()
    assert not message["more_body"]
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": json.dumps(len(message["body"])).encode()})


async def unreachable(of: dict, receive: Any, send: Any) -> None:
    raise AssertionError("it was refused, so nothing behind is reached")


def limits(app: Handler = echo, **choices: Any) -> Limits:
    return Limits(app, **{"rate": 0, "at_once": 2, "most_bytes": 100, "timeout": 5.0, **choices})  # type: ignore[arg-type]


@pytest.fixture
def no_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever would write an upload to disk fails."""

    def forbidden(*_: Any, **__: Any) -> None:
        raise AssertionError("nothing may be written")

    for module, name in ((tempfile, "SpooledTemporaryFile"), (formparsers, "SpooledTemporaryFile")):
        monkeypatch.setattr(module, name, forbidden)


def test_a_body_that_says_it_is_too_large_is_never_received(no_files: None) -> None:
    status, content, headers, received = answer_of(limits(unreachable), scope({"Content-Length": "101"}), b"x" * 101)
    assert (status, received, headers["connection"]) == (413, 0, "close")
    assert content == {"error": "The request is too large: expected at most 0.0001 MB. Send fewer or smaller pictures."}


def test_a_body_that_becomes_too_large_is_received_up_to_the_limit(no_files: None) -> None:
    status, _, _, received = answer_of(limits(unreachable), scope(), *[b"x" * 40] * 50)
    assert (status, received) == (413, 3)
    assert answer_of(limits(), scope({"Content-Length": "nonsense"}), b"x" * 60, b"y" * 40)[:2] == (200, 100)
    assert answer_of(limits(), scope({"Content-Length": "9" * 9000}), b"x")[0] == 413


def test_a_key_opens_and_nothing_else_does() -> None:
    guarded = Doorkeeper(echo, KEYS)  # type: ignore[arg-type]
    for key in KEYS:
        assert answer_of(guarded, scope({"X-API-Key": key}), b"1")[0] == 200
    for given, what in (({}, "none"), ({"X-API-Key": KEYS[0][:-1]}, "a wrong one"), ({"X-API-Key": "é"}, "a wrong")):
        status, content, headers, received = answer_of(Doorkeeper(unreachable, KEYS), scope(given), b"1")  # type: ignore[arg-type]
        assert (status, received) == (401, 0) and what in content["error"]
        assert headers["www-authenticate"] == "ApiKey" and KEYS[0] not in content["error"]
    assert answer_of(guarded, scope(path="/ready"), b"1")[0] == 200


@pytest.mark.parametrize(("host", "origin", "status"), [
    ("localhost:8000", None, 200), ("127.0.0.1", "http://localhost", 200), ("[::1]:8000", None, 200),
    ("evil.example", None, 403), ("", None, 403), ("localhost", "null", 403), ("[", None, 403),
    ("localhost", "https://evil.example", 403), ("localhost.evil.example", None, 403),
])  # fmt: skip
def test_without_keys_only_this_machine_and_its_pages_get_in(host: str, origin: str | None, status: int) -> None:
    headers = {"Host": host} | ({} if origin is None else {"Origin": origin})
    assert answer_of(Doorkeeper(echo, ()), scope(headers), b"1")[0] == status  # type: ignore[arg-type]


def test_a_client_that_asks_too_often_waits_and_others_do_not() -> None:
    now = [0.0]
    buckets = Buckets(0.5, lambda: now[0])
    assert [buckets.wait("a") for _ in range(3)] == [0, 2, 2]
    assert buckets.wait("b") == 0
    now[0] = 1.0
    assert buckets.wait("a") == 1
    now[0] = 2.0
    assert [buckets.wait("a") for _ in range(2)] == [0, 2]
    fast = Buckets(10, lambda: now[0])
    assert [fast.wait("a") for _ in range(21)] == [0] * 20 + [1]
    limited = limits(rate=1)
    limited._buckets = Buckets(1, lambda: now[0])
    answers = [answer_of(limited, scope(), b"1") for _ in range(3)]
    assert [one[0] for one in answers] == [200, 200, 429] and answers[2][2]["retry-after"] == "1"
    assert answer_of(limited, scope({"X-API-Key": KEYS[0]}), b"1")[0] == 429, "no key is checked here"
    known = Doorkeeper(limited, KEYS)  # type: ignore[arg-type]
    assert answer_of(known, scope({"X-API-Key": KEYS[0]}), b"1")[0] == 200, "who has a key is another client"
    assert answer_of(limited, scope(path="/health"), b"1")[0] == 200


def test_a_slow_request_and_a_slow_answer_end() -> None:
    async def never(of: dict, receive: Any, send: Any) -> None:
        await asyncio.sleep(60)

    assert answer_of(limits(unreachable, timeout=0.05), scope())[0] == 408
    status, content, *_ = answer_of(limits(never, timeout=0.05), scope(), b"1")
    assert status == 504 and "0.05 s" in content["error"]


def test_a_failure_is_a_sentence_and_its_reason_is_in_the_log(capsys: pytest.CaptureFixture[str]) -> None:
    async def failing(of: dict, receive: Any, send: Any) -> None:
        raise RuntimeError("the reason")

    status, content, headers, _ = answer_of(Observed(failing), scope(), b"1")  # type: ignore[arg-type]
    line = json.loads(capsys.readouterr().out)
    assert status == line["status"] == 500 and line["request"] == headers["x-request-id"]
    assert "the reason" in line["failure"] and "the reason" not in content["error"]
    assert content["error"].endswith(f"{line['request']}.")


def test_more_at_once_than_agreed_are_refused_and_their_places_freed() -> None:
    async def together() -> list[int]:
        gate, statuses = asyncio.Event(), []

        async def waiting(of: dict, receive: Any, send: Any) -> None:
            await gate.wait()
            await echo(of, receive, send)

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b"1", "more_body": False}

        async def send(message: dict[str, Any]) -> None:
            if "status" in message:
                statuses.append(message["status"])

        app = limits(waiting)
        running = [asyncio.create_task(app(scope(), receive, send)) for _ in range(2)]  # type: ignore[arg-type]
        await asyncio.sleep(0.01)
        await app(scope(), receive, send)  # type: ignore[arg-type]
        gate.set()
        await asyncio.gather(*running)
        await app(scope(), receive, send)  # type: ignore[arg-type]
        return statuses

    assert asyncio.run(together()) == [503, 200, 200, 200]


def test_waiting_work_is_done_together_and_each_gets_its_own() -> None:
    calls: list[list[int]] = []
    first_runs, may_end = threading.Event(), threading.Event()

    def work(numbers: list[int]) -> list[int | Exception]:
        calls.append(numbers)
        first_runs.set()
        may_end.wait(60)
        if 99 in numbers:
            raise OSError("all of it fails")
        return [ValueError("odd") if number % 2 else 10 * number for number in numbers]

    async def together() -> list[Any]:
        with ThreadPoolExecutor(1) as pool:
            batches = Batches(work, pool, threads=1, most=3)
            tasks = [asyncio.create_task(batches(0))]
            await asyncio.to_thread(first_runs.wait, 60)
            tasks += [asyncio.create_task(batches(number)) for number in (1, 2, 4, 6)]
            await asyncio.sleep(0)
            tasks[4].cancel()
            await asyncio.sleep(0)
            may_end.set()
            made = await asyncio.gather(*tasks, return_exceptions=True)
            return [*made, *await asyncio.gather(batches(99), batches(8), return_exceptions=True)]

    made = asyncio.run(together())
    assert calls[:2] == [[0], [1, 2, 4]] and [6] not in calls
    assert [made[at] for at in (0, 2, 3)] == [0, 20, 40]
    assert isinstance(made[1], ValueError) and isinstance(made[4], asyncio.CancelledError)
    assert isinstance(made[5], OSError)

"""The benchmark of the service sends what it says, counts what fails, and times from when a request was due."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from service_run import own_port

from pddm_lab.bench.service.load import send
from pddm_lab.bench.service.measure import _report
from pddm_lab.bench.service.updates import Answer, Change, _searches, report
from pddm_lab.bench.synthetic import draw_photos

BUSY = b'{"error": "busy"}'


class Answers:
    """A server that refuses every tenth request, and remembers what it got."""

    def __init__(self) -> None:
        self.port, self.requests = 0, list[bytes]()
        self._loop, ready = asyncio.new_event_loop(), threading.Event()
        threading.Thread(target=self._run, args=(ready,), daemon=True).start()
        assert ready.wait(60)

    def _run(self, ready: threading.Event) -> None:
        async def start() -> None:
            server = await asyncio.start_server(self._answer, "127.0.0.1", 0)
            self.port = server.sockets[0].getsockname()[1]
            ready.set()

        self._loop.run_until_complete(start())
        self._loop.run_forever()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):
            length = next(
                (line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length: ")), b"0:0"
            )
            self.requests.append(head + await reader.readexactly(int(length.partition(b":")[2])))
            body, status = (BUSY, b"503") if len(self.requests) % 10 == 0 else (b'{"run": "first"}', b"200")
            writer.write(b"HTTP/1.1 " + status + b" X\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)


@pytest.fixture
def server() -> Iterator[Answers]:
    answers = Answers()
    yield answers
    answers.stop()


def test_every_request_is_sent_and_each_failure_counted(server: Answers, tmp_path: Path) -> None:
    plan = {"port": server.port, "ids": ["class 1/a&b.jpg", "ü"], "requests": 40, "rate": 2000.0}
    loaded = send(plan)
    assert len(server.requests) == 40 and len(loaded["ms"]) == 36
    assert loaded["errors"] == {'503 {"error": "busy"}': 4}
    heads = Counter(request.partition(b" HTTP/1.1\r\n")[0] for request in server.requests)
    assert heads == {b"GET /v1/search?item=class%201/a%26b.jpg": 20, b"GET /v1/search?item=%C3%BC": 20}
    assert loaded["seconds"] >= 39 / 2000 and all(ms > 0 for ms in loaded["ms"])
    (photo,) = draw_photos(tmp_path, 1, 40, 30)
    send({"port": server.port, "photos": [str(photo)], "requests": 1, "rate": 10.0})
    assert photo.read_bytes() in server.requests[-1] and b'name="picture"; filename=' in server.requests[-1]


def test_nobody_answers() -> None:
    with own_port() as port:
        loaded = send({"port": port, "ids": ["a"], "requests": 3, "rate": 1000.0})
    assert loaded["ms"] == [] and sum(loaded["errors"].values()) == 3


def test_the_report_is_of_these_numbers() -> None:
    log: list[str] = []
    loaded = {"ms": list(range(1, 101)), "errors": {"503": 2}, "seconds": 4.0}
    measures = _report("item", loaded, 0.005, 30, 20, "9 items", log.append)
    values = {one.what: one for one in measures}
    assert values["searches by item a second"].value == 25 and values["searches by item a second"].verdict == "met"
    assert values["search by item, median"].value == 50.5
    assert values["search by item, 99th percentile"].value == pytest.approx(np.percentile(range(1, 101), 99))
    assert values["searches by item that failed"].verdict == "missed" and log == ["2 errors: 503"]
    assert values["processor time of the service a search by item"].value == 5


def test_searches_are_counted_by_the_run_that_answered(server: Answers) -> None:
    with _searches(server.port, [b"a", b"b"], 100.0) as answers:
        while len(answers) < 30:
            time.sleep(0.01)
    assert len(answers) == len(server.requests) >= 30
    failed = [one for one in answers if one.error]
    assert len(failed) == len(answers) // 10 and failed[0].error.startswith("503 ")
    assert {one.run for one in answers if not one.error} == {"first"} and all(one.ms > 0 for one in answers)


def test_the_report_says_when_each_change_was_followed() -> None:
    answers = [Answer(float(due), 10.0 + (due > 5), "first", "") for due in range(10)]
    answers += [Answer(10.0, 500.0, "second"), Answer(10.5, 12.0, "first"), Answer(11.0, 12.0, "second")]
    answers += [Answer(12.0, 12.0, "", "503"), Answer(20.0, 12.0, "second"), Answer(23.0, 12.0, "first")]
    changes = [
        Change("update", "first", "second", 5.5, 9.5, 4.5, 3.0),
        Change("way back", "second", "first", 15.0, 19.5, 5.0, 2.0),
    ]  # fmt: skip
    of = {one.what: one for one in report(answers, changes)}
    assert of["searches that failed"].value == 1 and of["searches that failed"].verdict == "missed"
    assert of["the update"].value == 4.5 and of["the update"].over == "3.0 s of processor time"
    followed = [of[f"until {name}"].value for name in ("second answers", "first answers no more")]
    assert followed == [0.5, 1.0]
    assert [of["until first answers"].value, of["until second answers no more"].value] == [3.5, 0.5]
    assert of["search, median, before"].value == 10 and of["search, median, before"].over == "of 6"
    assert of["search, 99th percentile, during the update"].verdict == "missed"
    assert of["search, median, during the way back"].over == "of 1"

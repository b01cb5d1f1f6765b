"""The service as processes: README's commands as printed, two workers that see each other's changes, a gentle end."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from service_run import PATIENCE, copied, own_port, png, wait_until_ready

from pddm_lab import cli
from pddm_lab.runs.process import is_served
from pddm_lab.runs.run import Run
from pddm_lab.update.serving import ServingContent, write_serving

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


class Served:
    """A service of two workers in processes of its own."""

    def __init__(self, run: Run, port: int, log: Path) -> None:
        self.run, self.port, self.log = run, port, log
        command = [sys.executable, "-m", "pddm_lab.cli", "serve", str(run.path), "--workers", "2"]
        choices = ["--port", str(port), "--timeout", str(PATIENCE)]
        with open(log, "wb") as output:
            self.process = subprocess.Popen([*command, *choices], stdout=output, stderr=output)

    def client(self) -> httpx.Client:
        """A client with a connection of its own, which any of the workers takes."""
        return httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=PATIENCE)

    def workers(self) -> dict[str, int]:
        """Request -> worker that answered it, from the whole lines of the log."""
        whole = self.log.read_text().rpartition("\n")[0].splitlines()
        lines = [json.loads(line) for line in whole if line.startswith("{")]
        return {line["request"]: line["worker"] for line in lines}

    def worker_of(self, request: str) -> int:
        """The worker that answered a request, once its line is in the log."""
        end = time.monotonic() + PATIENCE
        while request not in (workers := self.workers()):
            assert time.monotonic() < end
            time.sleep(0.05)
        return workers[request]


@pytest.fixture(scope="module")
def served(local_run: Run, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A service that is ready."""
    folder = tmp_path_factory.mktemp("process")
    with own_port() as port:
        service = Served(copied(local_run, folder), port, folder / "log")
        try:
            with service.client() as client:
                wait_until_ready(client)
            yield service
        finally:
            if service.process.poll() is None:
                service.process.terminate()
                service.process.wait(PATIENCE)


@pytest.mark.skipif(not shutil.which("curl"), reason="needs curl")
def test_the_commands_of_the_readme_work_as_printed(served: Served, tmp_path: Path) -> None:
    (block,) = [text for text in re.findall(r"```bash\n(.*?)```", README, flags=re.DOTALL) if "curl" in text]
    (tmp_path / "photo.jpg").write_bytes(png(1))
    printed = []
    for line in block.splitlines():
        assert line.startswith("curl ")
        here = line.replace("localhost:8000", f"127.0.0.1:{served.port}")
        done = subprocess.run(["bash", "-c", here], cwd=tmp_path, check=True, capture_output=True, text=True)
        printed.append(json.loads(done.stdout))
    search, added, undone = printed
    assert len(search["hits"]) == 5 and search["decision"]["answer"]
    assert added["ids"] == ["oat-milk/photo.jpg"] and undone["what"] == "undone: added 1 item"


def test_each_worker_sees_what_another_one_changed(served: Served) -> None:
    with served.client() as client:
        files = [("pictures", ("a.png", png(7)))]
        assert client.post("/v1/items", data={"class_name": "new"}, files=files).status_code == 201
    answered, end = set[int](), time.monotonic() + PATIENCE
    while len(answered) < 2:
        assert time.monotonic() < end, "one worker takes every connection"
        with served.client() as client:
            answer = client.post("/v1/search", params={"k": 1}, files={"picture": ("b.png", png(7))})
        assert answer.json()["hits"][0]["id"] == "new/a.png" and answer.json()["items"] == 141
        answered.add(served.worker_of(answer.headers["x-request-id"]))
    with served.client() as client:
        assert "pddm_lab_ready_workers 2.0" in client.get("/metrics").text


def test_a_connection_stays_open_longer_than_clients_keep_it(served: Served) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=60)
    connection.request("GET", "/health")
    connection.getresponse().read()
    opened = connection.sock
    time.sleep(5.5)  # httpx keeps an idle connection for 5 s, and so does a server by default
    connection.request("GET", "/health")
    assert connection.getresponse().status == 200 and connection.sock is opened


def test_all_workers_follow_the_update_that_serves_and_back(served: Served) -> None:
    path = served.run.path.with_name("local-update-1")
    update = Run.open(shutil.copytree(served.run.path, path))
    counts = dict.fromkeys(("new_items", "new_classes", "replay", "replay_classes", "steps"), 0)
    of = {"first": "local", "source": "local", "number": 1, "near": 0.0, "comparable": [], "recall": {}, "better": True}
    update.update(name=path.name, updated=counts | of)
    for names, serving in (([path.name], path.name), ([], "local")):
        write_serving(served.run, ServingContent(updates=names))
        end = time.monotonic() + PATIENCE
        with served.client() as client:
            while f'pddm_lab_serving_workers{{run="{serving}"}} 2.0' not in client.get("/metrics").text:
                assert time.monotonic() < end
                time.sleep(0.1)
            assert client.get("/version").json()["run"] == serving
        assert is_served(served.run.path) and is_served(path) == (serving == path.name), "what serves isn't removed"


def test_it_ends_when_the_requests_that_run_are_answered(served: Served) -> None:
    with served.client() as client:
        files = [("pictures", ("a.png", png(9)))]
        assert client.post("/v1/items", data={"class_name": "last"}, files=files).status_code == 201
    boundary = "edge"
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="picture"; filename="a.png"\r\n\r\n'.encode()
    body = head + png(9) + f"\r\n--{boundary}--\r\n".encode()
    with socket.create_connection(("127.0.0.1", served.port), timeout=PATIENCE) as connection:
        lines = ["POST /v1/search?k=1 HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}"]
        lines += [f"Content-Type: multipart/form-data; boundary={boundary}", "Expect: 100-continue"]
        connection.sendall("\r\n".join([*lines, "", ""]).encode())
        goes_on = b"HTTP/1.1 100 Continue\r\n\r\n"  # a worker has begun with it, and waits for its body
        assert b"".join(connection.recv(1) for _ in goes_on) == goes_on
        connection.sendall(body[:100])
        served.process.send_signal(signal.SIGTERM)
        time.sleep(1.5)  # the workers end, but for this request
        assert served.process.poll() is None
        connection.sendall(body[100:])
        answer = b"".join(iter(lambda: connection.recv(65_536), b""))
    assert answer.startswith(b"HTTP/1.1 200") and b"last/a.png" in answer
    assert served.process.wait(PATIENCE) == 0
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", served.port), timeout=5)
    assert "Traceback" not in served.log.read_text()


def test_what_can_not_be_served_is_one_sentence(
    local_run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("PDDM_LAB_API_KEY", raising=False)

    def failing(*argv: str) -> str:
        with pytest.raises(SystemExit) as end:
            cli.main(["serve", *argv])
        assert end.value.code == 2
        captured = capsys.readouterr()
        assert "Serving" not in captured.err and not captured.out
        return captured.err

    path = str(local_run.path)
    assert "--host 0.0.0.0 lets others reach the service" in failing(path, "--host", "0.0.0.0")
    assert "has no other gallery" in failing(path, "--protocol", "other")
    assert "nowhere" in failing("nowhere", "--runs-root", os.path.dirname(path))
    assert "--workers expects 1 or more" in failing(path, "--workers", "0")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert "can't be used: Address already in use" in failing(path, "--port", str(taken.getsockname()[1]))

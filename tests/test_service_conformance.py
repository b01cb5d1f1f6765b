"""The service holds what its OpenAPI document says, for any request; and a catalogue is what its changes made of it.

Some requests here; `make fuzz` sends many (PDDM_LAB_FUZZ_INPUTS).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    multiple,
    rule,
    run_state_machine_as_test,
)
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import negative_data_rejection
from service_run import PATIENCE, copied, png, serving

from pddm_lab.runs.run import Run

INPUTS = int(os.environ.get("PDDM_LAB_FUZZ_INPUTS", "0"))
KEY = "a key for the tests of the service"
LIMITS = settings(
    max_examples=INPUTS // 100 or 2, deadline=None, derandomize=not INPUTS, database=None,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
for kind in ("image/jpeg", "image/png", "image/webp"):
    schemathesis.openapi.media_type(kind, st.integers(0, 50).map(png))
CONFIG = schemathesis.Config.from_dict({
    "checks": {"positive_data_acceptance": {"expected-statuses": ["2xx", "404", "409"]}},
    "request-timeout": PATIENCE,
})  # fmt: skip
"""Valid requests may name what isn't there."""


@pytest.fixture(scope="module")
def client(local_run: Run, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A client of a service with a key."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PDDM_LAB_API_KEY", KEY)
        with serving(copied(local_run, tmp_path_factory.mktemp("conforming"))) as client:
            client.headers["X-API-Key"] = KEY
            yield client


@pytest.fixture(scope="module")
def document(client: httpx.Client) -> schemathesis.BaseSchema:
    """What the service says of itself."""
    return schemathesis.openapi.from_dict(client.get("/openapi.json").json(), config=CONFIG)


@pytest.fixture(scope="module")
def without_key(client: httpx.Client) -> schemathesis.BaseSchema:
    """The same without the key: else most invalid requests would be those that lack it."""
    made = client.get("/openapi.json").json()
    for operations in made["paths"].values():
        for operation in operations.values():
            operation.pop("security", None)
    return schemathesis.openapi.from_dict(made, config=CONFIG)


def test_any_valid_request_is_answered_as_documented(client: httpx.Client, document: schemathesis.BaseSchema) -> None:
    _ask_everything(client, document, schemathesis.GenerationMode.POSITIVE)


def test_any_invalid_request_is_refused_as_documented(
    client: httpx.Client, without_key: schemathesis.BaseSchema
) -> None:
    _ask_everything(client, without_key, schemathesis.GenerationMode.NEGATIVE)


def _ask_everything(client: httpx.Client, document: schemathesis.BaseSchema, mode: schemathesis.GenerationMode) -> None:
    operations = [result.ok() for result in document.get_all_operations() if isinstance(result, Ok)]
    assert len(operations) == 17
    for operation in operations:

        @LIMITS
        @given(case=operation.as_strategy(generation_mode=mode))
        def any_request(case: schemathesis.Case) -> None:
            if isinstance(case.body, dict) and isinstance(case.body.get("pictures"), bytes):
                case.body["pictures"] = [case.body["pictures"]]  # a list of files, of which it made one
            # A form has texts alone, so that a number in the place of a text is none when it arrives.
            is_form = case.media_type == "multipart/form-data"
            excluded: list[Any] = [negative_data_rejection] if is_form else []
            case.call_and_validate(str(client.base_url), headers={"X-API-Key": KEY}, excluded_checks=excluded)

        with suppress(Unsatisfiable):  # nothing that can be sent to it is invalid
            any_request()


class Changing(RuleBasedStateMachine):
    """Adds, searches, replaces, removes and takes back, and compares with a list of what must be there."""

    client: httpx.Client
    document: schemathesis.BaseSchema
    items = Bundle("items")

    @initialize()
    def begin(self) -> None:
        """What is there is no part of it."""
        self.pictures: dict[str, int] = {}
        self.past: list[dict[str, int]] = []
        self.count = self.call("GET", "/v1/items", params={"size": 1})["total"]

    def call(self, method: str, path: str, **request: object) -> dict:
        """The answer to a request, as it is documented."""
        sent = self.client.build_request(method, path, **request)  # type: ignore[arg-type]
        sent.read()
        answer = self.client.send(sent)
        self.document[path][method].validate_response(answer)
        assert answer.is_success, answer.text
        return answer.json()

    def changed(self, pictures: dict[str, int], answer: dict) -> None:
        """Note what a change must have led to."""
        self.past.append(self.pictures)
        self.pictures = pictures
        assert answer["items"] == self.count + len(pictures)

    @rule(target=items, seeds=st.lists(st.integers(1000, 9999), min_size=1, max_size=3, unique=True))
    def add(self, seeds: list[int]) -> object:
        """A picture that isn't there yet, or several."""
        new = [
            seed for seed in seeds if seed not in self.pictures.values() and f"noise/{seed}.png" not in self.pictures
        ]
        if not new:
            return multiple()
        files = [("pictures", (f"{seed}.png", png(seed))) for seed in new]
        answer = self.call("POST", "/v1/items", data={"class_name": "noise"}, files=files)
        self.changed(self.pictures | dict(zip(answer["ids"], new, strict=True)), answer)
        return multiple(*answer["ids"])

    @rule(item=items, seed=st.integers(10_000, 99_999))
    def replace(self, item: str, seed: int) -> None:
        """Another picture of an item."""
        if item in self.pictures and seed not in self.pictures.values():
            answer = self.call("PUT", "/v1/item", params={"id": item}, files={"picture": ("a.png", png(seed))})
            self.changed(self.pictures | {item: seed}, answer)

    @rule(item=consumes(items))
    def remove(self, item: str) -> None:
        """An item."""
        if item in self.pictures:
            answer = self.call("DELETE", "/v1/items", params={"id": item})
            self.changed({one: seed for one, seed in self.pictures.items() if one != item}, answer)

    @rule()
    def undo(self) -> None:
        """The last change."""
        if self.past:
            self.pictures = self.past.pop()
            assert self.call("POST", "/v1/undo")["items"] == self.count + len(self.pictures)

    @rule()
    def search(self) -> None:
        """Every item finds itself, and nothing that was removed comes back."""
        for item, seed in self.pictures.items():
            files = {"picture": ("a.png", png(seed))}
            hits = self.call("POST", "/v1/search", params={"k": 1000}, files=files)["hits"]
            assert hits[0]["id"] == item and hits[0]["distance"] < 0.02
            assert {hit["id"] for hit in hits if hit["class_name"] == "noise"} == set(self.pictures)

    def teardown(self) -> None:
        """Remove what was added."""
        if getattr(self, "pictures", None):
            self.call("DELETE", "/v1/items", params={"id": list(self.pictures)})


def test_a_catalogue_is_what_its_changes_made_of_it(client: httpx.Client, document: schemathesis.BaseSchema) -> None:
    machine = type("Served", (Changing,), {"client": client, "document": document})
    run_state_machine_as_test(
        machine, settings=settings(LIMITS, max_examples=INPUTS // 100 or 5, stateful_step_count=12)
    )

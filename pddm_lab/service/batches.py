"""Work on what came in meanwhile: many waiting requests become one call.

Nothing waits for others to come. While a thread works, requests queue, and the next call takes all of them: one at a
time where the service is idle, the more the busier it is.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from functools import partial
from typing import Any, Generic, TypeVar

One = TypeVar("One")
Made = TypeVar("Made")


class Batches(Generic[One, Made]):
    """A function of a list that is called for one.

    Args:
        work: list -> list of the same length; an exception in it is raised for that one.
        pool: where it runs.
        threads: calls at the same time.
        most: of a call.
    """

    def __init__(
        self, work: Callable[[list[One]], Sequence[Made | Exception]], pool: Executor, threads: int, most: int
    ) -> None:  # fmt: skip
        self._work, self._pool, self._most = work, pool, most
        self._free = threads
        self._waiting: deque[tuple[One, asyncio.Future[Made]]] = deque()

    async def __call__(self, one: One) -> Made:
        """What the function makes of one; called on the event loop."""
        future: asyncio.Future[Made] = asyncio.get_running_loop().create_future()
        self._waiting.append((one, future))
        self._start()
        return await future

    def _start(self) -> None:
        while self._free and self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(self._most, len(self._waiting)))]
            batch = [(one, future) for one, future in batch if not future.done()]  # else nobody waits any more
            if batch:
                self._free -= 1
                call = asyncio.get_running_loop().run_in_executor(self._pool, self._work, [one for one, _ in batch])
                call.add_done_callback(partial(self._finish, batch))

    def _finish(self, batch: list[Any], done: asyncio.Future[Sequence[Made | Exception]]) -> None:
        self._free += 1
        failure = asyncio.CancelledError() if done.cancelled() else done.exception()
        made: Sequence[Any] = [failure] * len(batch) if failure is not None else done.result()
        for (_, future), one in zip(batch, made, strict=True):
            if future.done():
                continue
            if isinstance(one, BaseException):
                future.set_exception(one)
            else:
                future.set_result(one)
        self._start()

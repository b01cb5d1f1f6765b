"""How work reports what is done, and how it is shown: a progress bar on standard error, or none."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from tqdm import tqdm

Progress = Callable[[int, int, str], None]
"""Called with (done, total, what); may raise `Stopped` to end what reports to it."""


class Stopped(Exception):  # noqa: N818 - no error: someone asked for it
    """Someone asked to stop."""


Bar = Callable[[str], AbstractContextManager[Progress]]
"""Opens a progress bar by name; what it yields takes (done, total, what)."""


def progress_bars(shown: bool) -> Bar:
    """Progress bars on standard error, or none."""

    @contextmanager
    def bar(what: str) -> Iterator[Progress]:
        with tqdm(desc=what, disable=not shown, mininterval=0.5) as line:

            def report(done: int, total: int, _: str) -> None:
                line.total = total
                line.update(done - line.n)

            yield report

    return bar

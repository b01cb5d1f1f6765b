"""Progress of work, and the bars that show it on standard error."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from tqdm import tqdm

Progress = Callable[[int, int, str], None]
"""Called with (done, total, what); may raise `Stopped` to end the work."""


class Stopped(Exception):  # noqa: N818 - not an error: the user asked for it
    """The user asked to stop."""


Bar = Callable[[str], AbstractContextManager[Progress]]
"""Opens a progress bar by name and yields its `Progress`."""


def progress_bars(shown: bool) -> Bar:
    """Progress bars with fixed names, or none."""

    @contextmanager
    def bar(what: str) -> Iterator[Progress]:
        with tqdm(desc=what, disable=not shown, mininterval=0.5) as line:

            def report(done: int, total: int, _: str) -> None:
                line.total = total
                line.update(done - line.n)

            yield report

    return bar

"""Mutation testing of the core's mathematics: which small changes of a module do its own tests not notice?

    python tests/mutants/check.py                                            # every module below, and known.toml
    python tests/mutants/check.py pddm_lab/training/losses.py --every 5      # a sample of one module
    python tests/mutants/check.py FILE=TESTS                                 # another file, with its tests

Each mutant runs in a fork of one process that has imported the libraries already. Only the module's own test file runs,
the quickest tests first, up to the first failure, and without jaxtyping's hook: shapes in annotations kill nothing. A
mutant that takes too long counts as killed. The working tree stays as it is: the mutant's source is served to the
import system. survivors.toml gives the reason why a mutant can't be noticed.

Exit status 1 if a mutant survives without a reason, if a reason is of no use any more, or if a known mutant survives.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import importlib.machinery
import itertools
import json
import os
import resource
import signal
import sys
import sysconfig
import tempfile
import time
import tomllib
from collections import Counter
from collections.abc import Iterable
from contextlib import redirect_stdout, suppress
from pathlib import Path
from typing import IO

import psutil
import pytest
from mutations import Mutant, mutants_of
from tqdm import tqdm

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: a process with threads can't be forked
os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(ROOT))  # a package installed from elsewhere isn't meant
TESTS = {
    "pddm_lab/model/pddm.py": "tests/test_pddm.py",
    "pddm_lab/model/similarity.py": "tests/test_similarity.py",
    "pddm_lab/model/all_pairs.py": "tests/test_all_pairs.py",
    "pddm_lab/training/miner.py": "tests/test_miner.py",
    "pddm_lab/training/losses.py": "tests/test_losses.py",
    "pddm_lab/metrics/retrieval.py": "tests/test_retrieval.py",
}
"""The modules that are mutated, and the tests that must notice."""
LEAST_KILLED = 0.9
"""Share of each module's mutants that its tests must kill."""
PATIENCE = 5.0
"""A mutant may take this many times as much of a processor as the tests do without it, and `GRACE` seconds more."""
GRACE = 5.0
LONGEST = 600.0
"""Seconds after which a mutant that waits is killed."""
LEFT_OUT = (
    "test_compiled_and_plain_agree",  # compiles for seconds; what it compiles for is tested beside it
    "test_six_thousand_items_take_seconds_and_little_memory",  # measures the machine, too
)
"""Tests that aren't run."""
NO_PLUGINS = ("cacheprovider", "unraisableexception", "threadexception", "faulthandler", "xdist", "gremlins", "anyio")
"""pytest's plugins that only take time here."""
MEMORY = 6 << 30
"""Bytes that a mutant may take beside those of the process it was forked from."""


class Module:
    """A file and its tests: a pytest plugin that forks a session, ready to collect them, for each mutant."""

    def __init__(self, file: Path, tests: Path) -> None:
        self.file, self.tests = file, tests
        self.seconds: dict[str, float] = {}
        """How long each test takes on the file as it is; without it, no mutant has been run yet."""
        self._report: IO[str] | None = None
        self._parent = os.getpid()

    def run(self, codes: Iterable[str]) -> list[str | None]:
        """How the tests notice that the file's source is another: "tests" or "time"; None if they don't.

        Raises:
            SystemExit: the tests fail on the file as it is, or they don't import it.
        """
        self._codes, self._outcomes, self._problem = codes, list[str | None](), ""
        fixed = ["-q", "-s", "-x", "-o", "addopts=", "--tb=native", "--rootdir", str(ROOT)]
        with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
            pytest.main([*fixed, *(f"-pno:{one}" for one in NO_PLUGINS), str(self.tests)], plugins=[self])
        if self._problem:
            raise SystemExit(self._problem)
        return self._outcomes

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection(self, session: pytest.Session) -> bool | None:
        self._report = tempfile.TemporaryFile("w+")  # noqa: SIM115 (both processes use it)
        if self._fork(self.file.read_text()):
            return None
        self._report.seek(0)
        outcome = json.loads(self._report.read() or "null")
        session.items = []
        if not outcome:
            self._problem = f"{self.tests} must pass before {self.file} is mutated. Run it to see what fails."
            return True
        if not outcome["served"]:
            self._problem = f"{self.tests} must import {self.file}, but they don't: no mutant could be killed."
            return True
        self._report, self.seconds, self._limit = None, outcome["seconds"], int(PATIENCE * outcome["cpu"] + GRACE)
        for name in outcome["modules"]:  # once for all forks
            with suppress(ImportError, AttributeError):
                importlib.import_module(name)
        gc.collect()
        gc.freeze()
        for code in self._codes:
            if self._fork(code):
                return None
        return True

    def _fork(self, code: str) -> bool:
        """Whether this is the new process, whose session goes on; the old one waits for it."""
        child = os.fork()
        if not child:
            self._begin(code)
            return True
        end = time.monotonic() + LONGEST
        while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0):
            if time.monotonic() > end:
                os.killpg(child, signal.SIGKILL)
            time.sleep(0.01)
        if self.seconds:
            late = os.WIFSIGNALED(ended[1]) and os.WTERMSIG(ended[1]) in (signal.SIGXCPU, signal.SIGKILL)
            self._outcomes.append("time" if late else "tests" if ended[1] else None)
        return False

    def _begin(self, code: str) -> None:
        os.setsid()
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in (1, 2):
            os.dup2(nowhere, stream)
        most = psutil.Process().memory_info().vms + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        if self.seconds:  # of a processor: a busy machine makes no mutant late
            resource.setrlimit(resource.RLIMIT_CPU, (self._limit, self._limit))
        gc.disable()
        self._served = _serve(self.file, code)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            os._exit(1)

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = [item for item in items if item.name not in LEFT_OUT]
        items.sort(key=lambda item: self.seconds.get(item.nodeid, 0.0))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            os._exit(1)
        if self._report:
            self.seconds[report.nodeid] = self.seconds.get(report.nodeid, 0.0) + report.duration

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        if os.getpid() == self._parent:
            return
        if self._report and not exitstatus:
            outcome = {"seconds": self.seconds, "modules": _libraries(), "served": bool(self._served),
                       "cpu": time.process_time()}  # fmt: skip
            json.dump(outcome, self._report)
            self._report.flush()
        os._exit(int(exitstatus))


def _libraries() -> list[str]:
    """Names of the modules imported from the standard library and the installed packages."""
    folders = tuple(sysconfig.get_paths()[key] for key in ("stdlib", "purelib", "platlib"))
    return [
        name for name, module in sys.modules.items() if (getattr(module, "__file__", None) or "").startswith(folders)
    ]


def _serve(file: Path, code: str) -> list[str]:
    """Let imports read `code` instead of the file, and neither read nor write its bytecode; others keep theirs.

    Returns:
        A list that fills as the code is read.
    """
    served: list[str] = []
    loader = importlib.machinery.SourceFileLoader
    read, write = loader.get_data, loader.set_data

    def is_bytecode(path: str) -> bool:
        return Path(path).suffix != ".py" and Path(path).name.split(".")[0] == file.stem

    def get_data(self: importlib.machinery.SourceFileLoader, path: str) -> bytes:
        if path == str(file):
            served.append(path)
            return code.encode()
        if is_bytecode(path):
            raise OSError("the bytecode of a mutated file is out of date")
        return read(self, path)

    def set_data(self: importlib.machinery.SourceFileLoader, path: str, data: bytes, **options: int) -> None:
        if not is_bytecode(path):
            write(self, path, data, **options)

    loader.get_data, loader.set_data = get_data, set_data  # type: ignore
    return served


def check(file: Path, tests: Path, every: int = 1) -> list[str]:
    """Run a module's mutants and print how many its tests kill.

    Args:
        file: the module.
        tests: the tests that must notice.
        every: run only each n-th mutant.

    Returns:
        What is wrong, a line each.
    """
    name = str(file.relative_to(ROOT)) if ROOT in file.parents else str(file)
    reasons = {of for group in _read("survivors").get(name, []) for of in group["of"]}
    mutants = mutants_of(file.read_text())[::every]
    progress = tqdm(mutants, desc=name, mininterval=10, leave=False)
    outcomes = Module(file, tests).run(mutant.code for mutant in progress)
    killed = Counter(filter(None, outcomes))
    survivors = [mutant for mutant, outcome in zip(mutants, outcomes, strict=True) if not outcome]
    argued = {mutant: reason for mutant in survivors if (reason := _reason(mutant, reasons))}
    share = killed.total() / max(len(mutants), 1)
    print(
        f"{name}: {len(mutants)} mutants, {killed.total()} killed ({killed['time']} of them by time), "
        f"{share:.1%}; {len(survivors)} survive, {len(argued)} of them with a reason",
        flush=True,
    )
    wrong = [f"{name}:{one.line}: survives: {one}" for one in survivors if one not in argued]
    if every == 1:
        unused = reasons - set(argued.values())
        wrong += [f"{name}: has a reason to survive, but was killed or not made: {one}" for one in sorted(unused)]
        if share < LEAST_KILLED:
            wrong.append(f"{name}: {LEAST_KILLED:.0%} must be killed")
    return wrong


def _reason(mutant: Mutant, reasons: set[str]) -> str | None:
    """The entry of survivors.toml for a mutant: itself, or its line where that holds for every change of it."""
    return next((entry for entry in (str(mutant), mutant.was) if entry in reasons), None)


def check_known() -> list[str]:
    """Run the mutants of known.toml, which once survived, and say which survive again."""
    wrong, cases = [], _read("known")["mutants"]
    for (file, tests), group in itertools.groupby(cases, lambda case: (case["file"], case["tests"])):
        source, fit = (ROOT / file).read_text(), []
        for case in group:
            if source.count(case["was"]) == 1:
                fit.append(case)
            else:
                wrong.append(f"known.toml: {case['name']}: write it anew: {file} must hold this once: {case['was']}")
        outcomes = Module(ROOT / file, ROOT / tests).run(source.replace(case["was"], case["becomes"]) for case in fit)
        survivors = [case["name"] for case, outcome in zip(fit, outcomes, strict=True) if not outcome]
        wrong += [f"known.toml: {name}: survives" for name in survivors]
    print(f"known.toml: {len(cases)} mutants, {len(cases) - len(wrong)} killed", flush=True)
    return wrong


def _read(name: str) -> dict:
    return tomllib.loads((HERE / f"{name}.toml").read_text())


def main() -> int:
    """The command line; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "files", nargs="*", metavar="FILE[=TESTS]", help="a module; all, and known.toml, if none is given"
    )
    parser.add_argument("--every", type=int, default=1, metavar="N", help="run only each n-th mutant")
    parser.add_argument("--known", action="store_true", help="run known.toml alone")
    chosen = parser.parse_args()
    start, wrong = time.monotonic(), []
    for file in chosen.files or ([] if chosen.known else TESTS):
        path, _, tests = file.partition("=")
        wrong += check(ROOT / path, ROOT / (tests or TESTS[path]), chosen.every)
    if not chosen.files:
        wrong += check_known()
    print(*wrong, f"{time.monotonic() - start:.0f} s", sep="\n")
    return int(bool(wrong))


if __name__ == "__main__":
    raise SystemExit(main())

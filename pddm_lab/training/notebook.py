"""The first lines of every notebook, and training through a notebook: papermill executes notebooks/train.ipynb.

The executed notebook is written to a temporary folder, and into the run's folder at the end, even after an error.
Resuming a run executes the notebook again with the parameter `resume`; it then shows the log of all attempts.

Run as a module, this file is the child process that executes a notebook: `python -m pddm_lab.training.notebook JSON`.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import Any

import psutil

from pddm_lab import errors
from pddm_lab.config import PRESETS, TrainConfig, runs_root
from pddm_lab.errors import ConfigError, LabError, RunError, unknown_name
from pddm_lab.files import replacing, shipped
from pddm_lab.runs.compare import find_run, list_runs
from pddm_lab.runs.folder_name import discard_unused, new_folder
from pddm_lab.runs.process import LAUNCH
from pddm_lab.runs.run import Run

NOTEBOOK = "notebook.ipynb"
"""Name of the executed notebook in a run's folder."""
RESUME = "resume"
"""The notebook's only parameter that is not a field of `TrainConfig`: resume the run `run_name`."""
_KILLED, _UNWRITABLE = 137, 74  # exit codes of the child: its kernel was killed, its notebook can't be written
_PATIENCE = 300
"""Seconds in which a kernel must start, and its last output of a cell arrive: a busy machine takes long for both."""
_CHECKED = "_parameters_checked"
_PLAIN = (str, int, float, list, dict, type(None))


def parameters(config: TrainConfig) -> dict[str, Any]:
    """The notebook's parameters: the preset, and the fields that differ from it."""
    preset = PRESETS[config.preset].to_dict()
    return {"preset": config.preset} | {
        name: value for name, value in config.to_dict().items() if value != preset[name]
    }


def config_of(namespace: dict[str, Any]) -> TrainConfig:
    """The configuration from a notebook's parameters.

    papermill only warns of a parameter that the notebook doesn't have. In a fresh kernel every global with a plain
    value is a parameter, so unknown ones are detected here. `namespace` is the notebook's globals().

    Raises:
        ConfigError: an unknown parameter, with the closest known name, or a value out of range.
    """
    names = {field.name for field in dataclasses.fields(TrainConfig)}
    if not namespace.get(_CHECKED):
        names |= _plain_names(namespace) - {RESUME}
    config = TrainConfig.from_parameters({name: namespace.get(name) for name in sorted(names)})
    namespace[_CHECKED] = True
    return config


def begin(namespace: dict[str, Any], *known: str) -> None:
    """Check a notebook's parameters, and store its figures as data and as pictures, which need no network.

    Jupyter starts a notebook in the notebook's folder: this moves to the repository's, where data and runs are.
    `namespace` is the notebook's globals(), `known` the names of its parameters.

    Raises:
        ConfigError: an unknown parameter, with the closest known name.
    """
    from pddm_lab.static.renderer import show_figures_with_pictures

    if not namespace.get(_CHECKED):
        for name in sorted(_plain_names(namespace) - set(known)):
            raise ConfigError(unknown_name("parameter", name, known))
    namespace[_CHECKED] = True
    if Path("train.ipynb").is_file() and Path("../pddm_lab").is_dir():
        os.chdir("..")
    show_figures_with_pictures()


def _plain_names(namespace: dict[str, Any]) -> set[str]:
    plain = (name for name, value in namespace.items() if isinstance(value, _PLAIN))
    return {name for name in plain if not name.startswith("_") and name not in ("In", "Out")}


def run_named(name: str, root: str = "") -> Run:
    """A finished run.

    Args:
        name: its name, or the path of its folder; empty for the newest finished run.
        root: folder that holds the runs; empty for the default one.

    Raises:
        RunError: there is no such run, or it isn't finished; with the command to run.
    """
    if name:
        run = find_run(name, root)
        if run.status != "finished":
            raise RunError(f"{run.name} is {run.status}: {run.reason or 'wait until it is finished.'}")
        return run
    for newest in list_runs(root):
        if isinstance(newest, Run) and newest.status == "finished":
            return newest
    raise RunError(f"There is no finished run in {runs_root(root)}: train one with `pddm-lab train quick`.")


def train_in_notebook(config: TrainConfig) -> Run:
    """Train a run by executing the training notebook; its output appears in the terminal.

    The first Ctrl-C stops the training after its current step, a second one ends it immediately.

    Returns:
        The finished run.

    Raises:
        LabError: the training failed, or couldn't begin. A run that was begun is kept, with the reason.
    """
    path = new_folder(runs_root(config.runs_root), config, datetime.now(UTC))
    try:
        return _execute(path, parameters(config) | {"run_name": path.name})
    finally:
        discard_unused(path)


def resume_in_notebook(path: str | Path) -> Run:
    """Resume the run in a folder by executing its notebook again, as `train_in_notebook` does.

    Raises:
        LabError: there is nothing to resume, another process is training the run, or the training failed.
    """
    run = Run.open(path)
    run.check_resumable()
    path = run.path.resolve()
    place = {"run_name": path.name, "runs_root": str(path.parent), RESUME: True}
    return _execute(path, parameters(run.config) | place)


def _execute(path: Path, parameters: dict[str, Any]) -> Run:
    """Execute the training notebook in a child process, and keep it in the run's folder.

    In a session of its own the child doesn't receive Ctrl-C. It ends with its kernel when its standard input is closed,
    and that also happens when this process is killed.
    """
    launch = uuid.uuid4().hex
    # The kernel must be this interpreter's, whatever "python3" means elsewhere on the machine.
    kernels = [str(Path(sys.prefix) / "share" / "jupyter"), os.environ.get("JUPYTER_PATH", "")]
    source = str(shipped("notebooks/train.ipynb"))
    environment = {**os.environ, "JUPYTER_PATH": os.pathsep.join(filter(None, kernels)), LAUNCH: launch}
    with _sigterm_as_ctrl_c(), _scratch() as folder:
        executed = folder / NOTEBOOK
        command = [sys.executable, "-m", "pddm_lab.training.notebook", json.dumps([source, str(executed), parameters])]
        child = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True, env=environment)
        assert child.stdin
        interrupted = True
        try:
            _wait(child, path, launch)
            interrupted = False
        finally:
            child.stdin.close()
            child.wait()
            run = _run_of(launch, path)
            error = _keep(executed, run)
            if interrupted and run and run.info["status"] == "running":
                run.end("stopped", "Stopped with Ctrl-C.")
    return _finished_run(path, run, child.returncode, error)


@contextmanager
def _scratch() -> Iterator[Path]:
    """A temporary folder for the notebook while it is executed; raises RunError if there is none to write to."""
    try:
        folder = TemporaryDirectory(prefix="pddm-lab-", ignore_cleanup_errors=True)
    except OSError:
        raise RunError(
            "The notebook needs a temporary folder, and none can be written. Free space, or set TMPDIR to another one."
        ) from None
    with folder as path:
        yield Path(path)


@contextmanager
def _sigterm_as_ctrl_c() -> Iterator[None]:
    """SIGTERM stops the training just as Ctrl-C does: after the step, the second time immediately."""
    if threading.current_thread() is not threading.main_thread():  # only the main thread can set signal handlers
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _wait(child: subprocess.Popen[bytes], path: Path, launch: str) -> None:
    try:
        child.wait()
    except KeyboardInterrupt:
        run = _run_of(launch, path)
        if not run or run.info["status"] != "running":
            raise
        print("\nStopping after this step. Press Ctrl-C again to end immediately.", file=sys.stderr, flush=True)
        run.request_stop()
        child.wait()


def _run_of(launch: str, path: Path) -> Run | None:
    """The run in a folder, if it was this launch that trained it last: another one may have been faster."""
    run = Run.open(path) if (path / "run.json").is_file() else None
    return run if run and run.info.get("launch") == launch else None


def _keep(executed: Path, run: Run | None) -> Any:
    """Store an executed notebook in its run's folder, if a run was begun and its disk has space.

    Returns:
        The output of the cell that failed, with `ename`, `evalue` and `traceback`; None where no cell did.
    """
    import nbformat
    from nbformat.sign import NotebookNotary

    try:
        notebook = nbformat.read(executed, as_version=4)
    except (OSError, ValueError):  # papermill couldn't write it
        return None
    error = None
    for cell in notebook.cells:
        cell.update({"outputs": _tidy(cell.outputs)} if "outputs" in cell else {})
        error = next((output for output in cell.get("outputs", ()) if output.output_type == "error"), error)
    if run:
        with suppress(LabError, sqlite3.Error):  # the reason why the training ended is what counts
            with replacing(run.path / NOTEBOOK) as temporary:
                nbformat.write(notebook, temporary)
            NotebookNotary().sign(notebook)  # without the signature Jupyter doesn't trust the outputs
    return error


def _tidy(outputs: list[Any]) -> list[Any]:
    """A cell's outputs with consecutive prints joined, and only the last state of each progress bar."""
    kept: list[Any] = []
    for output in outputs:
        if output.output_type == "stream" and kept and kept[-1].get("name") == output.name:
            kept[-1].text += output.text
        else:
            kept.append(output)
    for output in kept:
        if output.output_type == "stream":
            lines = output.text.replace("\r\n", "\n").split("\n")
            output.text = "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in lines)
    return kept


def _finished_run(path: Path, run: Run | None, exit_code: int, error: Any) -> Run:
    """The finished run. If there is none, raises the reason, and marks a run that still says "running" as failed."""
    if exit_code and error:
        kind = getattr(errors, error.ename, None)
        if isinstance(kind, type) and issubclass(kind, LabError):
            failure: LabError = kind(error.evalue)
        else:
            if not run:
                print("\n".join(error.traceback), file=sys.stderr)
            kept = f" The traceback is in {path / NOTEBOOK}." if run else ""
            failure = RunError(f"{path.name} failed: {error.ename}: {error.evalue.rstrip('.')}.{kept}")
    elif exit_code and run and run.info["status"] == "failed":
        failure = RunError(run.reason)
    elif exit_code:
        failure = RunError(f"{path.name} failed: {_reason(exit_code)}.")
    elif run is None:
        failure = RunError(f"The training notebook ended without creating a run in {path}.")
    elif run.status != "finished":
        failure = RunError(f"{run.name} is {run.status}: {run.reason}")
    else:
        return run
    if run and run.info["status"] == "running":
        run.end("failed", str(failure))
    raise failure


def _reason(exit_code: int) -> str:
    """Why the child ended, where its notebook doesn't tell."""
    if exit_code == _UNWRITABLE:  # not a constant: to look for the folder writes to it, and the child can't then start
        return f"its notebook can't be written to {gettempdir()}. Free space there, or set TMPDIR to another folder"
    killed = exit_code in (_KILLED, -9)
    return "its process was killed, most often because memory ran out" if killed else "papermill's error is above"


def _execute_in_child(source: str, target: str, parameters: dict[str, Any]) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    parent = psutil.Process().parent()
    from nbclient.exceptions import DeadKernelError
    from papermill import PapermillExecutionError, execute_notebook

    # papermill fills in {names} in a path.
    source, target = (path.replace("{", "{{").replace("}", "}}") for path in (source, target))
    try:
        execute_notebook(
            source, target, parameters, kernel_name="python3", progress_bar=False, stdout_file=sys.stdout,
            stderr_file=sys.stderr, extra_arguments=["--IPKernelApp.log_level=ERROR"],
            start_timeout=_PATIENCE, iopub_timeout=_PATIENCE,
        )  # fmt: skip
    except PapermillExecutionError:  # the notebook holds the error
        sys.exit(1)
    except DeadKernelError:
        sys.exit(_KILLED)
    except OSError:
        sys.exit(_UNWRITABLE)
    finally:
        if psutil.Process().parent() != parent:  # it was killed, so nobody takes the notebook from here
            shutil.rmtree(Path(target).parent, ignore_errors=True)


def _end_with_parent() -> None:
    """Kill the kernel and all that it started when the parent closes the pipe; papermill then writes the notebook."""
    sys.stdin.read()
    while True:  # a kernel that is only about to start is killed too
        for process in psutil.Process().children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                process.kill()
        time.sleep(0.1)


if __name__ == "__main__":
    _execute_in_child(*json.loads(sys.argv[1]))

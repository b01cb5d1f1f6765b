"""What notebooks begin with, and a training by way of its notebook: papermill executes notebooks/train.ipynb, and the
run's folder keeps the result.

The notebook is written beside the runs while it executes, and moved into the run's folder at the end, whatever it was.
Going on with a run executes it anew, with the parameter `resume`: the log it shows is that of all attempts.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pddm_lab import errors
from pddm_lab.config import PRESETS, TrainConfig, runs_root
from pddm_lab.errors import ConfigError, LabError, RunError
from pddm_lab.files import shipped
from pddm_lab.runs.compare import list_runs
from pddm_lab.runs.folder_name import exists_already, folder_name
from pddm_lab.runs.run import Run

NOTEBOOK = "notebook.ipynb"
"""Name of the executed notebook in a run's folder."""
RESUME = "resume"
"""The notebook's one parameter that is no choice of a training: go on with the run `run_name`."""
_CHECKED = "_parameters_checked"
_PLAIN = (str, int, float, list, dict, type(None))


def parameters(config: TrainConfig) -> dict[str, Any]:
    """What the notebook must be told: the preset, and the choices that differ from it."""
    preset = PRESETS[config.preset].to_dict()
    return {"preset": config.preset} | {
        name: value for name, value in config.to_dict().items() if value != preset[name]
    }


def config_of(namespace: dict[str, Any]) -> TrainConfig:
    """The configuration that a notebook's parameters amount to.

    papermill only warns of a parameter that the notebook doesn't have, so it is found here: while a kernel is fresh,
    every plain value among its globals is a parameter.

    Args:
        namespace: the notebook's globals().

    Raises:
        ConfigError: an unknown parameter, with the nearest one's name, or a value out of range.
    """
    names = {field.name for field in dataclasses.fields(TrainConfig)}
    if not namespace.get(_CHECKED):
        names |= _plain_names(namespace) - {RESUME}
    config = TrainConfig.from_parameters({name: namespace.get(name) for name in sorted(names)})
    namespace[_CHECKED] = True
    return config


def begin(namespace: dict[str, Any], *known: str) -> None:
    """What a notebook begins with: its parameters are checked, figures become data, small and drawn without a network.

    Opened in Jupyter, a notebook starts in its own folder: it moves to the repository's, where data and runs lie.

    Args:
        namespace: the notebook's globals().
        known: its parameters.

    Raises:
        ConfigError: an unknown parameter, with the nearest one's name.
    """
    import plotly.io

    for name in sorted(_plain_names(namespace) - set(known)) if not namespace.get(_CHECKED) else ():
        near = "".join(f" Did you mean {one!r}?" for one in difflib.get_close_matches(name, known, n=1))
        raise ConfigError(f"Unknown parameter {name!r}.{near} Known: {', '.join(known)}.")
    namespace[_CHECKED] = True
    if Path("train.ipynb").is_file() and Path("../pddm_lab").is_dir():
        os.chdir("..")
    plotly.io.renderers.default = "plotly_mimetype"


def _plain_names(namespace: dict[str, Any]) -> set[str]:
    """Names of plain values: while a kernel is fresh, they are the parameters that it was given."""
    plain = (name for name, value in namespace.items() if isinstance(value, _PLAIN))
    return {name for name in plain if not name.startswith("_") and name not in ("In", "Out")}


def run_named(name: str, root: str = "") -> Run:
    """A finished run by its name or its folder's path.

    Args:
        name: empty for the newest finished one.
        root: folder that holds the runs; empty for the default one.

    Raises:
        RunError: there is none, or it isn't finished; with what to run.
    """
    if name:
        path = Path(name)
        run = Run.open(path if (path / "run.json").is_file() else runs_root(root) / name)
        if run.status != "finished":
            raise RunError(f"{run.name} is {run.status}: {run.reason or 'wait until it is finished.'}")
        return run
    finished = (run for run in list_runs(root) if isinstance(run, Run) and run.status == "finished")
    if found := next(finished, None):
        return found
    raise RunError(f"There is no finished run in {runs_root(root)}: train one with `pddm-lab train quick`.")


def train_in_notebook(config: TrainConfig) -> Run:
    """Train a run by executing the training notebook; its output is passed on to the terminal.

    Ctrl-C asks the training to stop after its step; a second one ends it at once.

    Returns:
        The finished run.

    Raises:
        LabError: what the training raised, or why there is none. A run that was begun is kept, with its reason.
    """
    path, executed = _reserve(runs_root(config.runs_root), config)
    return _execute(path, executed, parameters(config) | {"run_name": path.name})


def resume_in_notebook(path: str | Path) -> Run:
    """Go on with a run by executing its notebook anew, as `train_in_notebook` does.

    Args:
        path: the run's folder.

    Raises:
        LabError: there is nothing to go on with, another process is at it, or what the training raised.
    """
    run = Run.open(path)
    run.check_resumable()
    path = run.path.resolve()
    executed = path.with_name(f".{path.name}.{NOTEBOOK}")
    executed.touch()
    place = {"run_name": path.name, "runs_root": str(path.parent), RESUME: True}
    return _execute(path, executed, parameters(run.config) | place)


def _execute(path: Path, executed: Path, parameters: dict[str, Any]) -> Run:
    """Execute the notebook for the run in a folder, and keep it there."""
    execution = _Execution(shipped("notebooks/train.ipynb"), executed, parameters)
    with _ending_as_from_the_keyboard():
        execution.start()
        try:
            _wait(execution, path)
        except KeyboardInterrupt:
            execution.end()
            if _at_work(path):
                Run.open(path).update(status="stopped", reason="Ended from the keyboard.")
            raise
        finally:
            execution.end()
            _keep(executed, path)
    return _outcome(execution.error, path)


@contextmanager
def _ending_as_from_the_keyboard() -> Iterator[None]:
    """A process that is told to end stops its training as Ctrl-C does: after the step, at the second time at once."""
    if threading.current_thread() is not threading.main_thread():  # only that one may say what a signal does
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _at_work(path: Path) -> bool:
    """Whether run.json is there and says that a process is training it, living or just ended."""
    return (path / "run.json").is_file() and Run.open(path).info["status"] == "running"


def _reserve(root: Path, config: TrainConfig) -> tuple[Path, Path]:
    """The folder of a run to come, and an empty file for its notebook, which keeps the name from another process."""
    name = folder_name(config, datetime.now(UTC))
    for attempt in range(1, 1000):
        path = root / (name if attempt == 1 else f"{name}-{attempt}")
        executed = root / f".{path.name}.{NOTEBOOK}"
        if config.run_name and path.exists():
            raise exists_already(path)
        try:
            root.mkdir(parents=True, exist_ok=True)
            if config.run_name:  # a leftover of a process that was killed must not keep a name that was asked for
                executed.touch()
            else:
                executed.touch(exist_ok=False)
        except FileExistsError:
            continue
        except OSError as error:
            raise RunError(f"{root} can't be written: {error.strerror}. --runs-root names another folder.") from error
        if not path.exists():
            return path, executed
        executed.unlink()
    raise RunError(f"{root} has 1000 runs of this second: name one with --run-name.")


def _keep(executed: Path, path: Path) -> None:
    """Move an executed notebook into its run, each progress bar in its last state; without a run it goes."""
    if not (path / "run.json").is_file() or not executed.stat().st_size:
        executed.unlink(missing_ok=True)
        return
    import nbformat
    from nbformat.sign import NotebookNotary

    notebook = nbformat.read(executed, as_version=4)
    for cell in notebook.cells:
        if "outputs" in cell:
            cell.outputs = _tidy(cell.outputs)
    nbformat.write(notebook, executed)
    NotebookNotary().sign(notebook)  # its outputs are this user's own: Jupyter shows them as they are
    executed.replace(path / NOTEBOOK)


def _tidy(outputs: list[Any]) -> list[Any]:
    """The outputs of a cell with what was printed in one piece, of a progress bar only its last state."""
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


class _Execution(threading.Thread):
    """papermill in a thread, for in the main thread it would answer Ctrl-C by killing the kernel."""

    def __init__(self, source: Path, target: Path, parameters: dict[str, Any]) -> None:
        super().__init__(name="notebook", daemon=True)
        self.error: BaseException | None = None
        self.ended = threading.Event()  # a join that Ctrl-C interrupts takes the thread for ended
        self._source, self._target, self._parameters = source, target, parameters

    def run(self) -> None:
        # The kernel of this very interpreter, whatever "python3" means elsewhere on the machine.
        kernels = [str(Path(sys.prefix) / "share" / "jupyter"), os.environ.get("JUPYTER_PATH", "")]
        os.environ["JUPYTER_PATH"] = os.pathsep.join(filter(None, kernels))
        from papermill import execute_notebook

        try:
            execute_notebook(
                _verbatim(self._source), _verbatim(self._target), self._parameters, kernel_name="python3",
                progress_bar=False, stdout_file=sys.stdout, stderr_file=sys.stderr,
                extra_arguments=["--IPKernelApp.log_level=ERROR"],
            )  # fmt: skip
        except BaseException as error:  # handed to the main thread
            self.error = error
        finally:
            self.ended.set()

    def end(self) -> None:
        """End the kernel if it still runs, and wait for papermill to write what there is."""
        if not self.ended.is_set():
            import psutil

            kernels = [child for child in psutil.Process().children() if "ipykernel_launcher" in child.cmdline()]
            for process in [below for kernel in kernels for below in (*kernel.children(recursive=True), kernel)]:
                process.kill()
            self.ended.wait()


def _verbatim(path: Path) -> str:
    """papermill fills in {names} in a path: double the braces of one that has some."""
    return str(path).replace("{", "{{").replace("}", "}}")


def _wait(execution: _Execution, path: Path) -> None:
    try:
        execution.ended.wait()
    except KeyboardInterrupt:
        if not _at_work(path):
            raise
        print("\nStopping after this step. Press Ctrl-C again to end at once.", file=sys.stderr, flush=True)
        Run.open(path).request_stop()
        execution.ended.wait()


def _outcome(error: BaseException | None, path: Path) -> Run:
    """The finished run, or the error that says why there is none; a run left as running is marked as failed."""
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    run = Run.open(path) if (path / "run.json").is_file() else None
    kept = f" The traceback is in {path / NOTEBOOK}." if run else ""
    if isinstance(error, PapermillExecutionError):
        kind = getattr(errors, error.ename, None)
        if isinstance(kind, type) and issubclass(kind, LabError):
            failure: LabError = kind(error.evalue)
        else:
            if not run:
                print("\n".join(error.traceback), file=sys.stderr)
            failure = RunError(f"{path.name} failed: {error.ename}: {error.evalue.rstrip('.')}.{kept}")
    elif isinstance(error, DeadKernelError):
        failure = RunError(f"{path.name} failed: its process was ended from outside, most often for want of memory.")
    elif error is not None:
        raise error
    elif run is None:
        failure = RunError(f"The training notebook ended without a run in {path}.")
    elif run.status != "finished":
        failure = RunError(f"{run.name} is {run.status}: {run.reason}")
    else:
        return run
    if run and run.info["status"] == "running":
        run.update(status="failed", reason=str(failure))
    raise failure from error

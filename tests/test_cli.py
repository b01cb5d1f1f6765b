"""The command line: it answers at once, its errors are one line, and a training is a notebook that is always kept."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import nbformat
import psutil
import pytest
from nbformat.sign import NotebookNotary

from pddm_lab import cli
from pddm_lab.commands import training
from pddm_lab.config import PRESETS, TrainConfig
from pddm_lab.errors import ConfigError, LabError, RunError
from pddm_lab.runs.compare import list_runs
from pddm_lab.runs.folder_name import new_folder
from pddm_lab.runs.run import Run
from pddm_lab.training import notebook
from pddm_lab.training.notebook import config_of, parameters, resume_in_notebook, train_in_notebook

DATASET_INFO = {"name": "digits", "fingerprint": "ab12", "items": 1797, "classes": 10}


@pytest.fixture(autouse=True)
def _own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PDDM_LAB_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("PDDM_LAB_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "jupyter"))


def fails(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """What a command that ends with exit code 2 writes to standard error."""
    with pytest.raises(SystemExit) as exit:
        cli.main(argv)
    assert exit.value.code == 2
    return capsys.readouterr().err


def test_help_names_the_commands() -> None:
    command = [str(Path(sys.executable).with_name("pddm-lab")), "--help"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert all(word in text for word in ("train", "data", "runs", "resume", "dashboard", "screenshots", "demo"))


def test_importing_the_command_line_imports_nothing_heavy() -> None:
    heavy = {"torch", "pandas", "numpy", "papermill", "streamlit", "tqdm", "sklearn", "PIL", "plotly", "faiss"}
    code = f"import pddm_lab.cli, sys; print({heavy} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "set()"


@pytest.mark.parametrize("preset", PRESETS)
def test_every_choice_is_a_flag_of_every_preset(preset: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit:
        cli.main(["train", preset, "--help"])
    assert not exit.value.code
    text = capsys.readouterr().out
    for name in TrainConfig().to_dict():
        assert (f"--{name.replace('_', '-')}" in text) == (name not in ("preset", "familiarity"))


def test_flags_change_the_preset(monkeypatch: pytest.MonkeyPatch) -> None:
    configs: list[TrainConfig] = []

    def catch(config: TrainConfig) -> None:
        configs.append(config)
        raise RunError("enough")

    monkeypatch.setattr(notebook, "train_in_notebook", catch)
    with pytest.raises(SystemExit):
        cli.main(
            ["train", "finetune", "--dataset", "folder:/some where", "--steps", "3", "--refit", "none", "--lr", "0.5"]
        )
    assert type(configs[0]) is TrainConfig
    assert parameters(configs[0]) == {
        "preset": "finetune", "dataset": "folder:/some where", "steps": 3, "refit": "none", "lr": 0.5
    }  # fmt: skip
    assert TrainConfig.from_parameters(parameters(configs[0])) == configs[0]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("train", "quick", "--stpes", "3"), "--steps"),
        (("train", "quikc"), "quick"),
        (("train", "quick", "--steps", "many"), "--steps"),
        (("train", "quick", "--loss", "l2"), "quadruplet"),
        (("train", "quick", "--preset", "paper"), "--preset"),
    ],
)
def test_a_mistyped_flag_is_named(argv: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert message in fails(capsys, *argv)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("train", "quick", "--steps", "0"), "--steps expects 1 or more"),
        (("train", "quick", "--dataset", "digits", "--run-name", "a/b"), "--run-name"),
        (("data", "fetch", "digts"), "Did you mean 'digits'?"),
        (("train", "quick", "--lr", "nan"), "--lr expects a finite number, got nan"),
        (("train", "quick", "--lr", "9" * 400), "--lr expects a finite number, got inf"),
        (("train", "lab", "--seed", "9" * 400), "--seed expects 0 or more, got a number of more than 16 digits"),
        (("train", "quick", "--loss", "arcface", "--loss-options", "scale=inf"), "--loss-options expects a finite"),
        (("recognise", "x", "--shots", "1", "0"), "--shots expects 1 or more, got 0"),
        (("recognise", "x", "--seed", "9" * 400), "--seed expects 0 or more, got a number of more than 16"),
        (("transfer", "x", "--to", "digits", "--split-seed=-1"), "--split-seed expects 0 or more, got -1"),
        (("class-scaling", "--images", "0"), "--images expects 1 or more, got 0"),
        (("dashboard", "--port", "9" * 400), "--port expects 1 or more, at most 65535, got a number"),
        (("screenshots", "x", "--width", "0"), "--width expects 1 or more"),
        (("demo", "--port", "0"), "--port expects 1 or more"),
        (("compare", "--seeds", "9" * 400), "--seeds expects 0 or more, got a number of more than 16 digits"),
        (("compare", "--configurations", "7"), "--configurations expects 1 or more, at most 6, got 7"),
        (("bench", "mining", "--largest", "9" * 400), "--largest expects 1 or more"),
        (("resume", "nothing"), "nothing"),
        (("dashboard", "nothing"), "nothing"),
        (("screenshots", "nothing"), "nothing"),
    ],
)
def test_an_error_is_one_line(argv: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    error = fails(capsys, *argv)
    assert message in error
    assert error.startswith("pddm-lab: ")
    assert error.count("\n") == 1


def test_data_is_listed_and_fetched(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    cli.main(["data", "list"])
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("digits")]
    assert line.split()[1] == "no"
    cli.main(["data", "fetch", "digits"])
    assert "Licence: " in capsys.readouterr().out
    cli.main(["data", "list"])
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("digits")]
    assert line.split()[1] == "yes"
    assert (tmp_path / "data" / "digits").is_dir()


def test_runs_are_listed(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    cli.main(["runs"])
    assert "pddm-lab train quick" in capsys.readouterr().out
    run = Run.create(TrainConfig(run_name="one", dataset="digits"), DATASET_INFO, "cpu", "32")
    run.set_metrics("unseen", "euclidean", {"recall@1": 0.5, "map@r": 0.25})
    run.update(
        status="failed",
        reason="The disk is full.",
        warnings=["It collapsed."],
        pretrained={"unseen": {"recall@1": 0.6, "map@r": 0.3}},
    )
    (tmp_path / "runs" / "damaged").mkdir()
    (tmp_path / "runs" / "damaged" / "run.json").write_text("{")
    cli.main(["runs"])
    out = " ".join(capsys.readouterr().out.split())
    assert "50.0 / 25.0, 60.0 / 30.0" in out and "of the pretrained features" in out
    assert "one failed: The disk is full." in out and "one warning: It collapsed." in out
    assert "damaged can't be read" in out
    assert "not a number" not in out


def test_results_end_with_the_pretrained_features(capsys: pytest.CaptureFixture[str]) -> None:
    run = Run.create(TrainConfig(run_name="one", dataset="digits"), DATASET_INFO, "cpu", "32")
    run.set_metrics("known", "pddm", {"recall@1": 0.5, "map@r": 0.25, "auc": 0.75})
    run.update(status="finished", pretrained={"known": {"recall@1": 0.6, "map@r": None}}, warnings=["It collapsed."])
    training.print_results(run)
    out = capsys.readouterr().out
    assert "\nWarning: It collapsed.\n" in out
    lines = [line.split("  ") for line in out.splitlines()]
    assert [[cell.strip() for cell in line if cell] for line in lines if line[0] == "known"] == [
        ["known", "pddm", "50.0", "25.0", "0.750"],
        ["known", "Pretrained features", "60.0", "-", "-"],
    ]


@pytest.mark.parametrize(
    ("before", "trained", "resumed"),
    [
        ({}, "demo", ""),
        ({"demo": "finished"}, "", ""),
        ({"demo": "failed"}, "", "demo"),
        ({"demo": "running"}, "", ""),
        ({"demo": "broken"}, "demo-2", ""),
        ({"demo": "broken", "demo-2": "stopped"}, "", "demo-2"),
    ],
)
def test_the_demo_ends_with_a_finished_run(
    before: dict[str, str], trained: str, resumed: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    done: list[tuple[str, str]] = []

    def train(config: TrainConfig) -> Run:
        done.append(("train", config.run_name))
        run = Run.create(config, DATASET_INFO, "cpu", "32")
        run.update(status="finished")
        return run

    def resume(path: Path) -> Run:
        if path in broken:
            raise RunError("Nothing to resume from.")
        done.append(("resume", path.name))
        run = Run.open(path)
        run.update(status="finished")
        return run

    broken = []
    for name, status in before.items():
        run = Run.create(TrainConfig(run_name=name), DATASET_INFO, "cpu", "32")
        run.update(status="failed" if status == "broken" else status)
        broken += [run.path] if status == "broken" else []
    monkeypatch.setattr(training, "fetch", lambda name, data_root: done.append(("fetch", name)))
    monkeypatch.setattr(notebook, "train_in_notebook", train)
    monkeypatch.setattr(notebook, "resume_in_notebook", resume)
    if before.get("demo") == "running":
        with pytest.raises(SystemExit):
            cli.main(["demo"])
    else:
        cli.main(["demo"])
    wanted = [("fetch", "emoji")] + [("train", trained)] * bool(trained) + [("resume", resumed)] * bool(resumed)
    assert done == wanted


# A notebook that stands for the training: the same parameters, a run, and an end of the test's choosing.
_BEGIN = """
from pddm_lab.training.notebook import config_of
config = config_of(globals())
from pddm_lab.runs.compare import Run
run = Run.create(config, {"name": "none", "fingerprint": "", "items": 0, "classes": 0}, "cpu", "32")
print("begun", flush=True)
"""


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    def make(*cells: str) -> None:
        names = "\n".join(f"{name} = None" for name in (*TrainConfig().to_dict(), "resume"))
        first = nbformat.v4.new_code_cell(names, metadata={"tags": ["parameters"]})
        made = nbformat.v4.new_notebook(cells=[first, *map(nbformat.v4.new_code_cell, cells)])
        made.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
        path = tmp_path / "stand-in {braces}.ipynb"
        nbformat.write(made, path)
        monkeypatch.setattr(notebook, "shipped", lambda name: path)

    return make


def train(**choices: object) -> Run:
    return train_in_notebook(TrainConfig.from_parameters({"dataset": "none", **choices}))


def leftovers(tmp_path: Path) -> list[str]:
    return [path.name for path in (tmp_path / "runs").iterdir() if path.name.startswith(".")]


def test_a_finished_training_keeps_its_notebook(stand_in, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:  # type: ignore[no-untyped-def]
    stand_in(
        _BEGIN, "import sys; print('10%\\r20%\\r100%', file=sys.stderr); print(sys.executable)",
        "run.update(status='finished', phase='done')",
    )  # fmt: skip
    run = train(run_name="{one}".strip("{}"), notes='it\'s "quoted"', seed=3)
    assert (run.name, run.config.seed, run.config.notes) == ("one", 3, 'it\'s "quoted"')
    output = capfd.readouterr()
    assert "begun" in output.out
    assert sys.executable in output.out
    assert "20%" in output.err
    kept = nbformat.read(run.path / "notebook.ipynb", as_version=4)
    outputs = "".join(str(output.get("text", "")) for cell in kept.cells for output in cell.get("outputs", []))
    assert "100%" in outputs
    assert "20%" not in outputs, "a kept progress bar is its last state"
    assert NotebookNotary().check_signature(kept), "Jupyter strips the styles of a notebook it doesn't trust"
    assert not leftovers(tmp_path)
    with pytest.raises(RunError, match="exists already"):
        train(run_name="one")


def test_an_error_of_the_lab_comes_through_as_it_is(stand_in, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    stand_in("from pddm_lab.errors import DataError\nraise DataError('Nothing is there. Fetch it.')")
    with pytest.raises(LabError, match=r"^Nothing is there\. Fetch it\.$"):
        train()
    assert not list((tmp_path / "runs").iterdir()), "no run was begun, so nothing stays"


def test_any_other_error_keeps_the_run_with_its_reason(stand_in, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    stand_in(_BEGIN, "1 / 0")
    with pytest.raises(RunError, match=r"ZeroDivisionError.*notebook\.ipynb"):
        train(run_name="one")
    run = Run.open(tmp_path / "runs" / "one")
    assert run.status == "failed"
    assert "ZeroDivisionError" in run.reason
    assert "ZeroDivisionError" in (run.path / "notebook.ipynb").read_text()


def test_a_kernel_ends_when_the_process_that_started_it_is_gone(tmp_path: Path) -> None:
    number = tmp_path / "pid"
    cell = f"import os, pathlib, time\npathlib.Path({str(number)!r}).write_text(str(os.getpid()))\ntime.sleep(3600)"
    source, target = str(tmp_path / "source.ipynb"), str(tmp_path / "target.ipynb")
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell)]), source)
    command = [sys.executable, "-m", notebook.__name__, json.dumps([source, target, {}])]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as child:
        while not (number.is_file() and number.read_text()):
            assert child.poll() is None
            time.sleep(0.05)
        kernel = psutil.Process(int(number.read_text()))
        assert child.stdin
        child.stdin.close()  # as the system does when a process is killed
        assert child.wait(300) != 0
    end = time.monotonic() + 300
    while kernel.is_running() and kernel.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < end
        time.sleep(0.05)
    assert "sleep" in Path(target).read_text()


def test_a_kernel_that_dies_fails_its_run(stand_in, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    stand_in(_BEGIN, "import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    with pytest.raises(RunError, match="memory"):
        train(run_name="one")
    run = Run.open(tmp_path / "runs" / "one")
    assert (run.status, "memory" in run.reason) == ("failed", True)
    assert (run.path / "notebook.ipynb").is_file()


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Ctrl-C is heard: a shell's background jobs ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(("patient", "sent"), [(True, signal.SIGINT), (True, signal.SIGTERM), (False, signal.SIGINT)])
def test_ctrl_c_and_a_terminating_signal_stop_the_training(  # type: ignore[no-untyped-def]
    stand_in, ctrl_c: None, tmp_path: Path, patient: bool, sent: int
) -> None:
    wait = "while not run.stop_requested(): time.sleep(.05)\nrun.update(status='stopped', reason='On request.')"
    stand_in(_BEGIN, "import time\n" + (wait if patient else "time.sleep(600); (run.path / 'slept').touch()"))
    file = tmp_path / "runs" / "one" / "run.json"

    def press() -> None:
        while not file.is_file():
            time.sleep(0.05)
        for _ in range(1 if patient else 2):
            time.sleep(0.5)
            os.kill(os.getpid(), sent)

    threading.Thread(target=press, daemon=True).start()
    with pytest.raises((RunError, KeyboardInterrupt)):
        train(run_name="one")
    assert not (file.parent / "slept").exists(), "it is not waited for"
    assert Run.open(file.parent).status == "stopped"
    assert (file.parent / "notebook.ipynb").is_file()


def test_resuming_a_run_executes_its_notebook_again(stand_in, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    stand_in(
        "from pddm_lab.training.notebook import config_of\nconfig = config_of(globals())\n"
        "from pddm_lab.runs.run import Run\n"
        "path = f'{config.runs_root}/{config.run_name}' if resume else ''\n"
        f"run = Run.open(path) if resume else Run.create(config, {DATASET_INFO}, 'cpu', '32')\nrun.claim()",
        "print('attempt', 'two' if resume else 'one')\nassert resume or run.update(status='stopped')",
        "run.update(status='finished', phase='done')",
    )
    with pytest.raises(RunError, match="AssertionError"):
        train(run_name="one", seed=3)
    path = tmp_path / "runs" / "one"
    assert "attempt one" in (path / "notebook.ipynb").read_text()
    run = resume_in_notebook(path)
    assert (run.status, run.config.seed) == ("finished", 3)
    text = (path / "notebook.ipynb").read_text()
    assert "attempt two" in text and "attempt one" not in text and "AssertionError" not in text
    assert not leftovers(tmp_path)
    with pytest.raises(RunError, match="nothing to resume"):
        resume_in_notebook(path)


def test_a_run_that_cannot_resume_keeps_its_old_notebook(stand_in, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    run = Run.create(TrainConfig(dataset="none", run_name="one"), DATASET_INFO, "cpu", "32")
    (run.path / "notebook.ipynb").write_text("the old one")
    run.update(pid=os.getppid(), process_started=psutil.Process(os.getppid()).create_time())
    with pytest.raises(RunError, match="is being trained"):
        resume_in_notebook(run.path)
    assert (run.path / "notebook.ipynb").read_text() == "the old one"


@pytest.mark.parametrize("resumes", [True, False])
def test_a_launch_leaves_the_run_of_a_faster_one_alone(stand_in, tmp_path: Path, resumes: bool) -> None:  # type: ignore[no-untyped-def]
    """What its kernel finds is a run that another process claimed a moment before."""
    path = tmp_path / "runs" / "one"
    other = psutil.Process(os.getppid())
    if resumes:
        run = Run.create(TrainConfig(dataset="none", run_name="one"), DATASET_INFO, "cpu", "32")
        (path / "notebook.ipynb").write_text("of the faster one")
        run.end("stopped", "Stopped on request.")
    owner = {"pid": other.pid, "process_started": other.create_time(), "launch": "faster"}
    claim = f"run.update(status='running', reason='', **{owner})"
    stand_in(
        _BEGIN.replace("Run.create(", f"Run.open('{path}') if resume else Run.create("), f"{claim}\nrun.claim()"
    )  # fmt: skip
    with pytest.raises(RunError, match="is being trained by process"):
        resume_in_notebook(path) if resumes else train(run_name="one")
    run = Run.open(path)
    assert (run.status, run.reason, run.info["launch"]) == ("running", "", "faster")
    assert not resumes or (path / "notebook.ipynb").read_text() == "of the faster one"


def test_a_name_whose_training_was_killed_before_it_began_is_free(stand_in, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    left = tmp_path / "runs" / "one"
    left.mkdir(parents=True)
    (left / ".lock").touch()
    (left / ".run.json.123-456.tmp").write_text('{"format"')
    assert list_runs(tmp_path / "runs") == []
    stand_in(_BEGIN, "run.update(status='finished', phase='done')")
    assert train(run_name="one").status == "finished"
    assert [file.name for file in left.glob(".*")] == [".lock"]
    (tmp_path / "runs" / "pictures" / "cats").mkdir(parents=True)
    with pytest.raises(RunError, match=r"exists already.*it isn't a run's"):
        train(run_name="pictures")


def test_a_notebook_that_cannot_be_kept_leaves_the_reason(stand_in, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    stand_in(_BEGIN, "(run.path / 'notebook.ipynb' / 'in the way').mkdir(parents=True)\n1 / 0")
    with pytest.raises(RunError, match="ZeroDivisionError"):
        train(run_name="one")
    assert "ZeroDivisionError" in Run.open(tmp_path / "runs" / "one").reason


def test_runs_of_one_second_get_names_of_their_own(tmp_path: Path) -> None:
    names = {new_folder(tmp_path / "runs", TrainConfig(), datetime.now(UTC)).name for _ in range(3)}
    assert len(names) == 3


def test_an_unknown_parameter_of_a_notebook_is_an_error() -> None:
    namespace: dict[str, object] = {"preset": "paper", "steps": 5, "lr": None, "In": [], "_hidden": 1, "os": os}
    assert config_of(namespace) == TrainConfig.from_parameters({"preset": "paper", "steps": 5})
    with pytest.raises(ConfigError, match=r"'stpes'.*'steps'"):
        config_of({"preset": "quick", "stpes": 5})
    with pytest.raises(ConfigError, match=r"'stpes'.*'steps'"):
        config_of({"preset": "quick", "stpes": None})
    for number in (float("nan"), float("inf"), 10**400):
        with pytest.raises(ConfigError, match="--lr expects a finite number"):
            config_of({"preset": "quick", "lr": number})
    assert config_of(namespace | {"answer": 42}).steps == 5, "later in a session, other names are the reader's own"

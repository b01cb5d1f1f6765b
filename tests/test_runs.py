"""Runs on disk: what is written comes back, and what is damaged, unknown or missing is named."""

from __future__ import annotations

import dataclasses
import json
import math
import pickle
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
import torch
from python_calls import calls_of

from pddm_lab.config import UNNAMED_CHOICES, TrainConfig
from pddm_lab.errors import ConfigError, RunError
from pddm_lab.metrics.intervals import mean_interval
from pddm_lab.runs.compare import (
    BrokenRun,
    compare_runs,
    groups,
    lead_over_d,
    list_runs,
    mean_log,
    measured_alike,
    seed_leads,
    spread,
)
from pddm_lab.runs.log import EUCLIDEAN, METRICS, QUADRUPLETS, Log
from pddm_lab.runs.run import Run
from pddm_lab.similarities import PRETRAINED

DATASET = {"name": "digits", "fingerprint": "ab12", "items": np.int64(1797), "classes": 10, "root": Path("data")}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "runs"


def make(root: Path, **choices) -> Run:
    return Run.create(TrainConfig(dataset="digits", runs_root=str(root), **choices), DATASET, "cpu", "32")


def quadruplets(steps: list[int], **columns) -> dict:
    count = len(steps)
    texts = {name: np.array([f"{name}{n}" for n in range(count)]) for name in ("i", "j", "k", "l")}
    classes = {name: ["cat"] * count for name in ("class_i", "class_k", "class_l")}
    reals = {name: np.arange(count) / 7 for name, kind in QUADRUPLETS.items() if kind == "float32"}
    return {"phase": "select", "step": np.array(steps)} | texts | classes | reals | columns


def test_what_is_written_comes_back(root: Path) -> None:
    run = make(root, seed=3)
    run.update(phase="refit", step=np.int64(7), best_step=5, share=np.float32(0.5), loss=math.nan)
    run.set_metrics("unseen", "pddm", {"recall@1": np.float64(0.5)})
    run.set_metrics("unseen", "euclidean", {"recall@1": 0.25, "nmi": math.nan})
    run.update(status="finished")

    again = Run.open(run.path)
    assert again.config == run.config
    assert again.config.seed == 3
    assert again.status == "finished"
    assert again.reason == ""
    assert again.name == run.path.name
    assert again.info["dataset"] == {
        "name": "digits",
        "fingerprint": "ab12",
        "items": 1797,
        "classes": 10,
        "root": "data",
    }
    assert again.info["metrics"]["unseen"] == {"pddm": {"recall@1": 0.5}, "euclidean": {"recall@1": 0.25, "nmi": None}}
    assert (again.info["phase"], again.info["step"], again.info["share"], again.info["loss"]) == ("refit", 7, 0.5, None)
    assert again.info["versions"]["torch"].partition("+")[0] == torch.__version__.partition("+")[0]
    assert again.seconds > 0
    assert not list(run.path.glob(".*.tmp")), "no temporary file stays"
    with pytest.raises(ValueError, match="status expects one of"):
        run.update(status="done")


def test_a_configuration_without_newer_choices_is_read_as_what_was_done_then(root: Path) -> None:
    run = make(root)
    file = run.path / "run.json"
    info = json.loads(file.read_text())
    for name in UNNAMED_CHOICES:
        del info["config"][name]
    file.write_text(json.dumps(info))
    config = Run.open(run.path).config
    assert (config.start, config.interpolates, config.whitens) == ("random", False, False)
    assert config == dataclasses.replace(run.config, **UNNAMED_CHOICES)


def test_names_are_unique(root: Path) -> None:
    runs = [make(root) for _ in range(4)]
    assert len({run.name for run in runs}) == 4
    assert all(run.name.startswith("digits-quick-") for run in runs)
    assert make(root, run_name="mine").name == "mine"
    with pytest.raises(RunError, match=r"mine exists already.*resume mine"):
        make(root, run_name="mine")
    Run.open(root / "mine").update(status="finished")
    with pytest.raises(RunError, match=r"mine exists already: choose another --run-name, or .*runs remove mine`\.$"):
        make(root, run_name="mine")
    (root / "mine" / "run.json").write_text("[]")
    with pytest.raises(RunError, match=r"mine exists already: choose another --run-name, or "):
        make(root, run_name="mine")
    for name in ("../up", "a/b", ".hidden", "x" * 101, "dot."):
        with pytest.raises(ConfigError, match="--run-name"):
            make(root, run_name=name)
    folder = Run.create(TrainConfig(dataset="folder:/some where/my photos/", runs_root=str(root)), DATASET, "cpu", "32")
    assert folder.name.startswith("my-photos-quick-")


def test_a_root_that_cannot_hold_runs_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="--runs-root"):
        make(tmp_path / "file" / "runs")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"format": 1, "na', "is damaged"),
        ("\x00\x00", "is damaged"),
        ("[1, 2]", "was not written by this lab"),
        ('{"name": "x"}', "was not written by this lab"),
    ],
)
def test_a_damaged_or_unknown_run_is_named(root: Path, text: str, message: str) -> None:
    run = make(root)
    (run.path / "run.json").write_text(text)
    with pytest.raises(RunError, match=rf"run\.json {message}"):
        Run.open(run.path)
    (broken,) = list_runs(root)
    assert isinstance(broken, BrokenRun)
    assert message in broken.reason
    assert broken.name == run.name


def test_a_field_whose_name_holds_a_line_break_leaves_the_message_on_one_line(root: Path) -> None:
    file = make(root).path / "run.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"metrics": {"un\nseen": {"pddm": {"map@r": "high"}}}}))
    with pytest.raises(RunError, match=r"metrics\.un\\nseen") as error:
        Run.open(file.parent)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("skipped", [3, None, [], [{"id": "a.png", "reason": "damaged"}]])
def test_a_run_opens_however_its_skipped_images_were_noted(root: Path, skipped: object) -> None:
    file = make(root).path / "run.json"
    info = json.loads(file.read_text())
    info["dataset"]["skipped"] = skipped
    file.write_text(json.dumps(info))
    assert Run.open(file.parent).info["dataset"]["skipped"] == skipped


def test_other_versions_are_refused(root: Path) -> None:
    run = make(root)
    file = run.path / "run.json"
    info = json.loads(file.read_text())
    file.write_text(json.dumps(info | {"format": 99}))
    with pytest.raises(RunError, match="update this lab"):
        Run.open(run.path)
    file.write_text(json.dumps(info | {"config": info["config"] | {"tempo": 3}}))
    with pytest.raises(RunError, match=r"config that can't be read.*tempo"):
        Run.open(run.path)
    with pytest.raises(RunError, match=r"expected run\.json"):
        Run.open(root)
    with pytest.raises(RunError, match="is not a run"):
        Run.open(file)


def test_logs_come_back_in_the_order_written(root: Path) -> None:
    run = make(root)
    assert run.metrics().empty
    assert list(run.metrics()) == list(METRICS)
    assert run.quadruplets(["step", "i"]).empty
    run.log_metrics(9, "select", "train", "", {"loss": 0.5, "lr": torch.tensor(0.1)})
    run.flush()
    run.log_metrics(1, "refit", "validation", "pddm", {"recall@1": 0.75})
    run.log_metrics(2, "refit", "train", "", {})
    run.flush()
    run.flush()
    frame = Run.open(run.path).metrics()
    assert frame.metric.tolist() == ["loss", "lr", "recall@1"]
    assert frame.step.tolist() == [9, 9, 1]
    assert frame.phase.tolist() == ["select", "select", "refit"]
    np.testing.assert_allclose(frame.value, [0.5, 0.1, 0.75])
    assert frame.seconds.is_monotonic_increasing
    assert len(list((run.path / "metrics.parquet").iterdir())) == 2, "nothing buffered, nothing written"
    pd.testing.assert_frame_equal(pd.read_parquet(run.path / "metrics.parquet"), frame)

    run.log_quadruplets(quadruplets([4, 4, 4]))
    run.log_quadruplets(quadruplets([]))
    run.log_quadruplets(pd.DataFrame(quadruplets([5, 6])))
    run.flush()
    frame = run.quadruplets()
    assert list(frame) == [*QUADRUPLETS, *EUCLIDEAN]
    assert frame.step.tolist() == [4, 4, 4, 5, 6]
    assert frame.i.tolist() == ["i0", "i1", "i2", "i0", "i1"]
    assert frame.s_ij.dtype == np.float32
    assert list(run.quadruplets(["slack_ik", "step"])) == ["slack_ik", "step"]
    with pytest.raises(ValueError, match="one length"):
        run.log_quadruplets(quadruplets([1, 2], j=["a"]))


def test_optional_columns_are_null_where_a_part_lacks_them(root: Path) -> None:
    older = Log(root, QUADRUPLETS)
    root.mkdir()
    older.add(quadruplets([1, 1]), 2, 1)
    older.write()
    log = Log(root, QUADRUPLETS, optional=EUCLIDEAN)
    alternatives = {name: ["x"] if kind == "string" else [0.5] for name, kind in EUCLIDEAN.items()}
    log.add(quadruplets([2]) | alternatives, 1, 2)
    log.add(quadruplets([3]), 1, 3)
    log.write()
    frame, table = log.read(), log.table(coded=True)
    assert frame.e_k.isna().tolist() == frame.e_d_ik.isna().tolist() == [True, True, False, True]
    assert frame.e_d_ik.dtype == np.float32
    assert frame.e_k[2] == "x" and frame.e_s_jl[2] == 0.5
    assert [str(kind) for kind in table.schema.types].count("dictionary<values=string, indices=int32, ordered=0>") == 15
    pd.testing.assert_frame_equal(table.cast(log.table().schema).to_pandas(), frame)
    log.truncate_after("select", 2)
    assert log.read(["e_l", "step"]).e_l.isna().tolist() == [True, True, False]


def test_a_new_process_goes_on_with_the_numbering(root: Path) -> None:
    run = make(root)
    for step in (1, 2):
        run.log_metrics(step, "select", "train", "", {"loss": 1.0})
        run.flush()
    again = Run.open(run.path)
    again.log_metrics(3, "select", "train", "", {"loss": 1.0})
    again.flush()
    assert again.metrics().step.tolist() == [1, 2, 3]


def test_truncating_drops_later_steps_and_phases(root: Path) -> None:
    run = make(root)
    for phase, steps in (("select", range(1, 6)), ("refit", range(1, 4)), ("evaluate", [3])):
        for step in steps:
            run.log_metrics(step, phase, "train", "", {"loss": float(step)})
            run.log_quadruplets(quadruplets([step] * 2, phase=phase))
        run.flush()
    run.log_metrics(0, "done", "train", "", {"loss": 0.0})  # still buffered
    run.truncate_after("refit", 1)
    kept = [("select", step) for step in range(1, 6)] + [("refit", 1)]
    frame, quads = run.metrics(), run.quadruplets()
    assert list(zip(frame.phase, frame.step, strict=True)) == kept
    assert list(zip(quads.phase, quads.step, strict=True)) == [key for key in kept for _ in range(2)]
    run.log_metrics(2, "refit", "train", "", {"loss": 2.0})
    run.flush()
    assert run.metrics().step.tolist()[-2:] == [1, 2]
    run.truncate_after("select", 0)
    assert run.metrics().empty


@pytest.mark.parametrize("damage", ["cut", "empty", "unknown"])
def test_a_damaged_part_is_named(root: Path, damage: str) -> None:
    run = make(root)
    run.log_metrics(1, "select", "train", "", {"loss": 1.0})
    run.flush()
    (part,) = (run.path / "metrics.parquet").iterdir()
    if damage == "unknown":
        pd.DataFrame({"other": [1]}).to_parquet(part)
    else:
        part.write_bytes(part.read_bytes()[: 200 if damage == "cut" else 0])
    with pytest.raises(RunError, match=part.name):
        run.metrics()


def test_logging_every_step_is_cheap_and_flushes_by_itself(root: Path) -> None:
    run = make(root)
    frame, run._flushed = quadruplets([1] * 64), math.inf

    def log() -> None:
        for step in range(500):
            run.log_metrics(step, "select", "train", "", {"loss": 1.0, "E_m": 0.5, "lr": 1e-3})
            run.log_quadruplets(frame | {"step": step})

    assert calls_of(log) < 500 * 500, "a step takes 200"
    assert not list((run.path / "quadruplets.parquet").glob("*"))
    run._flushed = -math.inf
    run.log_metrics(500, "select", "train", "", {"loss": 1.0})
    assert len(run.quadruplets(["step"])) == 500 * 64


def test_the_model_comes_back_and_a_damaged_one_is_named(root: Path) -> None:
    run = make(root)
    with pytest.raises(RunError, match=r"model\.safetensors is missing"):
        run.model_state()
    weight = torch.randn(8, 3, 5, 5).contiguous(memory_format=torch.channels_last)
    state = {"conv": weight, "tied": weight, "half": torch.ones(2, dtype=torch.bfloat16), "count": torch.tensor(3)}
    run.save_model(state, {"trunk": "tiny", "dim": np.int64(4), "classes": ["a", "b"]})
    back = Run.open(run.path).model_state()
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], state[name]) and back[name].dtype == state[name].dtype for name in state)
    assert run.model_metadata() == {"trunk": "tiny", "dim": 4, "classes": ["a", "b"]}
    file = run.path / "model.safetensors"
    for content in (file.read_bytes()[:100], b"", b"not a model at all"):
        file.write_bytes(content)
        with pytest.raises(RunError, match=r"model\.safetensors is damaged or was not written by this lab"):
            run.model_state()


class Trap:
    def __reduce__(self):
        return (print, ("a checkpoint ran code",))


def test_the_checkpoint_comes_back_and_runs_no_code(root: Path, capsys: pytest.CaptureFixture) -> None:
    run = make(root)
    with pytest.raises(RunError, match=r"last\.ckpt is missing.*pddm-lab train quick"):
        run.load_checkpoint()
    run.log_metrics(1, "select", "train", "", {"loss": 1.0})
    best = {"best_step": 2, "best_value": 0.5, "error": 0.1}
    weights = {"model": {}, "kept": {}, "optimizer": {"state": {0: torch.ones(3)}}}
    run.save_checkpoint({"phase": "select", "step": 4, **best, **weights})
    assert len(run.metrics()) == 1, "the log is written no later than the checkpoint"
    back = run.load_checkpoint()
    assert back["step"] == 4
    assert torch.equal(back["optimizer"]["state"][0], torch.ones(3))
    file = run.path / "last.ckpt"
    for content in (file.read_bytes()[:50], b"", pickle.dumps(Trap(), protocol=2)):
        file.write_bytes(content)
        with pytest.raises(RunError, match=r"last\.ckpt is damaged or was not written by this lab"):
            run.load_checkpoint()
    run.save_checkpoint({"phase": "select", "step": -4, **best, **weights})
    with pytest.raises(RunError, match=r"last\.ckpt was not written by this lab: step: expected"):
        run.load_checkpoint()
    assert "ran code" not in capsys.readouterr().out


def test_a_run_whose_process_is_gone_is_interrupted(root: Path) -> None:
    run = make(root)
    assert Run.open(run.path).status == "running"
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    started = psutil.Process(child.pid).create_time()
    run.update(pid=child.pid, process_started=started)
    other = Run.open(run.path)
    assert other.status == "running"
    with pytest.raises(RunError, match=f"trained by process {child.pid}"):
        other.claim()
    run.update(process_started=started - 3600)
    assert Run.open(run.path).status == "interrupted", "the pid belongs to a later process"
    run.update(process_started=started)
    child.kill()
    while psutil.Process(child.pid).status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)
    assert Run.open(run.path).status == "interrupted", "a zombie trains nothing"
    child.wait()
    other = Run.open(run.path)
    assert other.status == "interrupted"
    assert f"pddm-lab resume {run.name}" in other.reason
    spent = other.seconds
    run.request_stop()
    other.claim()
    assert other.status == "running"
    assert other.seconds >= spent
    assert not other.stop_requested()


def test_a_run_of_another_machine_is_told_by_its_heartbeat(root: Path) -> None:
    run = make(root)
    run.update(host="elsewhere", pid=1)
    assert run.status == "running"
    run.update(heartbeat=time.time() - 601)
    assert run.status == "interrupted"
    run.update(status="failed", reason="Out of memory.")
    assert (run.status, run.reason) == ("failed", "Out of memory.")


def test_a_stop_can_be_asked_for(root: Path) -> None:
    run = make(root)
    assert not run.stop_requested()
    Run.open(run.path).request_stop()
    assert run.stop_requested()


def test_two_hundred_runs_are_listed_with_little_work(root: Path) -> None:
    assert list_runs(root) == []
    names = [make(root, run_name=f"run-{number}").name for number in range(200)]
    (root / "notes").mkdir()
    (root / "stray.txt").touch()
    assert [run.name for run in list_runs(root)] == names[::-1]
    assert calls_of(lambda: list_runs(root)) < 200 * 2000, "a run takes 750"


def test_listing_needs_no_torch() -> None:
    code = (
        "import sys; from pddm_lab.runs.compare import list_runs; list_runs(); "
        "sys.exit(any(name in sys.modules for name in sys.argv[1:]))"
    )
    subprocess.run([sys.executable, "-c", code, "torch", "pandas", "pyarrow"], check=True)


def test_a_comparison_holds_metrics_and_differing_choices(root: Path) -> None:
    first, second = make(root, seed=1, lr=0.1), make(root, seed=2, lr=0.1)
    first.set_metrics("unseen", "pddm", {"recall@1": 0.5, "nmi": math.nan})
    second.set_metrics("unseen", "pddm", {"recall@1": 0.75})
    both = compare_runs([first, second])
    rows = both.metrics.set_index(["run", "protocol", "similarity", "metric"]).value
    assert rows[second.name, "unseen", "pddm", "recall@1"] == 0.75
    assert math.isnan(rows[first.name, "unseen", "pddm", "nmi"])
    assert both.config.index.tolist() == ["seed"]
    assert both.config.loc["seed"].tolist() == [1, 2]
    assert compare_runs([]).metrics.empty
    second.update(pretrained={"unseen": {"recall@1": 0.8, "auc": math.nan}, "known": {"recall@1": 0.1}})
    rows = compare_runs([first, Run.open(second.path)]).metrics
    before = rows[rows["similarity"] == PRETRAINED]
    assert before[["run", "protocol", "metric"]].to_numpy().tolist() == [
        [second.name, "unseen", "recall@1"],
        [second.name, "unseen", "auc"],
    ], "of protocols that the run has metrics of"
    assert before["value"].iloc[0] == 0.8 and math.isnan(before["value"].iloc[1])
    assert set(second.info["metrics"]["unseen"]) == {"pddm"}, "the run's own metrics stay as they are"
    assert compare_runs([first]).config.empty


def test_a_gallery_that_is_not_there_is_an_error(root: Path) -> None:
    run = make(root)
    assert run.protocols() == []
    with pytest.raises(RunError, match="no unseen gallery"):
        run.gallery("unseen")


def test_runs_that_differ_in_their_seeds_alone_are_a_group(root: Path) -> None:
    elsewhere = str(root / "elsewhere")
    first, other = make(root, notes="a", run_name="a"), make(root, lr=0.1)
    second = make(root, seed=1, run_name="b", workers=1, data_root=elsewhere)
    again, split = make(root, seed=1), make(root, seed=2, split_seed=1)
    changed = Run.create(second.config.__class__(**second.config.to_dict() | {"run_name": "c"}),
                         DATASET | {"fingerprint": "cd34"}, "cpu", "32")  # fmt: skip
    actual = groups([first, other, second, again, split, changed])
    assert [[run.name for run in group.runs] for group in actual] == [
        ["a", "b", again.name], [other.name], [split.name], ["c"],
    ]  # fmt: skip
    assert (actual[0].name, actual[0].seeds) == ("a", [0, 1])
    assert measured_alike([first, other, second]) and not measured_alike([first, split])
    assert groups([]) == []


def test_a_spread_is_that_over_seeds(root: Path) -> None:
    values: dict[int, list[float]] = {0: [0.5], 1: [0.7, 0.9], 2: [0.2]}  # two runs of seed 1
    runs = [make(root, seed=3)]  # not measured yet
    for seed, of_seed in values.items():
        for value in of_seed:
            runs.append(make(root, seed=seed))
            runs[-1].set_metrics("unseen", "pddm", {"recall@1": value} | ({} if seed else {"nmi": 0.25}))
    alone = make(root, lr=0.5)
    alone.set_metrics("unseen", "pddm", {"recall@1": 0.1})
    actual = spread(groups([*runs, alone])).set_index(["run", "metric"])
    slow = [float(np.mean(of_seed)) for of_seed in values.values()]
    row = actual.loc[runs[0].name, "recall@1"]
    assert row["value"] == pytest.approx(sum(slow) / 3)
    assert row["std"] == pytest.approx(math.sqrt(sum((one - sum(slow) / 3) ** 2 for one in slow) / 2))
    assert row["seeds"] == 3
    for key in ((runs[0].name, "nmi"), (alone.name, "recall@1")):
        assert math.isnan(actual.loc[key]["std"]) and actual.loc[key]["seeds"] == 1
    assert spread([]).empty


def test_the_lead_over_d_is_that_of_the_same_seeds(root: Path) -> None:
    values = {0: (0.5, 0.53), 1: (0.7, 0.78), 2: (0.2, 0.21)}
    runs = [make(root, seed=seed) for seed in values]
    for run, (of_d, own) in zip(runs, values.values(), strict=True):
        run.set_metrics("unseen", "euclidean", {"map@r": of_d})
        run.set_metrics("unseen", "pddm", {"map@r": own})
    assert lead_over_d(runs[0], "unseen") == pytest.approx(0.03) and lead_over_d(runs[0], "known") is None
    (lead,) = seed_leads(groups(runs)).items()
    differences = [own - of_d for of_d, own in values.values()]
    mean, half = mean_interval(differences)
    assert lead[0] == (runs[0].name, "unseen", "pddm")
    assert lead[1] == pytest.approx((sum(differences) / 3, mean - half, mean + half))
    assert seed_leads(groups(runs[:1])) == {} and seed_leads([]) == {}


def test_curves_are_averaged_step_by_step(root: Path) -> None:
    runs = [make(root, seed=seed) for seed in (0, 1)]
    for number, run in enumerate(runs):
        for step in (10, 20, 30)[: 3 - number]:
            run.log_metrics(step, "select", "validation", "pddm", {"map@r": 0.1 * step + number})
        run.flush()
    logs = {run.name: run.metrics().assign(seconds=lambda log, n=number: log["step"] + n)
            for number, run in enumerate(runs)}  # fmt: skip
    actual = mean_log(groups(runs), logs)
    assert actual["run"].unique().tolist() == [runs[0].name]
    np.testing.assert_allclose(actual["value"], [1.5, 2.5, 3.0])
    np.testing.assert_allclose(actual["seconds"], [10.5, 20.5, 30.0])
    np.testing.assert_allclose(actual["std"], [math.sqrt(0.5), math.sqrt(0.5), math.nan])
    assert actual["seeds"].tolist() == [2, 2, 1]


def test_notes_begin_with_those_of_the_config_and_are_kept_apart_from_run_json(root: Path) -> None:
    run = make(root, notes="a first try")
    reader = Run.open(run.path)
    assert reader.notes == "a first try"
    reader.write_notes("α is too small\nsee below")
    run.update(step=7)
    assert Run.open(run.path).notes == "α is too small\nsee below"
    assert Run.open(run.path).info["step"] == 7
    reader.write_notes("")
    assert run.notes == "", "notes that were emptied stay empty"
    assert not list(run.path.glob(".*.tmp"))

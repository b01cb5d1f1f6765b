import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from digit_pictures import write_digits
from no_maps import NoMaps
from PIL import Image
from safetensors.numpy import load_file

from pddm_lab.applications.feature_spaces import pooled_features
from pddm_lab.config import PRESETS, TrainConfig
from pddm_lab.data.dataset import read_dataset
from pddm_lab.data.images import open_image
from pddm_lab.data.splits import hold_out_classes
from pddm_lab.errors import ConfigError, RunError
from pddm_lab.gallery.files import THUMB_SIDE, thumbnail
from pddm_lab.metrics.retrieval import evaluate
from pddm_lab.model import trunks
from pddm_lab.model.embedding import MetricModel
from pddm_lab.model.engine import Engine
from pddm_lab.model.features import INFERENCE_BATCH, file_features
from pddm_lab.runs.compare import list_runs
from pddm_lab.runs.model import load_model, load_similarities
from pddm_lab.runs.run import Run
from pddm_lab.runs.versions import versions
from pddm_lab.similarities import SIMILARITIES
from pddm_lab.training.finish import Embedder, finish, paths_of
from pddm_lab.training.loop import Loop, learning_rate_factor, resolve_device
from pddm_lab.training.phases import RunTraining
from pddm_lab.training.trainer import resume, train


@pytest.fixture(scope="module")
def few(digits_config, tmp_path_factory):
    """A short training on few digits, in a root that holds their features afterwards."""
    pictures, root = (tmp_path_factory.mktemp(name) / "few" for name in ("pictures", "runs"))
    return dataclasses.replace(
        digits_config, dataset=f"folder:{write_digits(pictures, 20)}", runs_root=str(root), run_name="run", steps=12,
        eval_every=4,
    )  # fmt: skip


@pytest.fixture(scope="module")
def few_run(few):
    """What `config` trains."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pddm_lab.training.finish.start_map", NoMaps)
        return train(few, progress=False)


@pytest.fixture
def config(few, few_run, tmp_path, no_maps):
    """A short training in a root of its own, on the features that `few_run` has computed."""
    (tmp_path / ".features").symlink_to(f"{few.runs_root}/.features")
    return dataclasses.replace(few, runs_root=str(tmp_path))


JOINT = [name for name, value in PRESETS["joint"].to_dict().items() if value != getattr(PRESETS["quick"], name)]


def as_preset(config, preset):
    """A configuration of the preset joint with what another preset says of the training."""
    return dataclasses.replace(config, **{name: getattr(PRESETS[preset], name) for name in JOINT} | {"preset": preset})


def losses(run, phase="refit"):
    log = run.metrics()
    return log[(log.phase == phase) & (log.metric == "loss")].value.to_numpy()


def test_a_finished_run_holds_everything(digits_run):
    assert digits_run.status == "finished" and digits_run.info["phase"] == "done"
    assert 0 < digits_run.info["best_step"] <= digits_run.config.steps
    for protocol in ("unseen", "known"):
        assert set(digits_run.info["metrics"][protocol]) == set(SIMILARITIES)
        for values in digits_run.info["metrics"][protocol].values():
            assert 0 < values["map@r"] <= values["r_precision"] <= 1 and 0.5 < values["auc"] <= 1
    assert "nmi" in digits_run.info["metrics"]["unseen"]["euclidean"]
    log = digits_run.metrics()
    assert set(log[log.protocol == "train"].metric) >= {"loss", "E_m", "E_e", "mahalanobis_loss", "lr", "quadruplets"}
    assert set(log[log.phase == "select"].step) == set(range(digits_run.config.steps + 1))


def test_an_item_has_the_same_thumbnail_in_every_gallery(digits_run, data_root):
    dataset = read_dataset("digits", data_root)
    file_of = dict(zip(dataset.ids, paths_of(dataset), strict=True))
    unseen, known, catalogue = (digits_run.gallery(name) for name in ("unseen", "known", "catalogue"))
    assert {*catalogue.items["id"]} == {*unseen.items["id"]} | {*known.items["id"]}
    for gallery in (unseen, known):
        for row, item in enumerate(gallery.items["id"]):
            picture = thumbnail(open_image(file_of[item], 2 * THUMB_SIDE))
            assert gallery.thumb(row) == catalogue.thumb(catalogue.index_of(item)) == picture


def test_the_pretrained_features_are_measured_beside_the_run(digits_run, data_root):
    assert set(digits_run.info["pretrained"]) == {"unseen", "known"}
    config, data = digits_run.config, read_dataset("digits", data_root)
    pooled = pooled_features(config, paths_of(data)).double()
    features = F.normalize((1 - 2.0 * (pooled < 0)) * pooled.abs().clamp(min=1e-6) ** config.pool_power, dim=1)
    for protocol in (data.unseen, data.known):
        assert protocol
        hits = []
        for query in protocol.query.tolist():
            others = protocol.gallery[protocol.gallery != query]
            nearest = others[(features[others] - features[query]).norm(dim=1).argmin()]
            hits.append(data.labels[nearest] == data.labels[query])
        assert digits_run.info["pretrained"][protocol.name]["recall@1"] == pytest.approx(np.mean(hits), abs=2e-3)
        assert 0 < digits_run.info["pretrained"][protocol.name]["map@r"] < 1


def test_a_trained_trunk_is_measured_with_the_weights_it_started_from(config):
    random = dataclasses.replace(config, freeze_trunk=False, weights="none", seed=3)
    torch.manual_seed(3)
    start = MetricModel(random).embedding.trunk
    dataset = read_dataset(config.dataset, config.data_root)
    items = dataset.train[::2]
    embed = Embedder(dataset, None, Engine(start, size=32, device=torch.device("cpu")), resize=32)
    kept = embed.pooled_before_training(random, items, Path(config.runs_root) / ".features")
    expected = file_features(embed.engine, [dataset.path(item) for item in items], resize=32)
    torch.testing.assert_close(kept, torch.from_numpy(expected), rtol=1e-3, atol=1e-4)


def test_the_stored_metrics_are_those_of_the_stored_model_and_gallery(digits_run):
    gallery = digits_run.gallery("unseen")
    similarity = load_model(digits_run).similarity("pddm")
    features, labels = np.array(gallery.features), gallery.items.label.to_numpy()
    again = evaluate(similarity, features, features, labels, labels, leave_one_out=True).metrics
    assert again["map@r"] == pytest.approx(digits_run.info["metrics"]["unseen"]["pddm"]["map@r"], abs=1e-4)


def test_only_training_classes_are_mined_and_selection_leaves_its_classes_out(digits_run, data_root):
    data = read_dataset("digits", data_root, known_query_share=0.2, split_seed=0)
    fit, validation = hold_out_classes(data.labels, data.train, digits_run.config.val_class_share, 0)
    quads = digits_run.quadruplets()
    for phase, allowed in (("select", fit), ("refit", data.train)):
        mined = set(quads[quads.phase == phase][["i", "j", "k", "l"]].to_numpy().ravel())
        assert mined <= {data.ids[item] for item in allowed}
    assert not set(data.labels[fit]) & set(data.labels[validation])
    assert data.unseen
    assert not set(data.labels[data.unseen.query]) & set(data.labels[data.train])


def test_the_same_seed_gives_the_same_run_and_another_seed_another(few_run, config):
    again = train(config, progress=False)
    other = train(dataclasses.replace(config, run_name="other", seed=1), progress=False)
    np.testing.assert_array_equal(losses(few_run), losses(again))
    assert not np.array_equal(losses(few_run), losses(other))


@pytest.mark.parametrize(("preset", "stop_after"), [("quick", ("select", 7)), ("joint", ("refit", 3))])
def test_a_resumed_run_equals_an_uninterrupted_one(config, monkeypatch, preset, stop_after):
    config = as_preset(dataclasses.replace(config, unit_dropout=0.2, val_class_share=0.4), preset)
    whole = train(config, progress=False)
    broken = dataclasses.replace(config, run_name="broken")
    log = RunTraining._log
    done: list[bool] = []

    def pull_the_plug(self, phase, loop, result):
        log(self, phase, loop, result)
        if (phase, loop.step) == stop_after and not done:
            done.append(True)
            raise RuntimeError("power cut")

    monkeypatch.setattr(RunTraining, "_log", pull_the_plug)
    with pytest.raises(RuntimeError, match="power cut"):
        train(broken, progress=False)
    failed = Run.open(f"{config.runs_root}/broken")
    assert failed.status == "failed" and failed.reason == "RuntimeError: power cut" and not failed.info["metrics"]
    resumed = resume(failed.path, progress=False)
    assert resumed.status == "finished" and resumed.reason == ""
    for phase in ("select", "refit"):
        np.testing.assert_array_equal(losses(resumed, phase), losses(whole, phase))
    assert len(resumed.quadruplets()) == len(whole.quadruplets())
    assert resumed.info["metrics"]["unseen"] == whole.info["metrics"]["unseen"]


def test_a_rivals_loss_trains_a_run_that_resumes_with_its_proxies(config, monkeypatch):
    config = dataclasses.replace(config, loss="arcface", loss_options="scale=16", steps=6, eval_every=2, refit="none")
    whole = train(config, progress=False)
    log = whole.metrics()
    assert set(log[log.protocol == "train"].metric) >= {"loss", "pddm_loss", "mahalanobis_loss"}
    assert len(whole.quadruplets()) and set(whole.info["metrics"]["unseen"]) == set(SIMILARITIES)
    assert not [name for name in whole.model_state() if "rival" in name or "loss" in name], "proxies aren't deployed"
    stops = iter([False] * 4 + [True])  # after the features, then after each step
    monkeypatch.setattr(Run, "stop_requested", lambda self: next(stops, False))
    stopped = train(dataclasses.replace(config, run_name="stopped"), progress=False)
    assert stopped.status == "stopped" and "rival" in stopped.load_checkpoint()
    resumed = resume(stopped.path, progress=False)
    np.testing.assert_array_equal(losses(resumed, "select"), losses(whole, "select"))
    for name, value in whole.model_state().items():
        assert torch.equal(resumed.model_state()[name], value), name


def test_a_run_that_was_stopped_on_request_resumes(config, monkeypatch):
    requests = iter([False, True])  # checked after the features, and after each step
    monkeypatch.setattr(Run, "stop_requested", lambda self: next(requests, False))
    run = train(config, progress=False)
    assert run.status == "stopped" and run.info["step"] == 1 and run.info["metrics"] == {}
    assert resume(run.path, progress=False).status == "finished"
    with pytest.raises(RunError, match="is finished"):
        resume(run.path)


def test_a_stop_keeps_the_features_computed_so_far(config, monkeypatch):
    config = dataclasses.replace(config, resize=33, views=1)  # these features nobody has yet
    features = Path(config.runs_root, ".features").resolve()
    before, calls = set(features.iterdir()), iter(range(10**6))
    monkeypatch.setattr(Run, "stop_requested", lambda self: next(calls) >= 2)
    run = train(config, progress=False)
    assert (run.status, run.reason, run.info["step"]) == ("stopped", "Stopped on request.", 0)
    (kept,) = set(features.iterdir()) - before
    assert 2 * INFERENCE_BATCH <= len(load_file(kept)["features"]) <= 4 * INFERENCE_BATCH
    monkeypatch.setattr(Run, "stop_requested", lambda self: False)
    assert resume(run.path, progress=False).status == "finished"


def test_a_run_that_was_stopped_while_measuring_resumes(config, monkeypatch):
    monkeypatch.setattr(Run, "stop_requested", lambda self: self.info["phase"] == "gallery")
    run = train(config, progress=False)
    assert run.status == "stopped" and run.protocols() == []
    monkeypatch.setattr(Run, "stop_requested", lambda self: False)
    resumed = resume(run.path, progress=False)
    assert resumed.status == "finished" and resumed.protocols() == ["unseen", "known"]
    log = resumed.metrics()
    assert not log.duplicated(["phase", "step", "protocol", "similarity", "metric"]).any()


@pytest.mark.parametrize(
    ("preset", "loss"), [("quick", "quadruplet"), pytest.param("joint", "arcface", marks=pytest.mark.slow)]
)
def test_two_processes_compute_what_one_does(config, preset, loss):
    config = as_preset(dataclasses.replace(config, loss=loss), preset)
    one = train(config, progress=False)
    two = train(dataclasses.replace(config, run_name="two", devices=2), progress=False)
    assert two.status == "finished"
    np.testing.assert_allclose(losses(two), losses(one), rtol=1e-3)
    logs = [run.quadruplets()[["step", "phase", "i", "j", "k", "l"]] for run in (one, two)]
    mined = [log[log["step"] == 1].values.tolist() for log in logs]
    assert mined[0] == mined[1] != [], "each process embeds a half of the batch, and both mine all of it"
    for similarity in ("euclidean", "pddm"):
        values = [run.info["metrics"]["unseen"][similarity]["map@r"] for run in (one, two)]
        assert values[0] == pytest.approx(values[1], abs=5e-3)


def test_fine_tuning_trains_the_trunk(few_run, config):
    config = dataclasses.replace(
        config, freeze_trunk=False, steps=2, eval_every=2, images_per_class=2, workers=1,
        clip_norm=1.0, schedule="cosine", warmup_steps=1, val_class_share=0.0,
    )  # fmt: skip
    run = train(config, progress=False)
    before, after = load_model(dataclasses_run(run, steps=0)), load_model(run)
    stem = "embedding.trunk.network._conv_stem.weight"
    assert not torch.equal(before.state_dict()[stem], after.state_dict()[stem])
    log = run.metrics()
    assert "grad_norm" in set(log.metric) and run.info["best_step"] == 2
    assert run.info["pretrained"] == few_run.info["pretrained"], "measured with the weights it started from"


def dataclasses_run(run, steps):
    """The same run with the weights it started from."""
    from pddm_lab.model.embedding import MetricModel

    class Start:
        config, name = run.config, run.name

        def model_state(self):
            torch.manual_seed(run.config.seed)
            return MetricModel(run.config).state_dict()

    return Start()


def test_without_a_refit_the_best_step_of_the_selection_is_kept(config):
    run = train(dataclasses.replace(config, refit="none"), progress=False)
    assert set(run.metrics().phase) == {"select", "evaluate"}
    assert run.model_metadata()["step"] == run.info["best_step"]


@pytest.mark.parametrize(
    ("schedule", "expected"), [("constant", (0.5, 1, 1, 1)), ("cosine", (0.5, 1, 0.5, 0)), ("step", (0.5, 1, 1, 0.01))]
)
def test_learning_rate_schedules(schedule, expected):
    config = TrainConfig(steps=102, warmup_steps=2, schedule=schedule)
    factors = [learning_rate_factor(config, step) for step in (1, 2, 52, 102)]
    assert factors == pytest.approx(expected, abs=1e-9)


def test_devices_and_precision_resolve_or_are_an_error(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device(TrainConfig(freeze_trunk=False)) == (torch.device("cpu"), "32")
    with pytest.raises(ConfigError, match="there is none"):
        resolve_device(TrainConfig(device="cuda"))
    with pytest.raises(ConfigError, match="expects a GPU"):
        resolve_device(TrainConfig(precision="fp16"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    assert resolve_device(TrainConfig()) == (torch.device("cuda"), "bf16")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: False)
    assert resolve_device(TrainConfig()) == (torch.device("cuda"), "fp16")


def test_a_batch_that_the_devices_cannot_share_is_refused_before_a_run_is_made(config):
    with pytest.raises(ConfigError, match="doesn't divide"):
        train(dataclasses.replace(config, devices=3), progress=False)
    assert not list_runs(config.runs_root)


def test_what_was_given_relatively_resumes_from_any_folder(tmp_path, monkeypatch):
    torch.save(trunks._efficientnet_lite("efficientnet_lite0", "none").state_dict(), tmp_path / "trunk.pth")
    for number, colour in enumerate(np.random.default_rng(0).integers(0, 255, (24, 3))):
        folder = tmp_path / "pictures" / f"class {number % 6}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 32), tuple(colour.tolist())).save(folder / f"{number}.png")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    stops = iter([True])  # once, after the first step
    monkeypatch.setattr(Run, "stop_requested", lambda self: self.info["phase"] == "refit" and next(stops, False))
    monkeypatch.setattr("pddm_lab.training.phases.finish", lambda *_: None)
    few = TrainConfig(
        dataset="folder:pictures", data_root="data", runs_root="runs", weights="trunk.pth", run_name="run", views=1,
        steps=3, image_size=32, resize=32, classes_per_batch=2, images_per_class=2, val_class_share=0.0, workers=0,
    )  # fmt: skip
    run = train(few, progress=False)
    assert run.status == "stopped" and run.config.weights == str(tmp_path / "trunk.pth")
    monkeypatch.chdir(tmp_path / "elsewhere")
    path = tmp_path / "runs" / "run"
    Run.open(path).update(device="cuda", precision="fp16", versions={"torch": "1.0"})
    resumed = resume(path, progress=False)
    assert resumed.info["step"] == 3 and not list((tmp_path / "elsewhere").iterdir())
    assert (resumed.info["device"], resumed.info["precision"]) == ("cpu", resolve_device(few)[1])
    assert resumed.info["versions"]["torch"] == versions()["torch"] != "1.0"


def test_a_changed_data_set_is_not_resumed(config, monkeypatch):
    monkeypatch.setattr(Run, "stop_requested", lambda self: True)
    run = train(config, progress=False)
    run.update(dataset={**run.info["dataset"], "fingerprint": "other"})
    with pytest.raises(RunError, match="has changed"):
        resume(run.path)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_training_on_a_gpu_in_mixed_precision(config):
    run = train(dataclasses.replace(config, device="cuda", freeze_trunk=False, steps=4, eval_every=2), progress=False)
    assert run.status == "finished" and run.info["device"].startswith("cuda")


def test_a_head_trains_on_one_thread(config, monkeypatch):
    threads: list[int] = []
    take_step = Loop.take_step

    def count(self):
        threads.append(torch.get_num_threads())
        return take_step(self)

    monkeypatch.setattr(Loop, "take_step", count)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        train(dataclasses.replace(config, steps=2, eval_every=2), progress=False)
        assert threads and set(threads) == {1}
        assert torch.get_num_threads() == 2, "all that follows has its threads back"
    finally:
        torch.set_num_threads(before)


def test_a_map_that_cannot_be_drawn_is_a_warning(config, monkeypatch):
    class Killed(NoMaps):
        def wait(self):
            raise RunError("The map could not be drawn: killed")

    monkeypatch.setattr("pddm_lab.training.finish.start_map", Killed)
    earlier = "The features collapsed: train with a lower learning rate."

    def warned_before(run, *rest):
        run.update(warnings=[earlier])
        finish(run, *rest)

    monkeypatch.setattr("pddm_lab.training.phases.finish", warned_before)
    run = train(config, progress=False)
    assert run.status == "finished" and run.info["warnings"] == [earlier, "The map could not be drawn: killed"]


def test_similarities_load_without_the_trunk(digits_run) -> None:
    a, b = torch.nn.functional.normalize(torch.randn(2, 9, digits_run.config.dim), dim=-1)
    model = load_model(digits_run)
    for name, similarity in load_similarities(digits_run).items():
        torch.testing.assert_close(similarity.pairs(a, b), model.similarity(name).pairs(a, b))

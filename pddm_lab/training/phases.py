"""The phases of a run's training in one process: choose the best step, retrain on all classes, then measure.

`select` holds some training classes out and finds the step at which they are retrieved best. `refit` starts again and
trains on all training classes for as many passes. `local` fits the similarity on local structure, where the run has
one. `evaluate` and `gallery` measure the result under both protocols and save it. Only `evaluate` looks at the test
classes, once.
"""

from __future__ import annotations

import copy
import logging
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, nullcontext, suppress
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from lightning_fabric import Fabric
from torch import Tensor
from tqdm import tqdm

from pddm_lab.data.dataset import Dataset
from pddm_lab.data.imported import read_imported
from pddm_lab.data.near_duplicates import near_duplicate_groups
from pddm_lab.data.splits import hold_out_classes, without_lone_items
from pddm_lab.errors import DataError, RunError
from pddm_lab.metrics.retrieval import evaluate
from pddm_lab.model.embedding import MetricModel, signed_power
from pddm_lab.model.engine import Engine
from pddm_lab.model.features import trunk_features
from pddm_lab.model.similarity import Euclidean
from pddm_lab.progress import Progress, Stopped, progress_bars
from pddm_lab.runs.log import quadruplet_columns
from pddm_lab.runs.model import load_model
from pddm_lab.runs.run import Run
from pddm_lab.training import health
from pddm_lab.training.finish import Embedder, finish, loading_maps, paths_of
from pddm_lab.training.local_fit import FIXED, FIXED_IMPORTED, fit_local, fold_embeddings
from pddm_lab.training.loop import Loop, image_inputs, resolve_device, torch_threads, use_correction, view_inputs
from pddm_lab.training.objectives import Step
from pddm_lab.training.shares import UNIT_SHARES, choose_head_share, choose_sure_gain, precisions, used_head

MOST_LOOKED_AT = 2000
"""Training items whose features tell whether an embedding collapsed."""
FABRIC_PRECISION = {"32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}


class RunTraining:
    """One process's part in a run's training; rank 0 measures and writes the run."""

    def __init__(self, run: Run, dataset: Dataset, progress: bool) -> None:
        self.run, self.config, self.dataset = run, run.config, dataset
        device, self.precision = resolve_device(self.config)
        self.fabric = Fabric(
            accelerator=device.type, devices=self.config.devices, strategy="ddp" if self.config.devices > 1 else "auto",
            # A frozen trunk's features are computed beforehand; the head is small and trains in 32 bits.
            precision="32-true" if self.config.freeze_trunk else FABRIC_PRECISION[self.precision],  # type: ignore[arg-type]
        )  # fmt: skip
        self.fabric.launch()
        self.writes = self.fabric.is_global_zero
        self.shown = progress and self.writes
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it cuBLAS can't be deterministic
        torch.use_deterministic_algorithms(self.config.deterministic)
        self.stopped = False
        self._started: dict[str, Tensor] | None = None
        self.ids = np.array(dataset.ids, dtype=object)
        self.class_of = np.array(dataset.class_names, dtype=object)[dataset.labels]

    def train(self) -> None:
        """Do what the run's checkpoint says isn't done yet, until the end or a request to stop."""
        try:
            self._train()
        except Stopped:
            self.stopped = True
        if self.stopped and self.writes:
            self.run.flush()
            self.run.update(status="stopped", reason="Stopped on request.")

    def _train(self) -> None:
        config, labels, train = self.config, self.dataset.labels, self.dataset.train
        checkpoint = self.run.load_checkpoint() if (self.run.path / "last.ckpt").is_file() else {}
        if self.writes:
            self.run.truncate_after(checkpoint.get("phase", "select"), checkpoint.get("step", -1))
        model = self._new_model()
        pooled, device = None, self.fabric.device
        engine = Engine(model.embedding.trunk, size=config.image_size, device=device, precision=self.precision)
        if config.is_imported:
            pooled = F.normalize(torch.tensor(read_imported(self.run.path).features).to(device), dim=1)
            self.views = pooled[torch.from_numpy(train)][None]
        elif config.freeze_trunk:
            others = dict.fromkeys(range(1, config.views), train)
            pooled, *views = self._trunk_features(engine, {0: np.arange(len(self.dataset))} | others)
            self.views = torch.stack([pooled[torch.from_numpy(train)], *views])
        self.embed = Embedder(self.dataset, pooled, engine, config.resize)
        fit, validation = hold_out_classes(labels, train, config.val_class_share, config.split_seed)
        steps = config.steps
        maps = loading_maps() if self.writes and config.freeze_trunk else None
        # A head's tensors are small. Several threads gain little, and wait for each other where another process runs.
        with torch_threads(1) if config.freeze_trunk else nullcontext():
            self._choose_head_share(model, checkpoint)
            if not len(validation) and config.val_class_share:
                self._warn(health.selection(config, 0.0, {}, 0, 0))
            if len(validation):
                if checkpoint.get("phase") == "refit":
                    steps = checkpoint["best_step"]
                else:
                    steps = self._fit("select", model, fit, validation, steps, checkpoint)
                    checkpoint = {}
                    if config.refit == "passes":
                        steps = round(steps * len(train) / len(fit))
            if len(train) and not self.stopped and (config.refit != "none" or not len(validation)):
                self._fit("refit", self._new_model(), train, validation[:0], steps, checkpoint)
        if not len(train):  # features without labels: nothing can be mined or learned
            use_correction(model, 0.0)
            self._save_model(model, 0)
        if not self.stopped and config.local_structure:
            self._fit_local(steps)
        if self.writes and not self.stopped:
            finish(
                self.run, load_model(self.run).to(self.fabric.device), self.embed, self._bars, maps,
                lambda: self._warn(health.correction(config, self.shares["unit_share"], self.run.info["metrics"])),
            )  # fmt: skip

    def _new_model(self) -> MetricModel:
        """The model with its first weights: the same for every phase and rank."""
        torch.manual_seed(self.config.seed)
        model = MetricModel(self.config)
        model.embedding.trunk.requires_grad_(not self.config.freeze_trunk)
        return model.to(self.fabric.device)

    def _start(self, model: MetricModel) -> MetricModel:
        """A new model at step 0: the parts that are fitted to the trunk's features of the training items are fitted."""
        embedding, principal = model.embedding, self.config.start == "principal"
        if not principal and embedding.pretrained is None:
            return model
        if self._started is None:
            if self.embed.pooled is None:
                engine = self.embed.engine.of(embedding.trunk)
                pooled = self._trunk_features(engine, {0: self.dataset.train})[0]
            else:
                pooled = self.embed.pooled[torch.from_numpy(self.dataset.train)]
            embedding.fit_start(pooled, principal)
            state = embedding.state_dict()
            self._started = {name: state[name].clone() for name in state if not name.startswith("trunk.")}
        embedding.load_state_dict(self._started, strict=False)
        return model

    def _trunk_features(
        self, engine: Engine, views: Mapping[int, Int[np.ndarray, " items"]]
    ) -> list[Float[Tensor, "items trunk_dim"]]:
        """The trunk's features of some items in each view, see `trunk_features`."""
        # Rank 0 computes missing features, the others read them. A rank that stops must still reach the barrier.
        stopped = True
        with self.fabric.rank_zero_first(), suppress(Stopped), self._bars("trunk features") as report:
            features = trunk_features(
                engine, paths_of(self.dataset), self.run.path.parent / ".features", resize=self.config.resize,
                progress=report, views=views, augmentation=self.config.augmentation,
            )  # fmt: skip
            stopped = self.run.stop_requested()
        if self.fabric.broadcast(self.writes and stopped):
            raise Stopped
        return [torch.from_numpy(features[view]).to(engine.device) for view in views]

    def _choose_head_share(self, model: MetricModel, checkpoint: Mapping[str, Any]) -> None:
        """How far the head goes from its start, chosen on held-out classes by all ranks together."""
        config = self.config
        if config.is_imported:  # no head, and no correction before held-out classes have chosen one
            self.shares = {"head_share": 1.0, "unit_share": checkpoint.get("unit_share", 0.0)}
            return
        if not config.interpolates or "head_share" in checkpoint:
            self.shares = {name: checkpoint.get(name, 1.0) for name in ("head_share", "unit_share")}
            return
        assert self.embed.pooled is not None
        with self._bars("share of the training", every_rank=True) as report:
            share, values = choose_head_share(
                lambda: copy.deepcopy(self._start(model)), config, self.dataset.labels, self.dataset.train,
                self.embed.pooled, view_inputs(self.views, self.dataset.train, config.seed), self.fabric, report,
            )  # fmt: skip
        self._note_share("head", share, values)
        self.shares = {"head_share": share, "unit_share": 1.0 if values else 0.0}

    def _choose_unit_share(self, loop: Loop, validation: np.ndarray) -> None:
        """How much of the unit's correction of D is used: rank 0 chooses, on the validation classes."""
        chosen: tuple[float, dict[float, float]] = (1.0, {})
        if self.writes:
            labels, rows = torch.from_numpy(self.dataset.labels[validation]), []
            for share in UNIT_SHARES:
                loop.unit_share = share
                model = loop.used()
                rows.append(precisions(model.similarity("pddm"), self.embed(model, validation), labels))
            queries = self.dataset.labels[without_lone_items(self.dataset.labels, validation)]
            chosen = choose_sure_gain(UNIT_SHARES, torch.stack(rows), torch.from_numpy(queries))
            self._note_share("unit", *chosen)
        loop.unit_share = self.shares["unit_share"] = self.fabric.broadcast(chosen[0])

    def _note_share(self, part: str, share: float, values: Mapping[float, float]) -> None:
        if not self.writes:
            return
        noted = {"share": share, "map@r": {f"{one:g}": value for one, value in values.items()}}
        self.run.update(shares={**(self.run.info.get("shares") or {}), part: noted})

    def _fit_local(self, steps: int) -> None:
        """Fit the similarity on local structure: all ranks train the folds' heads, rank 0 does the rest."""
        config, dataset, pooled, of_folds = self.config, self.dataset, self.embed.pooled, []
        if self.writes:
            self.run.update(phase="local")
        with self.fabric.rank_zero_first(), progress_bars(self.shown)("near-duplicates") as report:
            cache = self.run.path.parent / ".features"
            try:
                groups = near_duplicate_groups(dataset, dataset.train, cache, progress=report)
            except DataError:
                if not config.is_imported:
                    raise
                groups = np.arange(len(dataset.train))  # features without pictures
        try:
            if pooled is not None and not config.is_imported:
                timed, model = replace(config, steps=max(steps, 1)), self._new_model()
                with torch_threads(1), self._bars("heads of the folds", every_rank=True) as report:
                    inputs = view_inputs(self.views, dataset.train, config.seed)
                    of_folds = fold_embeddings(
                        lambda: copy.deepcopy(self._start(model)), timed, self.shares["head_share"], dataset.labels,
                        dataset.train, groups, pooled, inputs, self.fabric, report,
                    )  # fmt: skip
            if not self.writes:
                return
            with self._bars("training features") as report:
                features = self.embed(load_model(self.run).to(self.fabric.device), dataset.train, report)
            with self._bars("local structure") as report:
                pretrained = None if config.is_imported else pooled
                fitted = fit_local(
                    config, features, dataset.labels, dataset.train, groups, pretrained, of_folds, report
                )  # fmt: skip
        except DataError as problem:  # the run is whole without it
            self._warn([f"There is no similarity on local structure: {problem}"])
        else:
            fitted.save(self.run)
            self._warn([] if of_folds else [FIXED_IMPORTED if config.is_imported else FIXED])

    @contextmanager
    def _bars(self, what: str, every_rank: bool = False) -> Iterator[Progress]:
        """A progress bar that raises `Stopped` when a stop is requested; with `every_rank` on all ranks together."""
        with progress_bars(self.shown)(what) as report:

            def watched(done: int, total: int, of: str) -> None:
                report(done, total, of)
                stop = self.writes and self.run.stop_requested() if every_rank else self.run.stop_requested()
                if self.fabric.broadcast(stop) if every_rank else stop:
                    raise Stopped

            yield watched

    def _fit(
        self, phase: str, model: MetricModel, items: np.ndarray, validation: np.ndarray, steps: int,
        checkpoint: dict[str, Any],
    ) -> int:  # fmt: skip
        """Train a model on items, from its first step or from a checkpoint; returns its best step."""
        config, run = self.config, self.run
        timed = replace(config, steps=max(steps, 1))  # no step at all where training did nothing but harm
        if not checkpoint or self.embed.pooled is not None:
            self._start(model)
        head = None
        if self.embed.pooled is None:
            inputs = image_inputs(paths_of(self.dataset), timed, self.fabric.device)
        else:
            inputs = view_inputs(self.views, self.dataset.train, config.seed)
            head = used_head(config, self.shares["head_share"], self.embed.pooled, self.dataset.labels, items)
        loop = Loop(
            model, timed, self.dataset.labels, items, inputs, fabric=self.fabric,
            used_head=head, unit_share=1.0 if len(validation) else self.shares["unit_share"],
        )  # fmt: skip
        best: dict[str, Any] = {"best_step": 0 if len(validation) else steps, "best_value": -math.inf, "error": 0.0}
        best |= {"pretrained": self._pretrained_value(validation), "values": {}} if len(validation) else {}
        if checkpoint:
            best |= {key: checkpoint[key] for key in best if key in checkpoint}
            try:
                loop.load_state_dict(checkpoint)
            except Exception as problem:  # torch raises many kinds for another model's state; all mean the same here
                reason = " ".join(str(problem).split())[:300]
                raise RunError(f"{run.path / 'last.ckpt'} doesn't match the run's configuration: {reason}") from problem
        if self.writes:
            run.update(phase=phase, step=loop.step, steps_total=steps)
        if len(validation) and not checkpoint:
            value, error = self._validate(phase, 0, loop.used(), validation)
            best["values"][0] = value
            if config.start == "principal":  # not random: the training has something to lose
                best |= {"best_value": value, "error": error}
                self._save_model(loop.used(), 0)
        with closing(loop):
            self._take_steps(phase, loop, items, validation, steps, best)
        if self.stopped:
            return int(best["best_step"])
        if len(validation):
            classes = len(np.unique(self.dataset.labels[validation]))
            self._warn(health.selection(config, best["pretrained"], best["values"], int(best["best_step"]), classes))
        some = items[:: -(-len(items) // MOST_LOOKED_AT)]
        self._warn(health.collapse(config, self.embed(loop.kept, some), self.embed(loop.used(), some)))
        if len(validation) and config.interpolates and config.detaches_unit:
            self._choose_unit_share(loop, validation)
        if not len(validation) or config.interpolates:
            self._save_model(loop.used(), steps)
        return int(best["best_step"])

    def _take_steps(
        self, phase: str, loop: Loop, items: np.ndarray, validation: np.ndarray, steps: int, best: dict[str, Any]
    ) -> None:  # fmt: skip
        """Train to the last step or a request to stop, and keep in `best` what the validation classes say."""
        config, run = self.config, self.run
        what = phase if config.learns else "mine quadruplets"
        bar = tqdm(total=steps, initial=loop.step, desc=what, unit="step", disable=not self.shown, mininterval=0.5)
        while loop.step < steps and not self.stopped:
            result = loop.take_step()
            if self.writes:
                self._log(phase, loop, result)
            bar.update()
            self.stopped = self.fabric.broadcast(self.writes and run.stop_requested())
            measures = loop.step % config.eval_every == 0 or loop.step == steps
            if measures and config.familiarity:
                features = self.embed(loop.used(), items)
                loop.kept.remember_classes(features, torch.from_numpy(self.dataset.labels[items]))
            if measures and len(validation):
                value, error = self._validate(phase, loop.step, loop.used(), validation)
                best["values"][loop.step] = value
                bar.set_postfix_str(f"validation MAP@R {100 * value:.1f} %")
                if value > best["best_value"]:
                    best |= {"best_value": value, "error": error}
                # Known classes gain from longer training, which the validation classes can't show: of the steps that
                # are as good as the best within the tolerance, the latest is chosen. An interpolated head has its
                # share for that, and always trains to the end of its schedule.
                if config.interpolates or value >= best["best_value"] - config.selection_tolerance * best["error"]:
                    best["best_step"] = loop.step
                    self._save_model(loop.used(), loop.step)
            if measures or self.stopped:
                self._save_checkpoint(phase, best, loop)
        bar.close()

    def _pretrained_value(self, validation: np.ndarray) -> float:
        """MAP@R by D of the validation classes by the pretrained features; rank 0 measures."""
        value = 0.0
        if self.writes:
            cache = self.run.path.parent / ".features"
            with self._bars("pretrained features") as report:
                pooled = self.embed.pooled_before_training(self.config, validation, cache, report)
            features = F.normalize(signed_power(pooled, self.config.pool_power), dim=1)
            labels = torch.from_numpy(self.dataset.labels[validation])
            value = float(precisions(Euclidean(), features, labels).mean())
        return self.fabric.broadcast(value)

    def _warn(self, sentences: Iterable[str]) -> None:
        """Add warnings to the run, each once."""
        before = self.run.info.get("warnings") or []
        new = [sentence for sentence in sentences if sentence not in before]
        if new and self.writes:
            for sentence in new:
                logging.getLogger(__name__).warning(sentence)
            self.run.update(warnings=[*before, *new])

    def _log(self, phase: str, loop: Loop, result: Step) -> None:
        terms = {name: float(value) for name, value in result.terms.items()}
        count, items, config = result.quadruplets.shape[1], loop.batch(loop.step), self.config
        self.run.log_metrics(
            loop.step, phase, "train", config.similarity, terms | {"lr": loop.lr, "quadruplets": float(count)}
        )
        mined = quadruplet_columns(
            self.ids[items], self.class_of[items], (result.quadruplets.cpu().numpy(), result.values.cpu().numpy()),
            (result.euclidean.cpu().numpy(), result.euclidean_values.cpu().numpy()),
        )  # fmt: skip
        self.run.log_quadruplets({"phase": phase, "step": np.full(count, loop.step), **mined})

    def _validate(self, phase: str, step: int, model: MetricModel, validation: np.ndarray) -> tuple[float, float]:
        """MAP@R of the validation classes by the similarity that selects, and its standard error; rank 0 measures."""
        value, error = 0.0, 0.0
        if self.writes:
            features, labels = self.embed(model, validation), self.dataset.labels[validation]
            for name in dict.fromkeys((self.config.selection, "euclidean", self.config.similarity)):
                result = evaluate(model.similarity(name), features, features, labels, labels, True)
                self.run.log_metrics(step, phase, "validation", name, result.metrics)
                if name == self.config.selection:
                    value, error = result.metrics["map@r"], result.map_at_r_error if result.queries > 1 else 0.0
        return self.fabric.broadcast((value, error))

    def _save_checkpoint(self, phase: str, best: dict[str, Any], loop: Loop) -> None:
        if self.writes:
            self.run.save_checkpoint({"phase": phase, **best, **self.shares, **loop.state_dict()})
            self.run.update(step=loop.step)
            if phase == "select" or self.run.info["best_step"] is None:
                self.run.update(best_step=best["best_step"])

    def _save_model(self, model: MetricModel, step: int) -> None:
        if self.writes:
            self.run.save_model(model.state_dict(), {"step": step, "config": self.config.to_dict()})

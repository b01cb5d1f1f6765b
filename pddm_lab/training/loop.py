"""The loop of a training, as one process runs it: choose the best step, train again on all classes, then measure.

A training has phases. `select` leaves some training classes out and finds the step at which they are retrieved best;
`refit` starts again and trains on all training classes for as many passes; `evaluate` and `gallery` measure the result
under both protocols and keep it. The test classes are looked at once, in `evaluate`.

With several processes every rank embeds its part of a batch and sees the features of all: two processes compute what
one would.
"""

from __future__ import annotations

import copy
import itertools
import math
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from lightning_fabric import Fabric
from torch import Tensor
from tqdm import tqdm

from pddm_lab.config import TrainConfig, runs_root
from pddm_lab.data.dataset import Dataset
from pddm_lab.data.sampler import ClassBatches
from pddm_lab.data.splits import hold_out_classes
from pddm_lab.errors import ConfigError
from pddm_lab.metrics.retrieval import evaluate
from pddm_lab.model.embedding import MetricModel
from pddm_lab.model.features import ImageFiles, image_loader, trunk_features
from pddm_lab.progress import Progress, Stopped, progress_bars
from pddm_lab.runs.log import quadruplet_columns
from pddm_lab.runs.model import load_model
from pddm_lab.runs.run import Run
from pddm_lab.training.finish import Embedder, finish, paths_of
from pddm_lab.training.objectives import Learner, Step

FABRIC_PRECISION = {"32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}


def resolve_device(config: TrainConfig) -> tuple[torch.device, str]:
    """The device and the precision that a configuration comes to on this machine.

    Raises:
        ConfigError: cuda was asked for and there is none, or fp16 on a CPU.
    """
    has_cuda = torch.cuda.is_available()
    if config.device == "cuda" and not has_cuda:
        raise ConfigError("--device cuda expects a CUDA GPU and there is none; use --device cpu or auto.")
    device = torch.device("cuda" if config.device != "cpu" and has_cuda else "cpu")
    if config.precision == "fp16" and device.type == "cpu":
        raise ConfigError("--precision fp16 expects a GPU; use bf16 or 32 on a CPU.")
    if config.precision != "auto":
        return device, config.precision
    if device.type == "cuda":
        return device, "bf16" if torch.cuda.is_bf16_supported() else "fp16"
    # On a CPU with bf16 products the frozen trunk runs twice as fast in bf16, but fine-tuning runs slower than in 32.
    return device, "bf16" if config.freeze_trunk and torch.cpu._is_avx512_bf16_supported() else "32"


def learning_rate_factor(config: TrainConfig, step: int) -> float:
    """What the learning rate is multiplied by at a step (1, 2, ...): the warm-up, then the schedule."""
    if step <= config.warmup_steps:
        return step / config.warmup_steps
    done = (step - config.warmup_steps) / max(config.steps - config.warmup_steps, 1)
    if config.schedule == "cosine":
        return (1 + math.cos(math.pi * done)) / 2
    if config.schedule == "step":
        return 0.01 if done > 0.75 else 0.1 if done > 0.5 else 1.0
    return 1.0


class Training:
    """One process's part in a training; rank 0 measures and writes the run."""

    def __init__(self, run: Run, dataset: Dataset, progress: bool) -> None:
        self.run, self.config, self.dataset = run, run.config, dataset
        device, self.precision = resolve_device(self.config)
        self.fabric = Fabric(
            accelerator=device.type, devices=self.config.devices, strategy="ddp" if self.config.devices > 1 else "auto",
            # A frozen trunk's features are computed beforehand; what then trains is small and stays in 32 bits.
            precision="32-true" if self.config.freeze_trunk else FABRIC_PRECISION[self.precision],  # type: ignore[arg-type]
        )  # fmt: skip
        self.fabric.launch()
        self.rank, self.ranks = self.fabric.global_rank, self.fabric.world_size
        self.writes = self.fabric.is_global_zero
        self.shown = progress and self.writes
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it cuBLAS can't be deterministic
        torch.use_deterministic_algorithms(self.config.deterministic)
        self.stopped = False
        self.ids = np.array(dataset.ids, dtype=object)
        self.class_of = np.array(dataset.class_names, dtype=object)[dataset.labels]

    def carry_out(self) -> None:
        """All that the run's checkpoint says isn't done yet, or until someone asks to stop."""
        try:
            self._carry_out()
        except Stopped:
            self.stopped = True
        if self.stopped and self.writes:
            self.run.flush()
            self.run.update(status="stopped", reason="Stopped on request.")

    def _carry_out(self) -> None:
        config, labels = self.config, self.dataset.labels
        checkpoint = self.run.load_checkpoint() if (self.run.path / "last.ckpt").is_file() else {}
        if self.writes:
            self.run.truncate_after(checkpoint.get("phase", "select"), checkpoint.get("step", -1))
        model = self._new_model()
        pooled = None
        if config.freeze_trunk:
            pooled = self._pooled_features(model, range(len(self.dataset)))
            others = [self._pooled_features(model, self.dataset.train, view) for view in range(1, config.views)]
            self.views = torch.stack([pooled[torch.from_numpy(self.dataset.train)], *others])
        self.embed = Embedder(
            self.dataset, pooled, resize=config.resize, size=config.image_size, device=self.fabric.device,
            precision=self.precision, workers=config.workers,
        )  # fmt: skip
        fit, validation = hold_out_classes(labels, self.dataset.train, config.val_class_share, config.split_seed)
        steps = config.steps
        if len(validation):
            if checkpoint.get("phase") == "refit":
                steps = checkpoint["best_step"]
            else:
                steps = self._fit("select", model, fit, validation, steps, checkpoint)
                checkpoint = {}
                if config.refit == "passes":
                    steps = round(steps * len(self.dataset.train) / len(fit))
        if not self.stopped and (config.refit != "none" or not len(validation)):
            self._fit("refit", self._new_model(), self.dataset.train, validation[:0], steps, checkpoint)
        if self.writes and not self.stopped:
            finish(self.run, load_model(self.run).to(self.fabric.device), self.embed, self._bars)

    def _new_model(self) -> MetricModel:
        """The model at step 0: the same for every phase and rank."""
        torch.manual_seed(self.config.seed)
        model = MetricModel(self.config)
        model.embedding.trunk.requires_grad_(not self.config.freeze_trunk)
        return model.to(self.fabric.device)

    def _pooled_features(
        self, model: MetricModel, items: Iterable[int], view: int = 0
    ) -> Float[Tensor, "items trunk_dim"]:
        config, what = self.config, f"trunk features, view {view + 1}/{self.config.views}"
        # Rank 0 computes what is missing; the others then find it. Who is stopped must still reach the others' barrier.
        with self.fabric.rank_zero_first(), suppress(Stopped), self._bars(what) as report:
            features = trunk_features(
                model.embedding.trunk, [self.dataset.path(item) for item in items],
                runs_root(config.runs_root) / ".features",
                resize=config.resize, size=config.image_size, device=self.fabric.device, precision=self.precision,
                workers=config.workers, progress=report, view=view,
            )  # fmt: skip
        if self.fabric.broadcast(self.writes and self.run.stop_requested()):
            raise Stopped
        return torch.from_numpy(features).to(self.fabric.device)

    @contextmanager
    def _bars(self, what: str) -> Iterator[Progress]:
        """A progress bar that raises `Stopped` once someone asks for it."""
        with progress_bars(self.shown)(what) as report:

            def watched(done: int, total: int, of: str) -> None:
                report(done, total, of)
                if self.run.stop_requested():
                    raise Stopped

            yield watched

    def _fit(
        self, phase: str, model: MetricModel, items: np.ndarray, validation: np.ndarray, steps: int,
        checkpoint: dict[str, Any],
    ) -> int:  # fmt: skip
        """Train a model on items, from its first step or from a checkpoint; returns its best step."""
        config, run = self.config, self.run
        if self.embed.pooled is not None:
            model.embedding.fit_pretrained(self.embed.pooled[torch.from_numpy(items)])
        learner, kept = Learner(model, config), copy.deepcopy(model)
        wrapped, optimizer = self.fabric.setup(learner, self._optimizer(model))
        progress = {"step": 0, "best_step": 0 if len(validation) else steps, "best_value": -math.inf, "error": 0.0}
        if checkpoint:
            progress = {key: checkpoint[key] for key in progress}
            model.load_state_dict(checkpoint["model"])
            kept.load_state_dict(checkpoint["kept"])
            optimizer.load_state_dict(checkpoint["optimizer"])
        if self.writes:
            run.update(phase=phase, step=progress["step"], steps_total=steps)
        if len(validation) and not checkpoint:
            self._validate(phase, 0, kept, validation)
        batches = ClassBatches(
            self.dataset.labels, items, config.classes_per_batch, config.images_per_class, config.seed
        )
        bar = tqdm(
            total=steps, initial=progress["step"], desc=phase, unit="step", disable=not self.shown, mininterval=0.5
        )
        for step, inputs, labels in self._inputs(batches, int(progress["step"]), steps):
            # Seeded by the step, dropout needs no state to resume, and is the same on every rank.
            torch.manual_seed(config.seed * 1_000_003 + step)
            for group in optimizer.param_groups:
                group["lr"] = group["base_lr"] * learning_rate_factor(config, step)
            learner.train()
            model.embedding.trunk.train(not config.freeze_trunk)
            result: Step = wrapped(inputs, labels)
            self.fabric.backward(result.loss)
            if config.clip_norm:
                result.terms["grad_norm"] = self.fabric.clip_gradients(
                    learner.trained, optimizer, max_norm=config.clip_norm, error_if_nonfinite=False
                )  # type: ignore[assignment]
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            if self.writes:
                self._log(phase, step, batches.batch(step), result, optimizer.param_groups[0]["lr"])
            bar.update()
            progress["step"] = step
            self.stopped = self.fabric.broadcast(self.writes and run.stop_requested())
            _average(kept, model, config.average, step)
            if step % config.eval_every == 0 or step == steps:
                if config.familiarity:
                    kept.remember_classes(self.embed(kept, items), torch.from_numpy(self.dataset.labels[items]))
                if len(validation):
                    value, error = self._validate(phase, step, kept, validation)
                    bar.set_postfix_str(f"validation MAP@R {100 * value:.1f} %")
                    if value > progress["best_value"]:
                        progress |= {"best_value": value, "error": error}
                    # Known classes gain from longer training, which these classes can't see: among the steps that they
                    # can't tell from the best one, the latest is taken.
                    if value >= progress["best_value"] - config.selection_tolerance * progress["error"]:
                        progress["best_step"] = step
                        self._save_model(kept, step)
                self._save_checkpoint(phase, progress, model, kept, optimizer)
            elif self.stopped:
                self._save_checkpoint(phase, progress, model, kept, optimizer)
            if self.stopped:
                break
        bar.close()
        if not len(validation) and not self.stopped:
            self._save_model(kept, steps)
        return int(progress["best_step"])

    def _inputs(self, batches: ClassBatches, start: int, steps: int) -> Iterator[tuple[int, Tensor, Tensor]]:
        """This rank's part of every batch: step, images or pooled features, labels."""
        config, device = self.config, self.fabric.device
        labels = torch.from_numpy(self.dataset.labels).to(device)
        numbers = range(start + 1, steps + 1)
        if self.embed.pooled is not None:
            row_of = {int(item): row for row, item in enumerate(self.dataset.train)}
            for step in numbers:
                whole = batches.batch(step)
                view = np.random.default_rng([config.seed, step]).integers(config.views, size=len(whole))
                row = np.array([row_of[int(item)] for item in whole])
                mine = np.array_split(np.arange(len(whole)), self.ranks)[self.rank]
                chosen = self.views[torch.from_numpy(view[mine]).to(device), torch.from_numpy(row[mine]).to(device)]
                yield step, chosen, labels[torch.from_numpy(whole[mine]).to(device)]
            return
        images = ImageFiles(paths_of(self.dataset), config.resize, config.image_size, config.seed)
        keys = ([(step, int(item), int(item)) for item in self._part(batches, step)] for step in numbers)
        for step, batch in zip(numbers, image_loader(images, keys, config.workers, device), strict=True):
            part = torch.from_numpy(self._part(batches, step)).to(device)
            yield step, batch.to(device, non_blocking=True), labels[part]

    def _part(self, batches: ClassBatches, step: int) -> np.ndarray:
        return np.array_split(batches.batch(step), self.ranks)[self.rank]

    def _optimizer(self, model: MetricModel) -> torch.optim.Optimizer:
        config = self.config
        groups: list[dict[str, Any]] = [
            {"params": [*model.embedding.head.parameters(), *model.learned.parameters()], "base_lr": config.lr}
        ]
        if not config.freeze_trunk:
            trunk = list(model.embedding.trunk.parameters())
            groups.append({"params": trunk, "base_lr": config.lr * config.trunk_lr_scale})
        if config.optimizer == "sgd":
            return torch.optim.SGD(groups, lr=config.lr, momentum=0.9, weight_decay=config.weight_decay)
        return torch.optim.AdamW(groups, lr=config.lr, weight_decay=config.weight_decay, fused=True)

    def _log(self, phase: str, step: int, items: np.ndarray, result: Step, lr: float) -> None:
        terms = {name: float(value) for name, value in result.terms.items()}
        count = result.quadruplets.shape[1]
        self.run.log_metrics(
            step, phase, "train", self.config.similarity, terms | {"lr": lr, "quadruplets": float(count)}
        )
        mined = quadruplet_columns(
            self.ids[items], self.class_of[items], (result.quadruplets.cpu().numpy(), result.values.cpu().numpy()),
            (result.euclidean.cpu().numpy(), result.euclidean_values.cpu().numpy()),
        )  # fmt: skip
        self.run.log_quadruplets({"phase": phase, "step": np.full(count, step), **mined})

    def _validate(self, phase: str, step: int, model: MetricModel, validation: np.ndarray) -> tuple[float, float]:
        """MAP@R of the validation classes by the similarity that selects, and its standard error; rank 0 measures."""
        value, error = 0.0, 0.0
        if self.writes:
            features, labels = self.embed(model, validation), self.dataset.labels[validation]
            for name in dict.fromkeys((self.config.selection, "euclidean", self.config.similarity)):
                found = evaluate(model.similarity(name), features, features, labels, labels, True)
                self.run.log_metrics(step, phase, "validation", name, found.metrics)
                if name == self.config.selection:
                    value, error = found.metrics["map@r"], found.map_at_r_error if found.queries > 1 else 0.0
        return self.fabric.broadcast((value, error))

    def _save_checkpoint(
        self, phase: str, progress: dict[str, Any], model: MetricModel, kept: MetricModel, optimizer: Any
    ) -> None:
        if self.writes:
            state = {"model": model.state_dict(), "kept": kept.state_dict(), "optimizer": optimizer.state_dict()}
            self.run.save_checkpoint({"phase": phase, **progress, **state})
            self.run.update(step=progress["step"])
            if phase == "select" or self.run.info["best_step"] is None:
                self.run.update(best_step=progress["best_step"])

    def _save_model(self, model: MetricModel, step: int) -> None:
        if self.writes:
            self.run.save_model(model.state_dict(), {"step": step, "config": self.config.to_dict()})


@torch.no_grad()
def _average(kept: MetricModel, model: MetricModel, decay: float, step: int) -> None:
    """Move the weights that are kept towards the model's: a moving average that follows fast in the first steps."""
    decay = min(decay, (1 + step) / (10 + step)) if decay else 0.0
    learning = [p.requires_grad for p in model.parameters()]
    pairs = zip(
        itertools.compress(kept.parameters(), learning), itertools.compress(model.parameters(), learning), strict=True
    )
    averages, latest = (list(side) for side in zip(*pairs, strict=True))
    torch._foreach_lerp_(averages, latest, 1 - decay)
    if model.embedding.trunk.training:  # its batch norms' statistics; a frozen trunk's never change
        for average, value in zip(kept.buffers(), model.buffers(), strict=True):
            average.copy_(value)

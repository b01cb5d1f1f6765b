"""Every choice of a training in one frozen dataclass: the command line, the notebooks and the dashboard read it.

Paper -> code:  alpha -> score_margin   beta -> distance_margin   lambda -> embedding_weight   gamma -> weight_decay
d -> dim   m (mini-batch) -> classes_per_batch x images_per_class
"""

from __future__ import annotations

import dataclasses
import difflib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args, get_type_hints

from pddm_lab.errors import ConfigError
from pddm_lab.similarities import SIMILARITIES, SimilarityName

if TYPE_CHECKING:
    _NameOrNone = str
else:
    _NameOrNone = Literal[("", *SIMILARITIES)]


@dataclass(frozen=True)
class TrainConfig:
    """One training. The defaults are the preset `quick`; `PRESETS` holds the others."""

    preset: str = "quick"
    """Name of the preset these choices started from."""

    dataset: str = "emoji"
    """emoji, grocery, cub200, cars196, products, digits, or folder:PATH for any root/<class>/<image>."""
    data_root: str = ""
    """Folder that holds the data sets; empty: $PDDM_LAB_DATA, else ./data."""
    runs_root: str = ""
    """Folder that holds the runs; empty: $PDDM_LAB_RUNS, else ./runs."""
    run_name: str = ""
    """Folder name of the run; empty: dataset, preset and time."""
    notes: str = ""
    """Free text kept with the run."""
    known_query_share: float = 0.2
    """Share of each training class held out as queries of the known classes, where a data set names none; 0 to 0.5."""
    val_class_share: float = 0.2
    """Share of the training classes set apart to choose the best step on; 0 to 0.5, 0 keeps the last step."""
    split_seed: int = 0
    """Seed of the class splits; apart from `seed`, so that several seeds share their splits."""

    trunk: str = "efficientnet_lite0"
    """efficientnet_lite0, googlenet, or any torchvision classification model by name."""
    weights: str = "imagenet"
    """imagenet, none, or the path of a .pth or .safetensors state dict of the trunk."""
    resize: int = 128
    """Shorter side an image is scaled to before the crop, in pixels."""
    image_size: int = 128
    """Side of the square crop the trunk sees, in pixels: centred to evaluate, random with a mirror to train."""
    freeze_trunk: bool = True
    """Train on features of the pretrained trunk, computed once and kept on disk by content."""
    views: int = 4
    """With freeze_trunk, versions of each training image to train on: its centre, and random crops with a mirror."""
    pool_power: float = 0.5
    """Power of the trunk's pooled features before the head: 0.5 takes signed square roots, 1 leaves them."""
    dim: int = 128
    """Embedding dimensions (d)."""

    similarity: SimilarityName = "pddm"
    """The similarity that the loss trains."""
    unit_hidden: int = 0
    """Width of the PDDM unit's layers; 0: the same as dim, as in the paper."""
    unit_dropout: float = 0.0
    """Dropout after each layer of the PDDM unit; 0 to 1."""
    unit_normalize: bool = False
    """L2-normalise u and v before the PDDM unit's first layers (one text does; measured worse)."""
    unit_position: bool = True
    """Let the PDDM unit see the place v of a pair; without it S is one learned global measure of the difference u."""
    unit_global: float = 0.0
    """Initial g of the score W_s c + b_s - g D, in which the unit corrects the distance; 0: no D, as in the paper."""
    unit_detached: bool = False
    """Let the unit learn on detached features, so that E_m leaves the embedding as E_e makes it."""
    familiarity: float = 0.0
    """Cosine to the nearest training class at which the unit and the pretrained features correct D by half; 0: off."""

    mining: Literal["anchor", "batch"] = "anchor"
    """anchor: a hard quadruplet for every item of a batch. batch: the paper's one hardest quadruplet of a batch."""
    mining_similarity: _NameOrNone = ""
    """The similarity that mines; empty: the one that is trained."""
    loss: Literal["quadruplet", "triplet"] = "quadruplet"
    """quadruplet: PDDM+Quadruplet (both hinges). triplet: PDDM+Triplet (i, j, k only)."""
    score_margin: float = 0.5
    """Margin between scores of the hard positive and each hard negative (alpha), in score units."""
    distance_margin: float = 1.0
    """Margin between distances of the embedding (beta), in units of D, or of its square with squared_distance."""
    embedding_weight: float = 0.5
    """Weight of the embedding's own hinge E_e beside E_m (lambda)."""
    squared_distance: bool = False
    """Use the squared Euclidean distance in E_e; no source settles it."""

    steps: int = 500
    """Training steps (batches)."""
    classes_per_batch: int = 32
    """Classes in a batch (P)."""
    images_per_class: int = 4
    """Images of each class in a batch (K)."""
    optimizer: Literal["adamw", "sgd"] = "adamw"
    """adamw, or sgd with momentum 0.9."""
    lr: float = 5e-4
    """Learning rate of the embedding head and the similarities."""
    trunk_lr_scale: float = 0.1
    """The trunk's learning rate as a share of lr; unused with freeze_trunk."""
    weight_decay: float = 5e-4
    """Weight decay (gamma)."""
    schedule: Literal["constant", "cosine", "step"] = "constant"
    """Learning rate after the warm-up: constant, cosine to 0, or step: divided by 10 at 1/2 and 3/4 of the steps."""
    warmup_steps: int = 0
    """Steps in which the learning rate rises linearly from 0."""
    clip_norm: float = 0.0
    """Largest L2 norm of the gradient; 0: no clipping."""
    average: float = 0.99
    """Decay per step of the moving average of the weights, which a run measures and keeps; 0: the last weights."""
    eval_every: int = 50
    """Steps between measurements on the validation classes."""
    selection: SimilarityName = "euclidean"
    """The similarity whose MAP@R on the validation classes chooses the best step."""
    selection_tolerance: float = 1.0
    """Standard errors a step may lie below the best and still be as good; the latest such is chosen; 0: the best."""
    refit: Literal["passes", "steps", "none"] = "passes"
    """Then train again on all training classes: for as many passes over them, as many steps, or not at all."""

    seed: int = 0
    """Seed of the weights, the batches and the augmentation."""
    deterministic: bool = False
    """Ask torch for deterministic algorithms only (slower on a GPU)."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: cuda where there is one, else cpu."""
    devices: int = 1
    """Processes, one device each; more than one trains with DDP (gloo on CPUs, nccl on GPUs)."""
    precision: Literal["auto", "32", "bf16", "fp16"] = "auto"
    """auto: bf16 on a GPU that has it, fp16 on an older one; on a CPU 32, or bf16 for a frozen trunk if fast."""
    workers: int = -1
    """Processes that load images; -1: one per core but one, at most 8."""

    def __post_init__(self) -> None:
        for name, hint in get_type_hints(type(self)).items():
            options, value = get_args(hint), getattr(self, name)
            if options and value not in options:
                raise ConfigError(f"{_flag(name)} expects one of {', '.join(map(repr, options))}, got {value!r}.")
            if hint is float and isinstance(value, int) and not isinstance(value, bool):
                object.__setattr__(self, name, float(value))
            elif (not options and not isinstance(value, hint)) or (hint is int and isinstance(value, bool)):
                raise ConfigError(f"{_flag(name)} expects {hint.__name__}, got {value!r} ({type(value).__name__}).")
        for name in ("steps", "eval_every", "dim", "image_size", "resize", "devices", "views"):
            self._at_least(name, 1)
        for name in ("warmup_steps", "clip_norm", "unit_hidden", "unit_global", "weight_decay", "lr", "trunk_lr_scale"):
            self._at_least(name, 0)
        for name in (
            "score_margin",
            "distance_margin",
            "embedding_weight",
            "selection_tolerance",
            "seed",
            "split_seed",
        ):
            self._at_least(name, 0)
        self._at_least("workers", -1)
        shares = {"known_query_share": 0.5, "val_class_share": 0.5, "unit_dropout": 0.95, "average": 0.9999}
        for name, high in shares.items():
            if not 0 <= getattr(self, name) <= high:
                raise ConfigError(f"{_flag(name)} expects a number from 0 to {high}, got {getattr(self, name)}.")
        if not 0 < self.pool_power <= 1:
            raise ConfigError(f"--pool-power expects a number above 0, at most 1, got {self.pool_power}.")
        if self.images_per_class < 2 or self.classes_per_batch < 2:
            raise ConfigError("--images-per-class and --classes-per-batch expect 2 or more: a batch holds pairs.")
        if self.unit_global and self.unit_normalize:
            raise ConfigError("--unit-global expects --no-unit-normalize: D is the length of u as it is.")
        if self.unit_detached and not (self.similarity == "pddm" and self.embedding_weight):
            raise ConfigError(
                "--unit-detached expects --similarity pddm, and --embedding-weight above 0, since E_e alone moves f."
            )
        if not 0 <= self.familiarity < 1:
            raise ConfigError(f"--familiarity expects a number from 0 to below 1, got {self.familiarity}.")
        if self.familiarity and not (self.unit_global and self.freeze_trunk):
            raise ConfigError("--familiarity expects --unit-global above 0 and --freeze-trunk: S fades into -g D.")
        if self.resize < self.image_size:
            raise ConfigError(f"--resize expects --image-size ({self.image_size}) or more, got {self.resize}.")

    def _at_least(self, name: str, low: int) -> None:
        if getattr(self, name) < low:
            raise ConfigError(f"{_flag(name)} expects {low} or more, got {getattr(self, name)}.")

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, Any]) -> TrainConfig:
        """A configuration from a preset's name and any fields that differ, as a notebook's parameters give them.

        Args:
            parameters: field name -> value; None means the preset's own value.

        Raises:
            ConfigError: an unknown preset or field (the nearest one is named), or a value out of range.
        """
        changes = {name: value for name, value in parameters.items() if value is not None}
        fields = [field.name for field in dataclasses.fields(cls)]
        for name in parameters:
            if name not in fields:
                near = "".join(f" Did you mean {field!r}?" for field in difflib.get_close_matches(name, fields, n=1))
                raise ConfigError(f"Unknown parameter {name!r}.{near} Known: {', '.join(fields)}.")
        preset = changes.get("preset", "quick")
        if preset not in PRESETS:
            raise ConfigError(f"Unknown preset {preset!r}. Expected one of {', '.join(PRESETS)}.")
        return dataclasses.replace(PRESETS[preset], **changes)

    def to_dict(self) -> dict[str, Any]:
        """All fields as plain JSON values."""
        return dataclasses.asdict(self)


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


PRESETS: dict[str, TrainConfig] = {
    "quick": TrainConfig(),
    "lab": TrainConfig(preset="lab", unit_global=1.0, unit_detached=True, familiarity=0.55),
    "finetune": TrainConfig(
        preset="finetune", freeze_trunk=False, pool_power=1.0, resize=112, image_size=96, classes_per_batch=16,
        steps=400, lr=1e-3, schedule="cosine", warmup_steps=20, clip_norm=1.0, average=0.0,
    ),
    "paper": TrainConfig(
        preset="paper", trunk="googlenet", freeze_trunk=False, pool_power=1.0, resize=256, image_size=227,
        known_query_share=0.0, mining="batch", classes_per_batch=16, optimizer="sgd", lr=1e-2, average=0.0,
        steps=20_000, eval_every=1000,
    ),
}  # fmt: skip
"""`quick` and `lab` train in seconds on a CPU, `finetune` the trunk too; `paper` is the paper's setting."""

PRESET_SUMMARIES: dict[str, str] = {
    "quick": "Frozen ImageNet trunk, cached features: two minutes on a CPU the first time, then one.",
    "lab": "As quick, and S is ahead of D: it corrects D where classes are known, and fades into a global measure.",
    "finetune": "The trunk is trained too, with augmentation: minutes on a GPU, an hour or more on a CPU.",
    "paper": "GoogLeNet at 227 px, d = 128, one hard quadruplet a batch, the published constants: for a GPU.",
}
"""One line a preset, for the command line and the dashboard."""


def data_root(flag: str = "") -> Path:
    """The folder that holds the data sets: the flag, else $PDDM_LAB_DATA, else ./data."""
    return Path(flag or os.environ.get("PDDM_LAB_DATA") or "data").expanduser()


def runs_root(flag: str = "") -> Path:
    """The folder that holds the runs: the flag, else $PDDM_LAB_RUNS, else ./runs."""
    return Path(flag or os.environ.get("PDDM_LAB_RUNS") or "runs").expanduser()

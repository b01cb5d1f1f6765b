"""Every choice of a training in one frozen dataclass, which the command line, notebooks and dashboard read.

Paper -> code:  alpha -> score_margin   beta -> distance_margin   lambda -> embedding_weight   gamma -> weight_decay
d -> dim   m (mini-batch) -> classes_per_batch x images_per_class
"""

from __future__ import annotations

import dataclasses
import math
import os
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from annotated_types import Ge, Interval

from pddm_lab.errors import ConfigError, unknown_name
from pddm_lab.similarities import SIMILARITIES, SimilarityName
from pddm_lab.validation import validated

LARGEST = 10**9
"""No count and no seed may be larger."""


@dataclass(frozen=True)
class Loss:
    """A loss that can train the embedding; what computes it is in training/objectives.py."""

    title: str
    options: Mapping[str, float] = field(default_factory=dict)
    """Name -> default. `loss_lr_scale` is the learning rate of the loss's own weights, as a multiple of lr."""

    @property
    def is_rival(self) -> bool:
        """A loss of pytorch-metric-learning; PDDM's own have their options among the fields of `TrainConfig`."""
        return bool(self.options)


LOSSES: dict[str, Loss] = {
    "quadruplet": Loss("PDDM+Quadruplet"),
    "triplet": Loss("PDDM+Triplet"),
    "contrastive": Loss("Contrastive", {"pos_margin": 0.0, "neg_margin": 1.0}),
    "triplet-hard": Loss("Triplet, batch-hard", {"margin": 0.2}),
    "triplet-semihard": Loss("Triplet, semi-hard", {"margin": 0.2}),
    "lifted": Loss("Lifted structure (generalised)", {"neg_margin": 1.0, "pos_margin": 0.0}),
    "npairs": Loss("N-pairs", {"length_weight": 0.002}),
    "margin": Loss("Margin", {"margin": 0.2, "beta": 1.2, "loss_lr_scale": 10.0}),
    "multi-similarity": Loss("Multi-similarity", {"alpha": 2.0, "beta": 50.0, "base": 0.5}),
    "proxy-nca": Loss("Proxy-NCA", {"softmax_scale": 9.0, "loss_lr_scale": 30.0}),
    "proxy-anchor": Loss("Proxy-Anchor", {"margin": 0.1, "alpha": 32.0, "loss_lr_scale": 30.0}),
    "arcface": Loss("ArcFace", {"margin": 28.6, "scale": 64.0, "loss_lr_scale": 30.0}),
    "classifier": Loss("Classifier's features", {"smoothing": 0.0, "loss_lr_scale": 30.0}),
}
AUGMENTATIONS = ("crops", "light", "blur-noise", "geometry", "mixed")
"""How random views of a training picture differ (data/augmentation.py)."""
if TYPE_CHECKING:
    LossName = str
    AugmentationName = str
    _NameOrNone = str
else:
    LossName = Literal[tuple(LOSSES)]
    AugmentationName = Literal[AUGMENTATIONS]
    _NameOrNone = Literal[("", *SIMILARITIES)]
OFFLINE_TRUNKS = ("efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2")
"""Trunks whose ImageNet weights come with a package (Apache-2.0), the fastest first; the others' are downloaded."""
IMPORTED = "imported"
"""The trunk of a run whose features come from elsewhere (`pddm-lab import`): they are its embedding as they are."""
ONNX, TORCHVISION = ".onnx", "torchvision:"
"""How the names of models from elsewhere end or begin that are no code; another one is a callable."""
Count = Annotated[int, Interval(ge=1, le=LARGEST)]
CountOrNone = Annotated[int, Interval(ge=0, le=LARGEST)]
Device = Literal["auto", "cpu", "cuda"]
_NotNegative = Annotated[float, Ge(0)]
_UpToHalf = Annotated[float, Interval(ge=0, le=0.5)]


@dataclass(frozen=True)
class TrainConfig:
    """The choices of one training. The defaults are the preset `quick`; `PRESETS` holds the others."""

    preset: str = "quick"
    """The preset that these choices start from."""

    dataset: str = "emoji"
    """A data set of pddm-lab data list, folder:PATH for any PATH/<class>/<image>, or manifest:FILE.csv."""
    data_root: str = ""
    """Folder that holds the data sets; empty: $PDDM_LAB_DATA, else ./data."""
    runs_root: str = ""
    """Folder that holds the runs; empty: $PDDM_LAB_RUNS, else ./runs."""
    run_name: str = ""
    """Folder name of the run; empty: dataset, preset and time."""
    notes: str = ""
    """Free text kept with the run."""
    known_query_share: _UpToHalf = 0.2
    """Share of each training class held out as known-class queries, if the data set names none; 0 to 0.5."""
    val_class_share: _UpToHalf = 0.2
    """Share of the training classes held out to choose the best step; 0 to 0.5; 0 keeps the last step."""
    corrections: bool = False
    """Apply the data set's corrections, which the pages and `pddm-lab data corrections` keep beside the runs."""
    split_seed: CountOrNone = 0
    """Seed of the class splits. It is separate from seed, so that trainings with several seeds share their splits."""

    trunk: str = "efficientnet_lite0"
    """efficientnet_lite0, _lite1 or _lite2, whose weights need no download, or a torchvision classification model."""
    weights: str = "imagenet"
    """imagenet, none, or the path of a .pth or .safetensors state dict of the trunk."""
    resize: Count = 160
    """Length of an image's shorter side after scaling and before the crop, in pixels."""
    image_size: Count = 160
    """Side of the trunk's square input, in pixels: a centred crop to evaluate, a random, mirrored crop to train."""
    freeze_trunk: bool = True
    """Train on features of the pretrained trunk, which are computed once and cached on disk."""
    views: Count = 4
    """With freeze_trunk, how many versions of each training image to train on: its centre and random crops."""
    augmentation: AugmentationName = "crops"
    """What random crops differ in besides: crops: nothing; light, blur-noise or geometry: that; mixed: all three."""
    pool_power: Annotated[float, Interval(gt=0, le=1)] = 0.5
    """Power of the trunk's pooled features before the head: 0.5 takes signed square roots, 1 leaves them."""
    dim: Count = 256
    """Embedding dimensions (d)."""
    start: Literal["random", "principal"] = "principal"
    """Weights of the head before training: random, or the principal components of the trunk's features."""
    interpolate: bool = True
    """With freeze_trunk, let held-out training classes choose head weights between the start and the end."""
    whiten: bool = True
    """With freeze_trunk, scale the embedding so that it varies alike in all directions within a training class."""

    similarity: SimilarityName = "pddm"
    """The similarity that PDDM's losses train. With another loss, it mines the quadruplets that are shown."""
    unit_hidden: CountOrNone = 128
    """Width of the PDDM unit's layers; 0: the same as dim, as in the paper."""
    unit_dropout: Annotated[float, Interval(ge=0, le=0.95)] = 0.0
    """Dropout after each layer of the PDDM unit; 0 to 1."""
    unit_normalize: bool = False
    """L2-normalise u and v before the PDDM unit's first layers (one text does; measured worse)."""
    unit_position: bool = True
    """Let the PDDM unit see the position v of a pair; without it S is a learned global measure of the difference u."""
    unit_global: _NotNegative = 1.0
    """Initial g of the score W_s c + b_s - g D, in which the unit corrects the distance; 0: no D, as in the paper."""
    unit_detached: bool = True
    """Train the unit on detached features: then E_e alone trains the embedding, and E_m the unit."""
    familiarity: Annotated[float, Interval(ge=0, lt=1)] = 0.0
    """Only earlier runs: cosine to the nearest training class at which S fades into the pretrained features; 0: off."""
    local_structure: bool = False
    """Afterwards fit the similarity on local structure, which compares the neighbourhoods of two items."""

    mining: Literal["anchor", "batch"] = "anchor"
    """anchor: a hard quadruplet for every item of a batch. batch: the paper's one hardest quadruplet of a batch."""
    mining_similarity: _NameOrNone = ""
    """The similarity that mines; empty: the trained one."""
    loss: LossName = "quadruplet"
    """The loss that trains the embedding: PDDM's quadruplet or triplet; with others, S learns on detached features."""
    loss_options: str = ""
    """Options of a loss other than PDDM's, pairs of name and value with an equals sign, separated by commas."""
    score_margin: _NotNegative = 0.5
    """Margin between scores of the hard positive and each hard negative (alpha), in score units."""
    distance_margin: _NotNegative = 0.2
    """Margin between distances of the embedding (beta), in units of D, or of its square with squared_distance."""
    embedding_weight: _NotNegative = 0.5
    """Weight of the embedding's own hinge E_e beside E_m (lambda)."""
    squared_distance: bool = False
    """Use the squared Euclidean distance in E_e; the sources don't say."""

    steps: Count = 500
    """Training steps (batches)."""
    classes_per_batch: Annotated[int, Interval(ge=2, le=LARGEST)] = 32
    """Classes in a batch (P)."""
    images_per_class: Annotated[int, Interval(ge=2, le=LARGEST)] = 4
    """Images of each class in a batch (K)."""
    optimizer: Literal["adamw", "sgd"] = "adamw"
    """adamw, or sgd with momentum 0.9."""
    lr: _NotNegative = 5e-4
    """Learning rate of the embedding head and the similarities."""
    trunk_lr_scale: _NotNegative = 0.1
    """The trunk's learning rate as a share of lr; unused with freeze_trunk."""
    weight_decay: _NotNegative = 5e-4
    """Weight decay (gamma)."""
    schedule: Literal["constant", "cosine", "step"] = "cosine"
    """Learning rate after the warm-up: constant, cosine to 0, or step: divided by 10 at 1/2 and 3/4 of the steps."""
    warmup_steps: CountOrNone = 50
    """Steps in which the learning rate rises linearly from 0."""
    clip_norm: _NotNegative = 0.0
    """Largest L2 norm of the gradient; 0: no clipping."""
    average: Annotated[float, Interval(ge=0, le=0.9999)] = 0.99
    """Decay per step of the moving average of the weights, which is measured and saved; 0: the last weights."""
    eval_every: Count = 50
    """Steps between measurements on the validation classes."""
    selection: SimilarityName = "euclidean"
    """The similarity whose MAP@R on the validation classes chooses the best step."""
    selection_tolerance: _NotNegative = 1.0
    """The latest step within this many standard errors of the best is chosen; 0: the best."""
    refit: Literal["passes", "steps", "none"] = "passes"
    """Afterwards retrain on all training classes, for as many passes over them or as many steps; none: don't."""

    seed: CountOrNone = 0
    """Seed of the weights, the batches and the augmentation."""
    deterministic: bool = False
    """Use deterministic algorithms only (slower on a GPU)."""
    device: Device = "auto"
    """auto: cuda where there is one, else cpu."""
    devices: Count = 1
    """Processes, one device each; more than one trains with DDP (gloo on CPUs, nccl on GPUs)."""
    precision: Literal["auto", "32", "bf16", "fp16"] = "auto"
    """auto: bf16 on a GPU that supports it, else fp16; 32 on a CPU."""
    workers: Annotated[int, Interval(ge=-1, le=LARGEST)] = -1
    """Processes that load images for training the trunk; -1: one per core but one, at most 8."""

    def __post_init__(self) -> None:
        values = validated(self)
        for name, value in values.items():
            object.__setattr__(self, name, value)  # ints given for floats are floats now
        if self.unit_global and self.unit_normalize:
            raise ConfigError("--unit-global expects --no-unit-normalize: D is the length of u as it is.")
        if self.detaches_unit and not self.embedding_weight:
            raise ConfigError("--unit-detached expects --embedding-weight above 0: only E_e trains f.")
        if self.familiarity and not (self.unit_global and self.freeze_trunk):
            raise ConfigError("--familiarity expects --unit-global above 0 and --freeze-trunk: S fades into -g D.")
        if self.familiarity and self.local_structure:
            raise ConfigError("--local-structure expects --familiarity 0: it adds the pretrained features itself.")
        if self.augmentation != "crops" and self.freeze_trunk and self.views == 1:
            raise ConfigError(
                "--augmentation with --freeze-trunk expects --views 2 or more: the first isn't augmented."
            )
        if self.resize < self.image_size:
            raise ConfigError(f"--resize expects --image-size ({self.image_size}) or more, got {self.resize}.")
        self.options_of_loss()

    @property
    def detaches_unit(self) -> bool:
        """Whether S learns on detached features while E_e alone trains the embedding."""
        return self.unit_detached and self.similarity == "pddm" and not LOSSES[self.loss].is_rival

    @property
    def is_imported(self) -> bool:
        """Whether the features come from elsewhere: there is no network, no head, and no step before training."""
        return self.trunk == IMPORTED

    @property
    def learns(self) -> bool:
        """Whether anything is trained; an import without training only mines."""
        return self.lr > 0

    @property
    def interpolates(self) -> bool:
        """Whether held-out classes choose weights of the head between its start and its end."""
        return self.interpolate and self.freeze_trunk and self.val_class_share > 0

    @property
    def whitens(self) -> bool:
        """Whether the head is whitened within the training classes."""
        return self.whiten and self.freeze_trunk

    @property
    def trained_by(self) -> str:
        """Title of what trains the embedding: a rival's loss, or the similarity that PDDM's losses train."""
        loss = LOSSES[self.loss]
        return loss.title if loss.is_rival else SIMILARITIES[self.similarity].title

    def options_of_loss(self) -> dict[str, float]:
        """The options of the loss: its defaults, with those that `loss_options` names replaced.

        Raises:
            ConfigError: an option that the loss doesn't have, or a value that is no finite number.
        """
        options = dict(LOSSES[self.loss].options)
        for pair in filter(None, (part.strip() for part in self.loss_options.split(","))):
            name, _, value = (part.strip() for part in pair.partition("="))
            if name not in options:
                known = ", ".join(options) or "none"
                raise ConfigError(f"--loss-options expects options of {self.loss} ({known}), got {pair!r}.")
            try:
                options[name] = float(value)
            except ValueError:
                options[name] = math.nan
            if not math.isfinite(options[name]):
                raise ConfigError(f"--loss-options expects a finite number as {name}, got {value!r}.")
        return options

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
                raise ConfigError(unknown_name("parameter", str(name), fields))
        preset = changes.get("preset", "quick")
        if not isinstance(preset, str) or preset not in PRESETS:
            raise ConfigError(f"Unknown preset {reprlib.repr(preset)}. Expected one of {', '.join(PRESETS)}.")
        return dataclasses.replace(PRESETS[preset], **changes)

    def to_dict(self) -> dict[str, Any]:
        """All fields as plain JSON values."""
        return dataclasses.asdict(self)


def _preset(**choices: Any) -> TrainConfig:
    """A preset, not validated here: that would load pydantic for every command. A test validates them."""
    preset = object.__new__(TrainConfig)
    preset.__dict__.update({field.name: field.default for field in dataclasses.fields(TrainConfig)} | choices)
    return preset


_JOINT: dict[str, Any] = {
    "dim": 128, "unit_hidden": 0, "start": "random", "interpolate": False, "whiten": False, "unit_global": 0.0,
    "unit_detached": False, "distance_margin": 1.0, "schedule": "constant", "warmup_steps": 0,
}  # fmt: skip
"""The paper's joint objective: E_m trains the embedding through S, beside E_e, from random weights."""

PRESETS: dict[str, TrainConfig] = {
    "quick": _preset(),
    "lab": _preset(preset="lab", local_structure=True),
    "joint": _preset(preset="joint", **_JOINT),
    "finetune": _preset(
        preset="finetune", freeze_trunk=False, pool_power=1.0, resize=112, image_size=96, classes_per_batch=16,
        steps=400, warmup_steps=20, clip_norm=1.0, average=0.0, dim=128, unit_hidden=0,
    ),
    "paper": _preset(
        preset="paper", trunk="googlenet", freeze_trunk=False, pool_power=1.0, resize=256, image_size=227,
        known_query_share=0.0, mining="batch", classes_per_batch=16, optimizer="sgd", lr=1e-2, average=0.0,
        steps=20_000, eval_every=1000, **_JOINT,
    ),
}  # fmt: skip
"""All but `finetune` and `paper` train a head in seconds on a CPU; `joint` and `paper` have the paper's objective."""

PRESET_SUMMARIES: dict[str, str] = {
    "quick": "Frozen ImageNet trunk with cached features: some minutes on a CPU, less once they are cached.",
    "lab": "As quick, and a similarity on local structure, which also holds on classes that it never saw.",
    "joint": "The paper's objective on a frozen trunk, from random weights: S trains the embedding through E_m.",
    "finetune": "Trains the trunk too, with augmentation: minutes on a GPU, an hour or more on a CPU.",
    "paper": "GoogLeNet at 227 px, d = 128, one hard quadruplet per batch, the published constants; needs a GPU.",
}
"""One line a preset, for the command line and the dashboard."""


UNNAMED_CHOICES: dict[str, Any] = {
    "start": "random", "interpolate": False, "whiten": False, "unit_global": 0.0, "unit_detached": False
}  # fmt: skip
"""What runs did whose configuration doesn't name these fields yet."""


def typed_path(text: str) -> Path:
    """The path that a user typed. A `~` of an unknown user stays as it is, where `Path.expanduser` raises."""
    return Path(os.path.expanduser(text))


def data_root(flag: str = "") -> Path:
    """The folder that holds the data sets: the flag, else $PDDM_LAB_DATA, else ./data."""
    return typed_path(flag or os.environ.get("PDDM_LAB_DATA") or "data")


def runs_root(flag: str = "") -> Path:
    """The folder that holds the runs: the flag, else $PDDM_LAB_RUNS, else ./runs."""
    return typed_path(flag or os.environ.get("PDDM_LAB_RUNS") or "runs")

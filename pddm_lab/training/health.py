"""What goes wrong in a training without an error: one sentence each, which says what to do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from jaxtyping import Float
from torch import Tensor

from pddm_lab.config import TrainConfig
from pddm_lab.training.shares import FEWEST_CLASSES
from pddm_lab.wording import counted

_Metrics = Mapping[str, Mapping[str, float | None]]
_DECIDE = {"recall@1": "R@1", "map@r": "MAP@R"}
"""Metrics in which a similarity must not be behind to be recommended, and their names on screen."""
COLLAPSED = 1 - 0.95**2
"""Variance of unit-length features, 1 at most, below which they are nearly equal: their mean is then 0.95 long."""


def collapse(
    config: TrainConfig, trained: Float[Tensor, "items dim"], used: Float[Tensor, "items dim"]
) -> Iterator[str]:  # fmt: skip
    """Whether the embedding collapsed.

    Args:
        trained: unit-length features of training items by the head as it was trained.
        used: by the head that the run uses, which may go only a share of the way, and is whitened.
    """
    variances = [float((features - features.mean(0)).square().sum(1).mean()) for features in (trained, used)]
    if all(variance >= COLLAPSED for variance in variances):
        return
    if config.is_imported:
        variance = f"their variance is {min(variances):.1g}, 1 at most"
        yield f"The imported features are nearly equal ({variance}): distances say little."
        return
    what = f"all features are nearly equal (their variance is {min(variances):.1g}, 1 at most)"
    then = "Distances say little" if variances[1] < COLLAPSED else "The run uses only what held-out classes allow of it"
    yield f"The embedding collapsed in training: {what}. {then}. Lower --lr, or begin with --start principal."


def correction(config: TrainConfig, unit_share: float, measured: Mapping[str, _Metrics]) -> Iterator[str]:
    """Whether S ranks like D because the unit's correction of D isn't used.

    Args:
        config: the run's.
        unit_share: how much of the correction is used.
        measured: protocol -> similarity -> metric -> value, the first protocol being the one that counts.
    """
    if config.learns and config.detaches_unit and unit_share == 0 and not config.familiarity:
        other = "The preset joint has an S of its own; the preset lab adds a similarity on local structure."
        other = "Import with --local for a similarity on local structure." if config.is_imported else other
        own = _rank_by(measured) if config.local_structure else other
        what = "on held-out classes the unit's correction of D didn't surely gain, so none of it is used."
        yield f"S ranks like D: {what} {own}".rstrip()


def _rank_by(measured: Mapping[str, _Metrics]) -> str:
    """What a run with local structure should rank by, by its own numbers; empty if it has none."""
    for protocol, values in measured.items():
        local, of_d = (values.get(name, {}) for name in ("local", "euclidean"))
        pairs = [
            (title, one, other)
            for metric, title in _DECIDE.items()
            if (one := local.get(metric)) is not None and (other := of_d.get(metric)) is not None
        ]
        if all(one >= other for _, one, other in pairs) and any(one > other for _, one, other in pairs):
            return "Rank by local structure instead."
        if pairs:
            numbers = ", ".join(f"{title} {100 * one:.1f} % against {100 * other:.1f} %" for title, one, other in pairs)
            return f"On {protocol} classes local structure isn't better than D in both: {numbers}."
    return ""


def selection(
    config: TrainConfig, pretrained: float, values: dict[int, float], best_step: int, classes: int
) -> Iterator[str]:
    """Whether the held-out classes had something to choose.

    Args:
        pretrained: MAP@R of the pretrained features on the held-out classes.
        values: step -> MAP@R of the embedding on them.
        best_step: that was chosen.
        classes: how many are held out.
    """
    if not classes:
        yield (
            "There are too few training classes to hold any out, so nothing was chosen and the last step is kept. "
            "Add classes: four or more."
        )
        return
    trained = {step: value for step, value in values.items() if step}
    if trained and max(trained.values()) <= pretrained and not config.is_imported:
        yield (
            f"Training never ranked held-out classes better than the pretrained features (MAP@R "
            f"{100 * max(trained.values()):.1f} % at best, {100 * pretrained:.1f} % before). Expect no gain on new "
            "classes: add training classes or pictures, or try a better trunk."
        )
    elif not config.interpolates and best_step == max(trained, default=0):
        yield "The last step is the best one on held-out classes: more --steps may help."
    if classes < FEWEST_CLASSES and config.val_class_share:
        few = f"Only {counted(classes, 'class is', 'classes are')} held out, so what was chosen on them is uncertain."
        yield f"{few} Add classes" + ("." if config.is_imported else ", or hold out more of them: --val-class-share.")

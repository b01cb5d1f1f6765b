"""Augmented views: seeded, as described, cached apart from plain crops, and used by a training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from digit_pictures import write_digits
from PIL import Image

from pddm_lab.config import AUGMENTATIONS, TrainConfig
from pddm_lab.data.augmentation import augment
from pddm_lab.data.by_content import content_hash
from pddm_lab.data.prepare import VIEW_ZOOM, prepare
from pddm_lab.errors import ConfigError
from pddm_lab.model.engine import Engine
from pddm_lab.model.features import ImageFiles, trunk_features
from pddm_lab.model.trunks import Trunk
from pddm_lab.training.trainer import train

CHANGED = [name for name in AUGMENTATIONS if name != "crops"]


def drawing() -> np.ndarray:
    """A disc on a ground of another colour."""
    y, x = np.mgrid[:64, :64] - 32
    pixels = np.full((3, 64, 64), 200, np.uint8)
    pixels[:, x**2 + y**2 < 400] = np.array([[40], [120], [90]])
    return pixels


def views(augmentation: str, count: int = 40) -> list[np.ndarray]:
    return [augment(drawing(), augmentation, np.random.default_rng(seed)) for seed in range(count)]


def test_crops_stay_as_they_are_and_draw_nothing() -> None:
    pixels, rng = drawing(), np.random.default_rng(0)
    assert augment(pixels, "crops", rng) is pixels
    assert rng.random() == np.random.default_rng(0).random()


@pytest.mark.parametrize("augmentation", CHANGED)
def test_views_follow_from_their_seeds(augmentation: str) -> None:
    pixels = drawing()
    made = views(augmentation)
    assert all(one.shape == pixels.shape and one.dtype == np.uint8 and one.flags.c_contiguous for one in made)
    assert all(np.array_equal(one, again) for one, again in zip(made, views(augmentation), strict=True))
    assert len({one.tobytes() for one in made}) > 25
    assert np.array_equal(pixels, drawing()), "the picture itself is as it was"


def test_light_is_that_of_all_pixels() -> None:
    for one in views("light"):
        assert all(np.ptp(one[:, drawing()[0] == colour], axis=1).max() == 0 for colour in (40, 200))


def test_blur_and_noise_keep_the_mean() -> None:
    for one in views("blur-noise"):
        assert abs(one.mean(axis=(1, 2)) - drawing().mean(axis=(1, 2))).max() < 8
        assert not np.array_equal(one, drawing())


def test_geometry_moves_or_hides() -> None:
    areas = [(np.abs(one.astype(int) - np.array([40, 120, 90])[:, None, None]).max(0) < 4).mean() for one in
             views("geometry")]  # fmt: skip
    whole = (drawing()[0] == 40).mean()
    assert min(areas) < 0.5 * whole and np.mean(areas) < whole


def test_a_mixture_is_sometimes_only_a_crop() -> None:
    assert 0 < sum(np.array_equal(one, drawing()) for one in views("mixed", 80)) < 25


class Flat(torch.nn.Module):
    """A trunk whose features are the pixels."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 24, 3), dtype=np.uint8)).save(tmp_path / "one.png")
    return tmp_path / "one.png"


def test_augmented_views_are_kept_apart_and_plain_ones_as_before(photo: Path, tmp_path: Path) -> None:
    trunk = Trunk(Flat(), 3 * 16 * 16, (0.0,) * 3, (1 / 255,) * 3).eval()
    engine = Engine(trunk, size=16, device=torch.device("cpu"), name="torch")
    made: dict[str, dict[int, np.ndarray]] = {}
    for name in ("crops", "light", "mixed", "crops"):
        folder, before = tmp_path / "cache", made.get(name)
        made[name] = trunk_features(engine, [photo], folder, resize=16, views={0: [0], 1: [0]}, augmentation=name)
        assert before is None or np.array_equal(before[1], made[name][1])
    assert all(np.array_equal(one[0], made["crops"][0]) for one in made.values()), "the first view is never augmented"
    assert len({one[1].tobytes() for one in made.values()}) == 3
    endings = sorted(file.stem.partition("-torch-32-")[2] for file in (tmp_path / "cache").iterdir())
    assert endings == ["0", "1", "1-light", "1-mixed"]

    content = int.from_bytes(content_hash(photo)[:8], "big")
    rng = np.random.default_rng([0, 1, content])
    crop = prepare(Image.open(photo), round(16 * VIEW_ZOOM), 16, rng)
    np.testing.assert_allclose(made["crops"][1][0], crop.ravel(), atol=1e-3)
    np.testing.assert_allclose(made["light"][1][0], augment(crop, "light", rng).ravel(), atol=1e-3)


def test_a_trunk_that_trains_sees_augmented_pictures(photo: Path) -> None:
    plain, changed = ImageFiles([photo], 16, 16), ImageFiles([photo], 16, 16, augmentation="light")
    assert torch.equal(plain[0], changed[0]), "the centred crop is the picture as it is"
    assert torch.equal(changed[3, 0, 0], changed[3, 0, 0]) and not torch.equal(plain[3, 0, 0], changed[3, 0, 0])


def test_it_needs_a_second_view() -> None:
    with pytest.raises(ConfigError, match="--augmentation with --freeze-trunk expects --views 2 or more"):
        TrainConfig(views=1, augmentation="mixed")
    assert TrainConfig(views=1, augmentation="mixed", freeze_trunk=False, interpolate=False, whiten=False)


def test_a_run_trains_with_it(data_root: Path, tmp_path: Path, no_maps) -> None:
    pictures = write_digits(tmp_path / "digits", 6)
    small = {"image_size": 32, "resize": 32, "views": 2, "dim": 8, "steps": 3, "eval_every": 3, "classes_per_batch": 3}
    roots = {"dataset": f"folder:{pictures}", "data_root": str(data_root), "runs_root": str(tmp_path / "runs")}
    choices = {**small, **roots, "augmentation": "mixed", "run_name": "mixed", "device": "cpu"}
    run = train(TrainConfig.from_parameters(choices), progress=False)
    assert run.status == "finished" and run.config.augmentation == "mixed"
    files = (tmp_path / "runs" / ".features").glob("*-32-32-*.safetensors")
    assert {file.stem.rpartition("-32-")[2] for file in files} == {"0", "1-mixed"}

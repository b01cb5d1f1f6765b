import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pddm_lab.data.prepare import prepare
from pddm_lab.errors import DataError
from pddm_lab.model.features import ImageFiles, run_network, trunk_features
from pddm_lab.model.trunks import Trunk
from pddm_lab.progress import Stopped

CPU = torch.device("cpu")


@pytest.fixture
def photos(tmp_path):
    rng = np.random.default_rng(0)
    paths = []
    for number in range(5):
        paths.append(tmp_path / f"{number}.png")
        Image.fromarray(rng.integers(0, 256, (40, 60, 3), dtype=np.uint8)).save(paths[-1])
    return paths


class MeanColour(torch.nn.Module):
    """A trunk that can be computed by hand, and counts its images."""

    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(2.0))
        self.seen = 0

    def forward(self, images):
        self.seen += len(images)
        return self.scale * images.mean(dim=(2, 3))


def trunk():
    return Trunk(MeanColour(), 3, (0.0,) * 3, (1 / 255,) * 3).eval()


def test_prepare_scales_the_shorter_side_and_cuts_the_centre():
    image = Image.new("RGB", (60, 40), "black")
    image.paste((255, 255, 255), (20, 0, 40, 40))
    square = prepare(image, 20, 10)
    assert square.shape == (3, 10, 10) and square.dtype == np.uint8
    assert (square[:, :, 1:-1] == 255).all(), "the white middle third, 10 of 30 pixels wide"


def test_a_random_crop_belongs_to_its_step():
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8))
    crops = [prepare(image, 30, 20, np.random.default_rng([0, step])) for step in (1, 1, 2)]
    assert np.array_equal(crops[0], crops[1]) and not np.array_equal(crops[0], crops[2])


def test_run_network_keeps_the_order(photos):
    actual = run_network(trunk(), photos, resize=40, size=40, device=CPU, workers=0)
    expected = [2 * np.asarray(Image.open(path))[:, 10:50].mean(axis=(0, 1)) for path in photos]
    np.testing.assert_allclose(actual, expected, rtol=1e-4)


def test_features_are_computed_once_per_content(photos, tmp_path):
    (tmp_path / "copy.png").write_bytes(photos[0].read_bytes())
    calls = []
    options: dict[str, Any] = {
        "resize": 40,
        "size": 40,
        "device": CPU,
        "workers": 0,
        "progress": lambda done, *_: calls.append(done),
    }
    folder = tmp_path / "cache"
    first = trunk_features(trunk(), [*photos, tmp_path / "copy.png"], folder, **options)
    np.testing.assert_array_equal(first[0], first[5])
    assert calls[-1] == 5
    calls.clear()
    np.testing.assert_array_equal(trunk_features(trunk(), photos[::-1], folder, **options), first[4::-1])
    assert not calls, "nothing was computed again"
    photos[2].write_bytes(photos[1].read_bytes())
    np.testing.assert_array_equal(trunk_features(trunk(), photos, folder, **options)[2], first[1])
    other = trunk()
    other.network.scale.data.fill_(3.0)
    np.testing.assert_allclose(trunk_features(other, photos[:1], folder, **options)[0], first[0] * 1.5, rtol=1e-5)


def test_a_torn_file_of_features_is_computed_anew(photos, tmp_path):
    folder = tmp_path / "cache"
    first = trunk_features(trunk(), photos, folder, resize=40, size=40, device=CPU, workers=0)
    for file in folder.iterdir():
        file.write_bytes(file.read_bytes()[:50])
    again = trunk_features(trunk(), photos, folder, resize=40, size=40, device=CPU, workers=0)
    np.testing.assert_array_equal(first, again)


def test_of_a_stopped_computation_what_is_done_is_kept(photos, tmp_path, monkeypatch):
    monkeypatch.setattr("pddm_lab.model.features.INFERENCE_BATCH", 2)
    options: dict[str, Any] = {"resize": 40, "size": 40, "device": CPU, "workers": 0}

    def stop(done, total, what):
        if done >= 4:
            raise Stopped

    with pytest.raises(Stopped):
        trunk_features(trunk(), photos, tmp_path / "cache", progress=stop, **options)
    totals: list[int] = []
    features = trunk_features(
        trunk(), photos, tmp_path / "cache", progress=lambda done, total, _: totals.append(total), **options
    )
    assert totals == [1], "only the last is computed"
    np.testing.assert_array_equal(features, trunk_features(trunk(), photos, tmp_path / "other", **options))


def test_a_picture_that_needs_too_much_memory_is_named(photos, monkeypatch):
    def prepare(*_):
        raise MemoryError

    monkeypatch.setattr("pddm_lab.model.features.prepare", prepare)
    with pytest.raises(DataError, match=r"2\.png needs more memory than is free"):
        ImageFiles(photos, 40, 40)[2]


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's account of memory")
def test_a_long_strip_needs_little_memory(tmp_path):
    for name, size in (("high.png", (1, 60_000)), ("wide.png", (60_000, 1))):
        Image.new("RGB", size).save(tmp_path / name)
    code = """
import resource, sys
import numpy as np
from pddm_lab.model.features import ImageFiles
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
before = peak()
strips = ImageFiles(sys.argv[1:], 256, 224)
strips[0], strips[1], strips[0, 0], strips[0, 1]
print(peak() - before)
"""
    done = subprocess.run([sys.executable, "-c", code, *tmp_path.glob("*.png")], capture_output=True, text=True)
    assert float(done.stdout) < 400, done.stderr


def test_pictures_are_prepared_without_torch():
    code = "import sys, pddm_lab.data.prepare, pddm_lab.data.images; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pddm_lab.data.images import open_image
from pddm_lab.data.prepare import prepare, scale
from pddm_lab.errors import DataError
from pddm_lab.model.engine import Engine
from pddm_lab.model.features import ImageFiles, _prepared, file_features, trunk_features
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


def engine(name="auto", of=None):
    return Engine(of or trunk(), size=40, device=CPU, name=name)


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


@pytest.mark.parametrize("name", ["openvino", "torch"])
def test_files_keep_their_order(photos, name):
    actual = file_features(engine(name), photos, resize=40)
    expected = [2 * np.asarray(Image.open(path))[:, 10:50].mean(axis=(0, 1)) for path in photos]
    np.testing.assert_allclose(actual, expected, rtol=1e-4)


def test_features_are_computed_once_per_content(photos, tmp_path):
    (tmp_path / "copy.png").write_bytes(photos[0].read_bytes())
    calls: list[int] = []
    options: dict[str, Any] = {"resize": 40, "progress": lambda done, *_: calls.append(done)}
    folder = tmp_path / "cache"
    first = trunk_features(engine(), [*photos, tmp_path / "copy.png"], folder, **options)[0]
    np.testing.assert_array_equal(first[0], first[5])
    assert calls[-1] == 5
    calls.clear()
    np.testing.assert_array_equal(trunk_features(engine(), photos[::-1], folder, **options)[0], first[4::-1])
    assert not calls, "nothing was computed again"
    photos[2].write_bytes(photos[1].read_bytes())
    np.testing.assert_array_equal(trunk_features(engine(), photos, folder, **options)[0][2], first[1])
    other = trunk()
    other.network.scale.data.fill_(3.0)
    again = trunk_features(engine(of=other), photos[:1], folder, **options)[0]
    np.testing.assert_allclose(again[0], first[0] * 1.5, rtol=1e-5)


def test_a_file_is_read_once_for_all_its_views(photos, tmp_path, monkeypatch):
    opened: list[str] = []

    def count(path, shorter):
        opened.append(path.name)
        return open_image(path, shorter)

    monkeypatch.setattr("pddm_lab.model.features.open_image", count)
    views = {0: range(5), 1: [1, 3], 2: [3]}
    features = trunk_features(engine(), photos, tmp_path / "cache", resize=40, views=views)
    assert sorted(opened) == [path.name for path in photos]
    assert {view: len(of_view) for view, of_view in features.items()} == {0: 5, 1: 2, 2: 1}
    alone = trunk_features(engine(), photos[3:4], tmp_path / "other", resize=40, views={2: [0]})[2]
    np.testing.assert_allclose(features[2], alone, rtol=1e-6)
    assert abs(features[1][1] - alone[0]).max() > 1e-4, "views differ"


def test_each_engine_and_precision_has_its_own_features(photos, tmp_path):
    for name, precision in (("openvino", "32"), ("openvino", "bf16"), ("torch", "32")):
        one = Engine(trunk(), size=40, device=CPU, precision=precision, name=name)
        trunk_features(one, photos, tmp_path / "cache", resize=40)
    assert len(list((tmp_path / "cache").iterdir())) == 3


def test_a_torn_file_of_features_is_computed_anew(photos, tmp_path):
    folder = tmp_path / "cache"
    first = trunk_features(engine(), photos, folder, resize=40)[0]
    for file in folder.iterdir():
        file.write_bytes(file.read_bytes()[:50])
    np.testing.assert_array_equal(trunk_features(engine(), photos, folder, resize=40)[0], first)


def test_of_a_stopped_computation_what_is_done_is_kept(photos, tmp_path, monkeypatch):
    monkeypatch.setattr("pddm_lab.model.features.INFERENCE_BATCH", 2)
    options: dict[str, Any] = {"resize": 40, "views": {0: range(5), 1: range(5)}}

    def stop(done, total, what):
        if done >= 4:
            raise Stopped

    with pytest.raises(Stopped):
        trunk_features(engine(), photos, tmp_path / "cache", progress=stop, **options)
    totals: list[int] = []
    features = trunk_features(
        engine(), photos, tmp_path / "cache", progress=lambda done, total, _: totals.append(total), **options
    )
    assert totals == [1], "only the last is computed"
    whole = trunk_features(engine(), photos, tmp_path / "other", **options)
    for view in (0, 1):
        np.testing.assert_array_equal(features[view], whole[view])


def test_a_damaged_file_is_named_and_what_is_done_is_kept(photos, tmp_path, monkeypatch):
    monkeypatch.setattr("pddm_lab.model.features.INFERENCE_BATCH", 1)
    whole = photos[4].read_bytes()
    photos[4].write_bytes(whole[:900])
    with pytest.raises(DataError, match=r"4\.png is damaged"):
        trunk_features(engine(), photos, tmp_path / "cache", resize=40)
    photos[4].write_bytes(whole)
    totals: list[int] = []
    trunk_features(engine(), photos, tmp_path / "cache", resize=40, progress=lambda _, total, __: totals.append(total))
    assert totals == [1]


def test_a_picture_that_needs_too_much_memory_is_named(photos, monkeypatch):
    def prepare(*_):
        raise MemoryError

    monkeypatch.setattr("pddm_lab.model.features.scale", prepare)
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


def test_views_of_a_side_share_one_scaling(photos, monkeypatch):
    scaled: list[int] = []

    def count(image, resize, size):
        scaled.append(resize)
        return scale(image, resize, size)

    views = [(40, None), *((45, np.random.default_rng([0, view])) for view in (1, 2, 3))]
    alone = [
        prepare(open_image(photos[0]), side, 40, rng and np.random.default_rng([0, number]))
        for number, (side, rng) in enumerate(views)
    ]
    monkeypatch.setattr("pddm_lab.model.features.scale", count)
    np.testing.assert_array_equal(_prepared(photos[0], views, 40, 360), alone)
    assert sorted(scaled) == [40, 45]

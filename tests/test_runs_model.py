"""A picture embedded alone gets the features that it has in the gallery."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pddm_lab.data.images import open_image
from pddm_lab.data.prepare import LONGEST_SHAPE
from pddm_lab.errors import RunError
from pddm_lab.metrics.retrieval import evaluate
from pddm_lab.model.engine import Engine
from pddm_lab.model.features import file_features
from pddm_lab.runs.model import ImageEmbedder, load_model, load_similarities
from pddm_lab.runs.run import Run


@pytest.fixture(scope="module")
def embed(digits_run) -> ImageEmbedder:
    return ImageEmbedder(digits_run, load_model(digits_run))


def test_an_items_picture_gets_the_items_features(digits_run, embed: ImageEmbedder) -> None:
    gallery, root = digits_run.gallery("unseen"), Path(digits_run.info["dataset"]["root"])
    for row in (0, 17, len(gallery) - 1):
        feature = embed(open_image(root / gallery.items["id"].iloc[row]))
        assert feature.dtype == np.float32
        np.testing.assert_allclose(feature, gallery.features[row], atol=1e-4)


def test_embedding_doesnt_change_the_model(digits_run) -> None:
    model = load_model(digits_run)
    trunk, names = model.embedding.trunk, set(model.state_dict())
    ImageEmbedder(digits_run, model)
    assert model.embedding.trunk is trunk
    assert set(model.state_dict()) == names


def test_an_early_run_keeps_torch_and_whole_pictures(digits_run: Run, embed: ImageEmbedder) -> None:
    early = Run(digits_run.path, digits_run.info | {"engine": None})
    old = ImageEmbedder(early, load_model(early))
    assert (old.engine.name, old.shorter) == ("torch", 0)
    assert digits_run.info["engine"] == embed.engine.facts and embed.engine.name == "openvino" and embed.shorter
    picture = Image.effect_mandelbrot((64, 64), (-3, -2.5, 2, 2.5), 100).convert("RGB")
    np.testing.assert_allclose(old(picture), embed(picture), atol=1e-4)


@pytest.mark.parametrize("load", [load_model, load_similarities])
def test_weights_that_are_not_finite_are_damaged(digits_run: Run, tmp_path: Path, load) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "run.json").write_bytes((digits_run.path / "run.json").read_bytes())
    damaged = Run.open(tmp_path)
    state = digits_run.model_state()
    name = next(name for name in state if name.startswith("learned.pddm") and name.endswith("weight"))
    state[name][0] = torch.nan
    damaged.save_model(state, {})
    with pytest.raises(RunError, match=rf"model\.safetensors is damaged: .*NaN or infinity in {name}\. Train again"):
        load(damaged)


@pytest.mark.parametrize("size", [(1, 1), (1, 60_000), (60_000, 1), (3, 5)])
def test_pictures_of_any_shape_are_embedded(embed: ImageEmbedder, size: tuple[int, int]) -> None:
    feature = embed(Image.new("RGB", size, "red"))
    assert np.linalg.norm(feature) == pytest.approx(1, abs=1e-4)


def test_the_middle_of_a_long_strip_is_embedded(embed: ImageEmbedder) -> None:
    strip = Image.new("RGB", (10 * LONGEST_SHAPE * 4, 10), "red")
    strip.paste("blue", (strip.width // 2 - 20, 0, strip.width // 2 + 20, 10))
    middle = strip.crop((strip.width // 2 - 250, 0, strip.width // 2 + 250, 10))
    np.testing.assert_allclose(embed(strip), embed(middle), atol=1e-6)


@pytest.mark.parametrize("size", [(1, 60_000), (60_000, 1), (3, 5000)])
def test_a_long_strip_has_the_same_feature_in_training_and_by_upload(
    tmp_path: Path, embed: ImageEmbedder, digits_run, size: tuple[int, int]
) -> None:
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)).save(tmp_path / "strip.png")
    config = digits_run.config
    pooled = torch.from_numpy(file_features(embed.engine, [tmp_path / "strip.png"], resize=config.resize))
    with torch.no_grad():
        trained = load_model(digits_run).embedding.project(pooled)[0].numpy()
    np.testing.assert_allclose(embed(open_image(tmp_path / "strip.png")), trained, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_both_precisions_of_a_model_rank_alike(digits_run, engine: str) -> None:
    """One model, its trunk in 32 bits and in bf16: the features differ little, and all behind the trunk is exact."""
    model, gallery, config = load_model(digits_run), digits_run.gallery("unseen"), digits_run.config
    paths = [Path(digits_run.info["dataset"]["root"]) / item for item in gallery.items["id"]]
    labels = gallery.items["label"].to_numpy()
    features: dict[str, np.ndarray] = {}
    recalls: dict[str, list[float]] = {}
    for precision in ("32", "bf16"):
        trunk = Engine(
            model.embedding.trunk, size=config.image_size, device=torch.device("cpu"), precision=precision,
            name=engine, fallback=False,
        )  # fmt: skip
        with torch.no_grad():
            of = model.embedding.project(torch.from_numpy(file_features(trunk, paths, resize=config.resize)))
        features[precision] = of.numpy()
        np.testing.assert_allclose(np.linalg.norm(features[precision], axis=1), 1, atol=1e-6)
        recalls[precision] = [
            100 * evaluate(model.similarity(name), of, of, labels, labels, True).metrics["recall@1"]
            for name in ("euclidean", "pddm")
        ]
    cosines = (features["32"] * features["bf16"]).sum(1)
    assert cosines.mean() > 0.995 and cosines.min() > 0.97
    if engine == "torch" or torch.ops.mkldnn._is_mkldnn_bf16_supported():  # else OpenVINO computes in 32 bits
        assert cosines.min() < 1 - 1e-6
    by_distance, by_score = np.abs(np.subtract(recalls["32"], recalls["bf16"]))
    assert by_distance <= 2 and by_score <= 5

"""Engines return what torch returns in 32 bits, and the one that can is taken."""

from __future__ import annotations

import logging
import subprocess
import sys

import numpy as np
import pytest
import torch
from jaxtyping import UInt8

from pddm_lab.errors import ConfigError
from pddm_lab.model.engine import TOLERANCE, Engine
from pddm_lab.model.trunks import Trunk, load_trunk

CPU = torch.device("cpu")


def images(count: int, size: int = 64) -> UInt8[np.ndarray, "n 3 size size"]:
    return np.random.default_rng(0).integers(0, 256, (count, 3, size, size), dtype=np.uint8)


@pytest.fixture(scope="module")
def lite() -> Trunk:
    return load_trunk("efficientnet_lite0").eval()


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("efficientnet_lite0", 64),
        ("googlenet", 64),
        ("resnet18", 64),
        pytest.param("vit_b_16", 224, marks=pytest.mark.slow),
    ],
)
def test_openvino_returns_what_torch_returns(name: str, size: int) -> None:
    torch.manual_seed(0)
    trunk = load_trunk(name, "imagenet" if name == "efficientnet_lite0" else "none").eval()
    engine = Engine(trunk, size=size, device=CPU, fallback=False)
    for count in (1, 2) if name == "vit_b_16" else (1, 2, 7, 32):
        batch = images(count, size)
        with torch.no_grad():
            expected = trunk(torch.from_numpy(batch)).numpy()
        np.testing.assert_allclose(engine(batch), expected, atol=TOLERANCE["32"] * np.abs(expected).max())
    assert engine.name == "openvino"


def test_the_features_repeat_to_the_last_bit(lite: Trunk) -> None:
    batch = images(20)
    first, second = (Engine(lite, size=64, device=CPU)(batch) for _ in range(2))
    np.testing.assert_array_equal(first, second)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["openvino", "torch"])
def test_bf16_is_near(lite: Trunk, name: str) -> None:
    exact, near = (Engine(lite, size=64, device=CPU, precision=one, name=name)(images(4)) for one in ("32", "bf16"))
    cosine = (exact * near).sum(1) / np.linalg.norm(exact, axis=1) / np.linalg.norm(near, axis=1)
    assert near.dtype == np.float32 and cosine.min() > 0.98


def test_what_can_is_taken(lite: Trunk, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = Engine(lite, size=64, device=CPU, precision="bf16").facts
    assert (facts["name"], facts["precision"]) == ("openvino", "bf16") and facts["version"][0].isdigit()
    assert Engine(lite, size=64, device=torch.device("cuda")).name == "torch"
    assert Engine(lite, size=64, device=CPU, precision="fp16").name == "torch"
    monkeypatch.setattr("pddm_lab.model.engine.find_spec", lambda _: None)
    assert Engine(lite, size=64, device=CPU).name == "torch"


class _Odd(torch.nn.Module):
    """Returns other features once it is traced."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels.mean(dim=(2, 3)) + float(torch.jit.is_tracing())


class _Broken(torch.nn.Module):
    """Can't be traced."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        if torch.jit.is_tracing():
            raise RuntimeError("no such operation")
        return pixels.mean(dim=(2, 3))


@pytest.mark.parametrize(("network", "reason"), [(_Odd(), "features differ"), (_Broken(), "no such operation")])
def test_torch_computes_what_openvino_cannot(
    network: torch.nn.Module, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    trunk = Trunk(network, 3, (0.0,) * 3, (1 / 255,) * 3).eval()
    engine = Engine(trunk, size=16, device=CPU)
    with caplog.at_level(logging.WARNING):
        features = engine(images(3, 16))
    assert engine.facts["name"] == "torch" and reason in caplog.text
    np.testing.assert_allclose(features, images(3, 16).mean(axis=(2, 3)), rtol=1e-4)
    with pytest.raises((ConfigError, RuntimeError), match=reason):
        Engine(trunk, size=16, device=CPU, fallback=False).start()
    assert engine.of(trunk).name == "torch", "what failed isn't tried again"


def test_openvino_is_imported_by_the_first_picture() -> None:
    import subprocess
    import sys

    code = "import sys, pddm_lab.runs.model; print('openvino' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


SIGNAL = """
import faulthandler, gc, signal
faulthandler.enable()  # as a notebook's kernel does
import numpy as np, torch
from pddm_lab.model.engine import Engine
from pddm_lab.model.trunks import Trunk
signal.signal(signal.SIGUSR1, lambda *_: print("handled"))
def engine():
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    trunk = Trunk(network, 4, (0.0,) * 3, (1 / 255,) * 3).eval()
    made = Engine(trunk, size=16, device=torch.device("cpu"), fallback=False)
    made(np.zeros((1, 3, 16, 16), np.uint8))
    return made
engines = [engine(), engine()]
for _ in range(2):
    del engines[0]
    gc.collect()
signal.raise_signal(signal.SIGUSR1)
"""


def test_a_signal_is_handled_after_engines_are_gone_in_any_order() -> None:
    ended = subprocess.run([sys.executable, "-c", SIGNAL], capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (0, "handled\n"), ended.stderr

import pytest
import torch
from safetensors.torch import save_file

from pddm_lab.config import OFFLINE_TRUNKS
from pddm_lab.errors import ConfigError
from pddm_lab.model.trunks import fuse_batch_norms, load_trunk, weights_fingerprint


def images(side=64, count=2):
    return torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_the_default_trunk_is_pretrained_and_normalises_its_input():
    trunk = load_trunk().eval()
    assert trunk.dim == 1280
    torch.testing.assert_close(trunk.mean.flatten(), torch.full((3,), 127.0))
    torch.testing.assert_close(trunk.std.flatten(), torch.full((3,), 128.0))
    with torch.no_grad():
        features = trunk(images())
        by_hand = trunk.network((images().float() - 127) / 128)
    assert features.shape == (2, 1280)
    torch.testing.assert_close(features, by_hand, atol=1e-4, rtol=1e-4)
    assert (
        weights_fingerprint(trunk)
        == weights_fingerprint(load_trunk())
        != weights_fingerprint(load_trunk(weights="none"))
    )


def test_offline_trunks_are_pretrained_without_a_network(monkeypatch):
    def refuse(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr("socket.socket.connect", refuse)
    sizes = []
    for name in OFFLINE_TRUNKS:
        trunk = load_trunk(name).eval()
        with torch.no_grad():
            one, other = trunk(images(96))
        # With random weights two images of noise have a cosine of 0.96 and more.
        assert trunk.dim == len(one) == 1280
        assert torch.cosine_similarity(one, other, dim=0) < 0.92
        sizes.append(sum(weight.numel() for weight in trunk.parameters()))
    assert sizes == sorted(set(sizes)), "the fastest first"


@pytest.mark.parametrize(("name", "dim"), [("googlenet", 1024), ("resnet18", 512), ("mobilenet_v3_small", 1024)])
def test_torchvision_trunks_by_name(name, dim):
    trunk = load_trunk(name, "none")
    assert trunk.dim == dim
    assert trunk(images()).shape == (2, dim)


@pytest.mark.parametrize("name", [*OFFLINE_TRUNKS, "googlenet", "resnet18"])
def test_fused_batch_norms_give_equal_features(name):
    trunk = load_trunk(name, "imagenet" if name in OFFLINE_TRUNKS else "none").eval()
    fused = fuse_batch_norms(trunk)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in fused.modules())
    with torch.no_grad():
        torch.testing.assert_close(fused(images()), trunk(images()), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_weights_from_a_file(tmp_path, suffix):
    from torchvision.models import resnet18

    network, path = resnet18(), tmp_path / f"weights{suffix}"
    state = {name: value for name, value in network.state_dict().items() if not name.startswith("fc.")}
    torch.save({"state_dict": state}, path) if suffix == ".pth" else save_file(state, path)
    trunk = load_trunk("resnet18", str(path))
    torch.testing.assert_close(trunk.state_dict()["network.conv1.weight"], state["conv1.weight"])


def test_what_cannot_be_had_is_one_clear_error(tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match=r"Unknown trunk 'resnet19'\. Expected .*efficientnet_lite2 or a torchvision"):
        load_trunk("resnet19")
    with pytest.raises(ConfigError, match="no linear classifier"):
        load_trunk("squeezenet1_1", "none")
    with pytest.raises(ConfigError, match="does not exist"):
        load_trunk("resnet18", str(tmp_path / "none.pth"))
    (tmp_path / "damaged.pth").write_bytes(b"not weights")
    with pytest.raises(ConfigError, match="is not a state dict of resnet18"):
        load_trunk("resnet18", str(tmp_path / "damaged.pth"))
    torch.save({"conv1.weight": torch.zeros(64, 3, 7, 7)}, tmp_path / "other.pth")
    with pytest.raises(ConfigError, match=r"lacks \d+ entries"):
        load_trunk("resnet18", str(tmp_path / "other.pth"))


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_pretrained_networks_lose_their_auxiliary_classifiers(name, monkeypatch):
    from torchvision import models
    from torchvision.models import WeightsEnum

    pretrained = models.get_model(name, weights=None, init_weights=False, aux_logits=True).state_dict()
    monkeypatch.setattr(WeightsEnum, "get_state_dict", lambda *_, **__: pretrained)
    trunk = load_trunk(name, "imagenet").train()
    assert not any("aux" in key.lower() for key in trunk.state_dict())
    assert trunk(images(96)).shape == (2, trunk.dim)
    first = next(key for key in pretrained if key.endswith("conv.weight"))
    torch.testing.assert_close(trunk.state_dict()[f"network.{first}"], pretrained[first])


def test_no_network_for_torchvision_weights(monkeypatch):
    from urllib.error import URLError

    def refuse(*_, **__):
        raise URLError("no network")

    monkeypatch.setattr("torch.hub.download_url_to_file", refuse)
    monkeypatch.setattr("torch.hub.get_dir", lambda: "/nonexistent-cache")
    monkeypatch.setattr("os.makedirs", lambda *_, **__: None)
    with pytest.raises(ConfigError, match=r"could not be downloaded.*--trunk efficientnet_lite0 or efficientnet_lite1"):
        load_trunk("resnet18", "imagenet")

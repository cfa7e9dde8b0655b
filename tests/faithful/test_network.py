"""The network: layers, dilations, what is trained, and how a head begins."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torchvision
from torch import nn

from ncdss_lib.models.segmenter import Segmenter, build_segmenter
from ncdss_lib.recipes import Recipe
from tests.faithful.plain import network, training
from tests.faithful.plain.data import normalised

PAPER = Recipe().model.model_copy(update={"weights": "none"})  # no network here: random weights in the place of ImageNet's


def randomised(model: Segmenter, seed: int = 0) -> Segmenter:
    """Batch-norm as after a training. Fresh, timm's closes every residual branch, which would hide what is in it."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low, high in ((module.weight, 0.5, 1.0), (module.running_var, 0.5, 2.0), (module.running_mean, -0.3, 0.3)):
                nn.init.uniform_(tensor, low, high, generator=generator)
    return model


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 3, 64, 64), dtype=np.uint8))


def as_float(images: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(np.stack([normalised(image.permute(1, 2, 0).numpy()) for image in images])).float()


@pytest.fixture(scope="module")
def model() -> Segmenter:
    return randomised(build_segmenter(PAPER, 16))


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


@torch.no_grad()
def test_logits_in_evaluation_mode(model, images):
    """To float32's rounding through 54 convolutions: 1e-5 of the logits' norm."""
    expected = network.segment(dict(model.state_dict()), as_float(images), 64)
    assert relative(model.eval()(images, 64), expected) < 1e-5
    assert model(images, 64).shape == (3, 16, 64, 64)
    assert model(images).shape == (3, 16, 8, 8)


@torch.no_grad()
def test_logits_and_running_statistics_in_training_mode(images):
    """The same with dropout drawn from one seed. (A model of its own: its statistics change.)"""
    model = randomised(build_segmenter(PAPER, 16))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    weights = dict(before)
    torch.manual_seed(5)
    found = model.train()(images, 64)
    torch.manual_seed(5)
    assert relative(found, network.segment(weights, as_float(images), 64, training=True)) < 1e-4  # batch statistics of three images
    for name, tensor in model.state_dict().items():
        if name.endswith(("running_mean", "running_var")):
            torch.testing.assert_close(tensor, weights[name], rtol=1e-4, atol=1e-5)
            assert torch.equal(tensor, before[name]) != name.startswith("head.")  # the backbone's stay ImageNet's
    torch.manual_seed(6)
    assert relative(model(images, 64), found) > 0.01  # dropout is active


@torch.no_grad()
def test_features_are_those_of_torchvisions_dilated_resnet(model, images):
    theirs = torchvision.models.resnet50(replace_stride_with_dilation=[False, True, True]).eval()
    missing, unexpected = theirs.load_state_dict(model.encoder.backbone.state_dict(), strict=False)
    assert (missing, unexpected) == (["fc.weight", "fc.bias"], [])
    x = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(as_float(images)))))
    expected = theirs.layer4(theirs.layer3(theirs.layer2(theirs.layer1(x))))
    assert expected.shape == (3, 2048, 8, 8)
    assert relative(model.eval().encoder(images), expected) < 1e-5


def test_what_is_trained(model):
    groups = training.groups(dict(model.state_dict()))
    assert {name for name, p in model.named_parameters() if p.requires_grad} == {*groups["head"], *groups["backbone"]}
    frozen = {name.split(".")[2] for name, p in model.named_parameters() if not p.requires_grad}
    assert frozen == {"conv1", "bn1", "layer1", "layer2"}


def test_a_head_begins_as_published():
    """As published: kaiming_normal with fan_in and relu, batch-norm 1 and 0. The spread of n numbers is known to about 1 / sqrt(2 n)."""
    model = build_segmenter(PAPER, 26, seed=3)
    for module in model.head.modules():
        if isinstance(module, nn.Conv2d):
            fan_in = module.in_channels * module.kernel_size[0] * module.kernel_size[1]
            expected = (2 / fan_in) ** 0.5
            assert module.weight.std().item() == pytest.approx(expected, rel=4 / (2 * module.weight.numel()) ** 0.5)
        if isinstance(module, nn.BatchNorm2d):
            assert (module.weight == 1).all()
            assert (module.bias == 0).all()

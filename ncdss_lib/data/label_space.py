"""Original ids, contiguous ids and names, for one split into base and novel classes.

Contiguous ids are ``0`` background, ``1..B`` base classes in ascending original id, then ``B+1..``
novel: the novel classes in ascending original id when a ground-truth mask is re-indexed, the novel
*clusters* when a network predicts. ``255`` is ignored.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

BACKGROUND = 0
IGNORE = 255


@dataclass(frozen=True)
class LabelSpace:
    """All foreground classes of a data set and which of them are novel.

    Args:
        classes: names of the foreground classes; ``classes[i]`` has original id ``i + 1``.
        novel_ids: original ids of the novel classes, ascending.

    Raises:
        ValueError: when ``novel_ids`` are not such ids, or there are more than 254 classes.
    """

    classes: tuple[str, ...]
    novel_ids: tuple[int, ...]

    def __post_init__(self) -> None:
        if list(self.novel_ids) != sorted(set(self.novel_ids)):
            raise ValueError(f"novel_ids must be ascending and unique, got {self.novel_ids}")
        if not self.novel_ids or self.novel_ids[0] < 1 or self.novel_ids[-1] > len(self.classes):
            raise ValueError(f"novel_ids must lie in 1..{len(self.classes)}, got {self.novel_ids}")
        if len(self.classes) >= IGNORE:
            raise ValueError(
                f"at most {IGNORE - 1} classes fit an 8-bit mask, got {len(self.classes)}"
            )

    @cached_property
    def base_ids(self) -> tuple[int, ...]:
        """Original ids of the base classes, ascending."""
        return tuple(i for i in range(1, len(self.classes) + 1) if i not in self.novel_ids)

    @property
    def num_base(self) -> int:
        """B, the number of base classes (background not counted)."""
        return len(self.base_ids)

    @property
    def num_novel(self) -> int:
        """The number of novel classes."""
        return len(self.novel_ids)

    @cached_property
    def base_names(self) -> tuple[str, ...]:
        return tuple(self.classes[i - 1] for i in self.base_ids)

    @cached_property
    def novel_names(self) -> tuple[str, ...]:
        return tuple(self.classes[i - 1] for i in self.novel_ids)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names by contiguous id: background, base, novel."""
        return ("background", *self.base_names, *self.novel_names)

    @cached_property
    def _original(self) -> np.ndarray:
        """Original ids by contiguous id, uint8 [1 + B + novel]."""
        return np.array([BACKGROUND, *self.base_ids, *self.novel_ids], np.uint8)

    def to_contiguous(self, mask: np.ndarray, *, hide_novel: bool = False) -> np.ndarray:
        """Re-index a mask of original ids (uint8, any shape) to contiguous ids (uint8, same shape).

        Args:
            hide_novel: make novel classes background, as the base model sees them.
        """
        table = np.full(256, IGNORE, np.uint8)
        table[self._original] = np.arange(len(self._original))
        if hide_novel:
            table[list(self.novel_ids)] = BACKGROUND
        return table[mask]

    def to_original(self, contiguous: np.ndarray) -> np.ndarray:
        """Inverse of :meth:`to_contiguous` (uint8, same shape); 255 stays 255."""
        table = np.full(256, IGNORE, np.uint8)
        table[: len(self._original)] = self._original
        return table[contiguous]

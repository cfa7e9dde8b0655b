"""Scenes that several tests look at."""

from __future__ import annotations

import pytest

from toyscenes import Scene, render_scene


@pytest.fixture(scope="session")
def scenes() -> list[Scene]:
    return [render_scene((0, i)) for i in range(120)]

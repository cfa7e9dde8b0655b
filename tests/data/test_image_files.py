"""What reads of pictures share; the readers are tested with the data sets that use them."""

from __future__ import annotations

import os

import pytest

from ncdss_lib.data.image_files import in_threads
from ncdss_lib.system.errors import InputError


def test_threads_keep_the_order_and_stop_at_the_first_error() -> None:
    assert in_threads(lambda x: x * x, range(1000), "squares") == [x * x for x in range(1000)]
    done: list[int] = []

    def fails(x: int) -> None:
        if x == 3:
            raise InputError("three")
        done.append(x)
        os.sched_yield()

    with pytest.raises(InputError, match="three"):
        in_threads(fails, range(200_000), "numbers")
    assert len(done) < 150_000

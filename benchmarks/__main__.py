"""All benchmarks, one after the other."""

from __future__ import annotations

from importlib import import_module

from benchmarks import NAMES, __doc__
from benchmarks.measure import main

if __name__ == "__main__":
    main({name: import_module(f"benchmarks.{name}").run for name in NAMES}, __doc__)

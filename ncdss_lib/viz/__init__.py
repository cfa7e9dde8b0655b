"""Figures, explorers and small displays for notebooks.

They read results; nothing else in the library imports them.
"""

from ncdss_lib.viz.tables import percent, say, show_source, table

__all__ = ["percent", "say", "show_source", "table"]

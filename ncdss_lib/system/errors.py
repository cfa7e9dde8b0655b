"""The two ways a command can end badly, and the exit status of each."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class NCDSSError(Exception):
    """An error for the user: its message says what was found, what was expected, what to do."""

    exit_code = 1

    def _render_traceback_(self) -> list[str]:
        """What a notebook shows of it (IPython asks for this): the message, no frames."""
        return [f"{type(self).__name__}: {self}"]


class InputError(NCDSSError):
    """The input or the options are wrong (exit status 2). Nothing was written."""

    exit_code = 2


class RunError(NCDSSError):
    """The work failed (exit status 1): a full disk, a loss that is not finite, a notebook."""


class Terminated(KeyboardInterrupt):
    """SIGTERM, by which batch systems end a process: it unwinds everything as Ctrl-C does."""


def did_you_mean(name: str, valid: Iterable[str]) -> str:
    """The valid spelling nearest to ``name`` as a phrase for an error message, then all of them."""
    valid = sorted(valid)
    close = difflib.get_close_matches(name, valid, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{hint}Valid: {', '.join(valid)}."

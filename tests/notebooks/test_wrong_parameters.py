"""What a stranger sees who changes a parameter in the first cell to something wrong: a message, not the library's frames."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
import papermill
import pytest
from IPython.core.interactiveshell import InteractiveShell
from papermill.exceptions import PapermillExecutionError

from tests.conftest import REPO

WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "a text for a list": ({"overrides": "eums.epochs=5"}, "overrides = 'eums.epochs=5' does not fit: expected a list of texts"),
    "a text for a number": ({"fold": "0"}, "fold = '0' does not fit: expected a whole number"),
    "a mistyped recipe": ({"recipe": "labtop"}, "unknown recipe 'labtop': did you mean 'laptop'?"),
    "a rate that is no number": ({"overrides": ["eums.lr=.inf"]}, "--set eums.lr=inf does not fit: input should be a finite number"),
    "a folder that is not there": ({"dataset": "pascal5i", "data_root": "absent"}, "absent is not a folder"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_cell_with_a_wrong_parameter_shows_one_line(name, capsys):
    parameters, message = WRONG[name]
    shell = InteractiveShell.instance()
    result = shell.run_cell(f"from ncdss_lib.runs.pipeline import open_run\nopen_run(**{parameters!r})")
    assert not result.success
    shown = capsys.readouterr().out.strip()
    assert shown.startswith(f"InputError: {message}")
    assert "\n" not in shown


@pytest.mark.slow
@pytest.mark.parametrize("name", WRONG)
def test_papermill_shows_and_keeps_one_line(name, tmp_path: Path):
    parameters, message = WRONG[name]
    source, out = REPO / "notebooks" / "01_data.ipynb", tmp_path / "out.ipynb"
    with pytest.raises(PapermillExecutionError) as caught:
        papermill.execute_notebook(source, out, parameters, cwd=source.parent, kernel_name="python3", progress_bar=False)
    assert message in caught.value.evalue
    assert len(str(caught.value).strip().splitlines()) < 12
    outputs = [output for cell in nbformat.read(out, as_version=4).cells for output in cell.get("outputs", ())]
    (failed,) = (output for output in outputs if output.output_type == "error")
    assert failed.traceback == [f"InputError: {failed.evalue}"]

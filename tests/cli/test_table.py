"""Tables on terminals of any width."""

import re
from pathlib import Path

import pytest
from rich.table import Table

from detrcli.checkpoints.names import KNOWN_MODELS
from detrcli.cli.table import print_detections, print_fitting
from detrcli.outputs.record import Detection, ImageResult

from ..detr_process import on_a_terminal


def test_models_on_a_narrow_terminal(tmp_path: Path) -> None:
    text = on_a_terminal("models", cwd=tmp_path, settings={"COLUMNS": "40", "HF_HOME": str(tmp_path)})
    *rows, note = re.split(r"\n *\n", text.rstrip())
    assert "is the default" in note
    assert max(map(len, "\n".join(rows).splitlines())) <= 40
    assert len(rows) == len(KNOWN_MODELS)
    for row, model in zip(rows, KNOWN_MODELS, strict=True):
        for part in (
            f"model: {model.name};",
            f"classes: {model.classes};",
            f"params: {model.parameters:g} M;",
            "cached: ",
        ):
            assert part in " ".join(row.split())
        assert ("AP:" in row) == (model.ap is not None)


@pytest.mark.parametrize("columns", [30, 40, 100])
def test_a_table_is_shown_whole(
    columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    table = Table("first title", "second title", "third title")
    table.add_row("one [b]word[/b]", "9" * 12, "")
    print_fitting(table)
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= columns
    assert "…" not in printed
    assert all(word in " ".join(printed.split()) for word in ("first title", "second title", "9" * 12))
    assert ("third title" in printed) == (columns == 100)


def test_detections_on_a_narrow_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    found = Detection(0, "traffic-light-" * 3, 0.5, (1000.0, 1000.0, 2000.0, 2000.0))
    print_detections(ImageResult("a.jpg", "a.jpg", 4000, 4000, "model", (found,)))
    printed = capsys.readouterr().out
    assert "…" not in printed
    assert max(map(len, printed.splitlines())) <= 40
    squeezed = "".join(printed.split())
    assert squeezed == f"class:{found.label};score:0.500;x1,y1–x2,y2:1000,1000–2000,2000"

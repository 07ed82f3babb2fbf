"""Progress of long commands."""

import pytest

from detrcli.cli import progress
from detrcli.cli.console import Console
from detrcli.cli.progress import show_progress


@pytest.mark.parametrize("quiet", [False, True])
def test_without_a_terminal_a_line_a_minute(
    quiet: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    times = [1000.0]
    monkeypatch.setattr(progress, "monotonic", lambda: times[-1])
    with show_progress(Console(quiet=quiet, verbose=False)) as shown:
        for time in (1000.5, 1059, 1061, 1119, 1122, 1130, 1300):
            times.append(time)
            shown.update(len(times) - 1, 7, "evaluating")
    lines = ["evaluating: 3 of 7", "evaluating: 5 of 7", "evaluating: 7 of 7"]
    assert capsys.readouterr().err.splitlines() == ([] if quiet else lines)

"""That the lower bounds of dependencies are said alike everywhere; `tests.lowest_versions` tries them."""

import ast
import re
import sys

from .lowest_versions import EXTRAS, QUICK, ROOT, RUNNERS, lowest, project, without_torch


def test_what_an_onnx_file_needs_has_the_bounds_of_the_project() -> None:
    bounds = {one.partition(">=")[0]: one.partition(";")[0] for one in project()[""]}
    needed = without_torch()
    assert {one.partition(">=")[0] for one in needed} == {"typer", "pillow", "numpy", "rich", "onnxruntime"}
    for one in needed:
        assert one == bounds[one.partition(">=")[0]]


def test_every_requirement_has_a_lower_bound_to_try() -> None:
    for requirements in project().values():
        for one in lowest(requirements):
            assert one.partition(";")[0].count("==") == 1


def test_what_the_quick_tests_import_is_installed_for_them() -> None:
    extras = [one for extra in EXTRAS for one in project()[extra]]
    installed = {re.split(r"[>;]", one)[0].replace("-", "_") for one in (*project()[""], *RUNNERS, *extras)}
    installed |= {"PIL", "yaml", "fontTools", "detrcli"}  # pillow, pyyaml, and what comes with matplotlib
    files = [path for place in QUICK for path in ((ROOT / place).rglob("*.py") if "." not in place else [ROOT / place])]
    assert len(files) > len(QUICK)
    for path in files:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names = [one.name for one in node.names] if isinstance(node, ast.Import) else []
            names += [str(node.module)] if isinstance(node, ast.ImportFrom) and not node.level else []
            for name in names:
                package = name.partition(".")[0]
                assert package in installed | sys.stdlib_module_names, f"{path} imports {name}"

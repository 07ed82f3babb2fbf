"""The lower bounds in pyproject.toml agree with each other; `tests.lowest_versions` tries them."""

import ast
import re
import sys

from .lowest_versions import INSTALLED, QUICK, ROOT, TOOLS, lowest, requirements


def name_of(requirement: str) -> str:
    return re.split(r"[>;\[]", requirement)[0]


def test_the_onnx_group_has_the_bounds_of_the_project() -> None:
    bounds = {one.partition(";")[0] for one in requirements()[""]}
    group = requirements()["group onnx"]
    assert {name_of(one) for one in group} == {"typer", "pillow", "numpy", "rich", "onnxruntime"}
    assert set(group) <= bounds


def test_every_requirement_has_a_lower_bound() -> None:
    for listed in requirements().values():
        for one in lowest(listed):
            assert one.partition(";")[0].count("==") == 1


def test_the_quick_tests_import_only_what_is_installed_for_them() -> None:
    listed = requirements()
    names = [name_of(one) for extra in INSTALLED for one in listed[extra]]
    installed = {name.replace("-", "_") for name in (*names, *TOOLS)} | {"PIL", "yaml", "fontTools", "detrcli"}
    files = [path for place in QUICK for path in ((ROOT / place).rglob("*.py") if "." not in place else [ROOT / place])]
    assert len(files) > len(QUICK)
    for path in files:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            modules = [one.name for one in node.names] if isinstance(node, ast.Import) else []
            modules += [str(node.module)] if isinstance(node, ast.ImportFrom) and not node.level else []
            for module in modules:
                package = module.partition(".")[0]
                assert package in installed | sys.stdlib_module_names, f"{path} imports {module}"

"""That the lower bounds of dependencies are said alike everywhere; `tests.lowest_versions` tries them."""

from .lowest_versions import lowest, project, without_torch


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

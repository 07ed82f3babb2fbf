"""Small models, and the ONNX files of them, each of which is written once for all tests in all their processes."""

import fcntl
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from detrcli.checkpoints.find import find
from detrcli.checkpoints.load import LoadedModel, load_checkpoint
from detrcli.checkpoints.preprocessing import Preprocessing
from detrcli.export.onnx import export_onnx
from detrcli.images.resize import BilinearSampling, ExactLongestEdge, Exactly, Padded, ShortestEdge, Within
from detrcli.models.table_transformer import TableTransformerConfig

from .detr_process import detr as detr_command
from .tiny import tiny_network
from .training.small import small_lwdetr, small_rfdetr

Make = Callable[[], LoadedModel]
DEFAULTS = inspect.signature(export_onnx).parameters


def detr() -> LoadedModel:
    names = tuple(f"thing {label}" for label in range(7))
    return LoadedModel("tiny", tiny_network(), names, Preprocessing(ShortestEdge(64, 96)))


def table_transformer() -> LoadedModel:
    return replace(
        detr(),
        network=tiny_network(kind=TableTransformerConfig),
        preprocessing=Preprocessing(ExactLongestEdge(64, 96)),
    )


def lwdetr() -> LoadedModel:
    """LW-DETR without tied scores, so that the best are the same in every runtime."""
    return without_ties(small_lwdetr(decoder_layers=2))


def rfdetr() -> LoadedModel:
    """RF-DETR, whose images are not rounded to 8 bits."""
    return without_ties(small_rfdetr(decoder_layers=2))


def resized_rfdetr() -> LoadedModel:
    """RF-DETR on images of more patches than it has learned positions for."""
    return replace(rfdetr(), preprocessing=Preprocessing(Exactly(192, 192), BilinearSampling()))


def wide_lwdetr() -> LoadedModel:
    return replace(lwdetr(), preprocessing=Preprocessing(Exactly(192, 128)))


def padded_lwdetr() -> LoadedModel:
    """LW-DETR, whose images keep their aspect ratio."""
    return replace(lwdetr(), preprocessing=Preprocessing(Padded(Within(192, 128), 192, 128)))


def two_scales() -> LoadedModel:
    return without_ties(small_lwdetr(decoder_layers=2, scales=(2, 0.5), points=4))


def demo() -> LoadedModel:
    return load_checkpoint(find("demo"))


def without_ties(model: LoadedModel) -> LoadedModel:
    torch.manual_seed(1)
    for parameter in model.network.parameters():
        parameter.data += torch.randn_like(parameter) * 0.1
    model.network.eval().requires_grad_(False)
    return model


class Exports:
    """Files of models.

    Args:
        folder: where they are, for all processes that run tests.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)

    def __call__(self, make: Make, **options: Any) -> Path:
        """The file of a model, exported with these options."""
        given = [f"{name}={value}" for name, value in options.items() if value != DEFAULTS[name].default]
        path = self.folder / f"{'-'.join([make.__name__, *sorted(given)])}.onnx"
        with self._locked(path.stem):
            if not path.exists():
                model = make()
                before = {name: value.clone() for name, value in model.network.state_dict().items()}
                export_onnx(model, path, source="tests", **options)
                after = model.network.state_dict()
                assert before.keys() == after.keys()
                assert all(torch.equal(before[name], after[name]) for name in before)
        return path

    def demo(self) -> tuple[Path, str]:
        """What `detr export` writes of the demo model, and says."""
        folder = self.folder / "demo"
        said = folder / "said.txt"
        with self._locked("demo"):
            if not said.exists():
                folder.mkdir(exist_ok=True)
                run = detr_command("export", "--model", "demo", "--onnx", cwd=folder)
                assert (run.returncode, run.stdout) == (0, ""), run.stderr
                said.write_text(run.stderr)
        return folder / "demo.onnx", said.read_text()

    @contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        with (self.folder / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

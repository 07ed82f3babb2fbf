"""Training run for `in_two_processes`: FOLDER [--resume] [--stop-at STEP]."""

import argparse
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from detrcli.training import loop
from detrcli.training.augment import Augmentation
from detrcli.training.distributed import init_distributed
from detrcli.training.loop import Trainer

from .small import CONFIG, few_scenes, small_detr


class Stopper:
    """Callback that stops a process at a step, as SIGTERM would."""

    def __init__(self, stop_at: int | None) -> None:
        self.stop_at = stop_at

    def on_step(self, epoch: int, step: int, steps: int, loss: float) -> None:
        if (epoch - 1) * steps + step == self.stop_at:
            os.kill(os.getpid(), signal.SIGTERM)

    def on_evaluation(self, done: int, total: int) -> None:
        pass

    def on_epoch(self, record: Any) -> None:
        pass


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--stop-at", type=int)
    options = parser.parse_args()
    with init_distributed(torch.device("cpu")) as processes:
        last = processes.rank == processes.world_size - 1
        loop.SAVE_INTERVAL = 0 if last else 1e9
        data = few_scenes(options.folder.parent / f"data-{processes.rank}", 8)
        config = replace(CONFIG, epochs=2, batch_size=1, augmentation=Augmentation())
        stopper = Stopper(options.stop_at if last else None)
        model = small_detr(data.classes)
        trainer = Trainer(model, data, data, config, options.folder, processes, workers=0, callback=stopper)
        if options.resume:
            trainer.resume()
        trainer.run()
        digest = [float(value.double().abs().sum()) for value in model.network.state_dict().values()]
        assert len({str(one) for one in processes.all_gather(digest)}) == 1


if __name__ == "__main__":
    main()

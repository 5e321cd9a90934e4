"""A toy run for `torchrun --max-restarts`: its second process kills itself once, at step 5."""

import os
import signal
import sys
from pathlib import Path

from tests.train.toy import ToyModel, toy_run
from train import trainer


def main(folder: Path) -> None:
    run, tasks = toy_run(folder)
    killed = folder.parent / "killed"
    if os.environ["RANK"] == "1" and not killed.exists():
        step = tasks["toy"].training_step

        def dying(model, batch):
            if model.steps == 5:
                killed.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            model.steps += 1
            return step(model, batch)

        tasks["toy"].training_step = dying
    model = ToyModel()
    model.steps = 0
    trainer.train(run, model, tasks)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

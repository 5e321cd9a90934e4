"""Fine-tuning from a checkpoint, one task or several together: python -m train.finetune --config
train/configs/<run>.yaml

As `train.pretrain`, but `model.init_from` is required.
"""

import sys

from train.stop import StopSignal


def main(arguments: list[str] | None = None) -> int:
    # It comes before the import of torch: a signal in those seconds must not kill the run.
    stop = StopSignal().install()
    from train.launch import launch

    return launch(sys.argv[1:] if arguments is None else arguments, stop, needs_checkpoint=True)


if __name__ == "__main__":
    sys.exit(main())

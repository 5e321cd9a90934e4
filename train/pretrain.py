"""Multi-grained pre-training: python -m train.pretrain --config train/configs/<run>.yaml
[--optimizer.lr=2e-4 ...]

SIGTERM and SIGUSR1 save and end the run; the same command goes on with it. Several GPUs:
`accelerate launch -m train.pretrain`.
"""

import sys

from train.stop import StopSignal


def main(arguments: list[str] | None = None) -> int:
    # It comes before the import of torch: a signal in those seconds must not kill the run.
    stop = StopSignal().install()
    from train.launch import launch

    return launch(sys.argv[1:] if arguments is None else arguments, stop)


if __name__ == "__main__":
    sys.exit(main())

"""`python -m x2vlm` is the command `x2vlm`."""

import sys

from x2vlm.cli import main

if __name__ == "__main__":
    sys.exit(main())

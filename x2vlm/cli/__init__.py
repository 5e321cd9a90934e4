"""The command `x2vlm`: one file for each group of commands."""

from x2vlm.cli.command import main

__all__ = ["main"]

"""The Gradio skin over `x2vlm.Predictor`: one stage, many lenses."""

from .demo import build_demo

__all__ = ["build_demo"]

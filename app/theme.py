"""Colours, fonts, styles and scripts. Fonts are the system's own: nothing is fetched."""

from pathlib import Path

import gradio as gr

SANS = (
    "ui-sans-serif",
    "system-ui",
    "-apple-system",
    "Segoe UI",
    "Noto Sans",
    "Noto Sans CJK SC",
    "sans-serif",
)
MONO = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace")

THEME = gr.themes.Base(
    primary_hue="teal",
    secondary_hue="teal",
    neutral_hue="slate",
    radius_size="md",
    font=SANS,
    font_mono=MONO,
).set(
    body_background_fill="*neutral_50",
    body_text_color_subdued="*neutral_600",
    block_shadow="none",
    block_border_width="1px",
    block_label_background_fill="transparent",
    block_label_border_width="0px",
    block_label_text_color="*neutral_500",
    block_title_text_weight="600",
    input_background_fill="white",
    input_background_fill_dark="*neutral_900",
    input_border_width="1px",
    input_border_color="*neutral_300",
    button_secondary_background_fill="white",
    button_secondary_background_fill_dark="*neutral_800",
    button_secondary_background_fill_hover="*neutral_100",
    button_secondary_border_color="*neutral_300",
    button_border_width="1px",
    button_cancel_background_fill="white",
    button_cancel_background_fill_dark="*neutral_800",
    button_cancel_text_color="*neutral_700",
    button_primary_background_fill="*primary_700",
    button_primary_background_fill_hover="*primary_800",
    button_primary_text_color="white",
    button_large_padding="10px 18px",
)

FOLDER = Path(__file__).resolve().parent
CSS = (FOLDER / "theme.css").read_text(encoding="utf-8")


def script(name: str) -> str:
    """A JavaScript function of the page, from its file."""
    return (FOLDER / f"{name}.js").read_text(encoding="utf-8").strip()


HEAD = f"<script>{{{script('page')}}}</script>"

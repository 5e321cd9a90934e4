"""The page's layout: the stage on the left, the tabs on the right. It knows no tab by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gradio as gr

from . import controls, html, limits
from .components import Pick, RawImage, RawVideo
from .examples import Example, thumbnail_of
from .i18n import say, t
from .service.runner import Runner
from .stage import Stage
from .state import ViewOptions, ViewState
from .tabs import Tab

SOURCE_HEIGHT = 150
CAMERA = gr.WebcamOptions(
    mirror=False, constraints={"video": {"facingMode": "environment"}}
)  # a phone's rear camera
SIDES = ("left", "top", "right", "bottom")


def paint(values: dict[Any, Any]) -> None:
    """Give components values before anyone has come, as an event would."""
    for component, value in values.items():
        if isinstance(value, dict) and value.get("__type__") == "update":
            for key, part in value.items():
                if key != "__type__":
                    setattr(component, key, part)
        else:
            component.value = value


class Page:
    """Components and events of one page.

    Attributes:
        tabs: what the page can do, by name.
        painted: the stage that everybody sees first.
    """

    def __init__(
        self,
        runner: Runner,
        tabs: Sequence[Tab],
        stored: dict[str, Example],
        painted: ViewState | None,
    ):
        self.runner, self.stored, self.painted = runner, stored, painted
        self.tabs = {tab.name: tab for tab in tabs}
        self.stage = Stage()
        self.choices = controls.models(runner.models.names, runner.models.open_choice)

    def build(self) -> None:
        # Begins empty, as what Gradio drops is set to how it began.
        self.state = gr.State(time_to_live=limits.TEMP_SECONDS)
        with gr.Row(elem_id="head"):
            gr.HTML(f'<h1>X²-VLM</h1><p class="sub">{say("tagline")}</p>', elem_id="title")
            self.status = gr.HTML(html.head(say("loading")), elem_id="status")
        with gr.Row(elem_id="main"):
            with gr.Column(scale=10, min_width=340, elem_id="stage"):
                self.build_source()
                self.stage.build()
                self.build_below()
            with gr.Column(scale=11, min_width=340, elem_id="lenses"):
                self.build_tabs()
                self.build_data()
        gr.HTML(f'<a class="back" href="#canvas">{say("back_to_stage")}</a>', elem_id="back")
        paint(self.stage.show(self.painted, ViewOptions()))

    def build_source(self) -> None:
        models = self.runner.models
        with gr.Row(elem_id="models"):
            self.model = gr.Dropdown(
                self.choices,
                value=models.default,
                label=t("model"),
                allow_custom_value=models.open_choice,
                elem_id="model",
            )
            self.model_note = gr.HTML(elem_id="model-note")
        with gr.Row(elem_id="toolbar"):
            self.kind = gr.Radio(
                [(t("image"), "image"), (t("video"), "video")],
                value="image",
                show_label=False,
                container=False,
                elem_id="kind",
            )
            self.new_scene = gr.Button(t("new_scene"), min_width=90, elem_id="new-scene")
            self.stop = gr.Button(t("stop"), min_width=60, elem_id="stop")
        with gr.Row(elem_id="source", equal_height=True):
            with gr.Column(scale=1, min_width=150):
                self.build_uploaders()
            tiles = [(name, thumbnail_of(example), "") for name, example in self.stored.items()]
            self.examples = Pick(html.tiles(tiles, side=96), elem_id="examples")
        self.source_note = gr.HTML(elem_id="source-note")

    def build_uploaders(self) -> None:
        origin = self.painted.media.path if self.painted else None
        self.image = RawImage(
            origin,
            label=t("upload_image"),
            sources=["upload", "clipboard", "webcam"],
            webcam_options=CAMERA,
            height=SOURCE_HEIGHT,
            format="png",
            buttons=[],
            placeholder=t("drop_image"),
            elem_id="upload-image",
        )
        self.video = RawVideo(
            label=t("upload_video"),
            sources=["upload", "webcam"],
            webcam_options=CAMERA,
            include_audio=False,  # a recording asks for the camera alone
            height=SOURCE_HEIGHT,
            buttons=[],
            visible=False,
            elem_id="upload-video",
        )

    def build_below(self) -> None:
        with gr.Row(elem_id="region-on", visible=False) as self.region_on:
            self.region_note = gr.HTML(html.note("region_active", "region-on"))
            self.clear_region = gr.Button(t("clear"), size="sm", min_width=80)
        self.stage.build_options()
        with gr.Accordion(t("region"), open=False, elem_id="region"):
            with gr.Row():
                self.sides = [
                    gr.Number(0, label=t(side), min_width=70, precision=0) for side in SIDES
                ]
            self.finger = gr.Checkbox(False, label=t("draw"), elem_id="finger")
        with gr.Accordion(t("frames"), visible=False, elem_id="frames") as self.frames:
            self.strip = Pick(elem_id="strip")
            with gr.Row(equal_height=True):
                self.frame_count = gr.Slider(1, limits.FRAMES, 8, step=1, label=t("frame_count"))
                self.frame_numbers = gr.Textbox(label=t("frame_list"), elem_id="frame-numbers")
            self.use_frames = gr.Button(t("apply_frames"), size="sm", elem_id="use-frames")
        gr.HTML(html.note("privacy"))

    def build_tabs(self) -> None:
        self.lacks = gr.HTML(visible=False, elem_id="lacks")
        texts = self.painted.texts if self.painted else None
        self.items: dict[str, gr.Tab] = {}
        first = next(iter(self.tabs))
        with gr.Tabs(selected=first, overflow_behavior="wrap", elem_id="tabs") as self.bar:
            for name, tab in self.tabs.items():
                with gr.Tab(t(f"tab_{name}"), id=name, elem_id=f"tab-{name}") as self.items[name]:
                    tab.offer(self.choices)
                    tab.build(tab.defaults | (tab.suggest(texts) if texts else {}))
                    tab.fresh = gr.State(time_to_live=limits.TEMP_SECONDS)
                paint(tab.show(self.painted))
        with gr.Accordion(t("truth"), visible=False, elem_id="truth") as self.truth:
            self.truth_card = gr.HTML()

    def build_data(self) -> None:
        with gr.Accordion(t("data"), open=False, elem_id="data"):
            with gr.Row():
                self.make_files = gr.Button(t("make_files"), size="sm", elem_id="make-files")
                self.link = gr.Button(t("link"), size="sm", elem_id="copy-link")
            self.files = gr.Files(
                visible=False, interactive=False, label=t("files"), elem_id="files"
            )
            self.link_box = gr.Textbox(
                visible=False, label=t("link_is"), buttons=["copy"], elem_id="link"
            )
            self.stage.data.render()

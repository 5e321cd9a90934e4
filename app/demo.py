"""The page: stage on the left, lenses on the right, events wired. No inference here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr

from . import api, cards, inputs, limits, viewing
from .arrivals import Arrivals, stored_shown
from .components import Canvas, RawImage, RawVideo
from .examples import Example, load_examples
from .handlers import Handlers
from .i18n import say, t
from .page import Page, initial
from .service.admission import ONLY_UPLOADS
from .service.gradio_patches import refuse_addresses
from .service.models import Models
from .service.runner import Runner
from .tabs import about, ask, describe, find, inspect, match
from .view import Look, present

LENSES = (
    ("describe", describe),
    ("ask", ask),
    ("find", find),
    ("inspect", inspect),
    ("match", match),
)
SOURCE_HEIGHT = 150
CAMERA = gr.WebcamOptions(
    mirror=False, constraints={"video": {"facingMode": "environment"}}
)  # a phone's rear camera
COLORMAPS = ["viridis", "cividis", "magma", "gray"]


def build_demo(
    load: Callable[[str], Any],
    names: tuple[str, ...] = ("mini",),
    *,
    open_choice: bool = False,
    stored: dict[str, Example] | None = None,
    workers: int | None = None,
    threads: int | None = None,
) -> gr.Blocks:
    """The app, ready for `service.server.serve`.

    Args:
        load: name or path of a model -> Predictor; called on first use.
        names: models on offer, the first by default.
        open_choice: visitors may type any model name or path; only for one's own machine.
        stored: examples by name; the bundled ones by default.
        workers, threads: model calls at a time and torch threads of each; by default as
            `x2vlm.serving.plan_concurrency` says.
    """
    stored = load_examples() if stored is None else stored
    runner = Runner(Models(load, names, open_choice=open_choice), workers, threads)
    first = next((example for example in stored.values() if example.kind == "image"), None)
    page = Page(Handlers(runner), first, stored_shown(first, names[0]) if first else None)
    arrivals = Arrivals(runner, stored, page.first_shown)
    with gr.Blocks(
        title="X²-VLM",
        fill_width=True,
        analytics_enabled=False,
        delete_cache=(600, limits.TEMP_SECONDS),
    ) as demo:
        _lay_out(page, runner.models, stored)
        _wire(demo, page, arrivals)
        demo.endpoints = api.publish(runner)
    refuse_addresses(demo, f"{ONLY_UPLOADS} [image/reference]")
    demo.runner = runner
    return demo


def _lay_out(page: Page, models: Models, stored: dict[str, Example]) -> None:
    page.shown = gr.State(
        time_to_live=limits.TEMP_SECONDS
    )  # begins empty, as what Gradio drops is set to how it began
    page.look = gr.State(Look())
    page.head = gr.HTML(cards.head(say("loading")), elem_id="head")
    with gr.Sidebar(open=False, width=300):
        _sidebar(page, models)
    with gr.Row(elem_id="main"):
        with gr.Column(scale=10, min_width=340, elem_id="stage"):
            _source(page, stored)
            _view(page)
            _region(page)
            _frames(page)
        with gr.Column(scale=11, min_width=340, elem_id="lenses"):
            page.lacks = gr.HTML(visible=False, elem_id="lacks")
            with gr.Tabs(selected="find", elem_id="tabs") as page.tabs:
                page.lens = {}
                for name, lens in LENSES:
                    with gr.Tab(t(f"tab_{name}"), id=name, elem_id=f"tab-{name}") as page.lens[
                        name
                    ]:
                        setattr(page, name, lens.build(page))
                with gr.Tab(t("tab_about"), id="about", elem_id="tab-about"):
                    about.build(page)
            with gr.Accordion(t("truth"), open=True, visible=False, elem_id="truth") as page.truth:
                page.truth_card = gr.HTML()
            _data(page)


def _sidebar(page: Page, models: Models) -> None:
    gr.Markdown(t("settings"))
    page.model = gr.Dropdown(
        list(models.names),
        value=models.default,
        label=t("model"),
        allow_custom_value=models.open_choice,
        elem_id="model",
    )
    page.use_model = gr.Button(t("use_model"), size="sm")
    page.model_note = gr.HTML()


def _source(page: Page, stored: dict[str, Example]) -> None:
    """Uploaders beside examples, and fresh scenes."""
    path = str(page.example.path) if page.example else None
    with gr.Row(elem_id="toolbar"):
        page.kind = gr.Radio(
            [(t("image"), "image"), (t("video"), "video")],
            value="image",
            show_label=False,
            container=False,
            elem_id="kind",
        )
        page.new_scene = gr.Button(t("new_scene"), size="md", min_width=110, elem_id="new-scene")
        page.stop = gr.Button(t("stop"), size="md", min_width=70, elem_id="stop")
    with gr.Row(elem_id="source", equal_height=True):
        with gr.Column(scale=1, min_width=180):
            page.image = RawImage(
                path,
                label=t("upload_image"),
                sources=["upload", "clipboard", "webcam"],
                webcam_options=CAMERA,
                height=SOURCE_HEIGHT,
                format="png",
                buttons=[],
                placeholder=t("drop_image"),
                elem_id="upload-image",
            )
            page.video = RawVideo(
                label=t("upload_video"),
                sources=["upload", "webcam"],
                webcam_options=CAMERA,
                # a recording asks for the camera alone, not for the microphone
                include_audio=False,
                height=SOURCE_HEIGHT,
                buttons=[],
                visible=False,
                elem_id="upload-video",
            )
        page.examples = gr.Gallery(
            [(str(thumbnail(example)), example.name) for example in stored.values()],
            label=t("examples"),
            columns=4,
            height=SOURCE_HEIGHT,
            object_fit="cover",
            allow_preview=False,
            interactive=False,
            buttons=[],
            visible=bool(stored),
            scale=1,
            min_width=180,
            elem_id="examples",
        )


def _view(page: Page) -> None:
    nothing = [None, None, None, None, cards.note("empty_stage", "empty"), None]
    first = present(page.first_shown, Look()) if page.first_shown else nothing
    page.canvas = Canvas(first[1], elem_id="canvas")
    page.layers = gr.Radio(**initial(first[2]), label=t("layer"), elem_id="layers")
    page.words = gr.HighlightedText(**initial(first[3]), label=t("words"), elem_id="words")
    page.caption = gr.HTML(first[4], elem_id="twin")
    page.first_data = first[5]
    with gr.Accordion(t("view"), open=False, elem_id="view"):
        with gr.Row():
            show = gr.CheckboxGroup(
                [(t("box_layer"), "box"), (t("heat_layer"), "heat")],
                value=["box", "heat"],
                label=t("show"),
                elem_id="show",
            )
            colormap = gr.Dropdown(
                COLORMAPS, value="viridis", label=t("colormap"), elem_id="colormap"
            )
        with gr.Row():
            opacity = gr.Slider(
                0, 1, Look().opacity, step=0.05, label=t("opacity"), elem_id="opacity"
            )
            threshold = gr.Slider(
                0, 1, Look().threshold, step=0.05, label=t("threshold"), elem_id="threshold"
            )
        smooth = gr.Checkbox(True, label=t("smooth"))
    page.look_controls = [show, opacity, threshold, colormap, smooth]


def _region(page: Page) -> None:
    with gr.Accordion(t("region"), open=False, elem_id="region"):
        with gr.Row():
            page.sides = [
                gr.Number(0, label=t(side), min_width=70, precision=0)
                for side in ("left", "top", "right", "bottom")
            ]
        with gr.Row():
            page.describe_region = gr.Button(
                t("describe_region"), size="sm", min_width=80, elem_id="describe-region"
            )
            page.ask_region = gr.Button(
                t("ask_region"), size="sm", min_width=80, elem_id="ask-region"
            )
            page.rank_region = gr.Button(
                t("rank_region"), size="sm", min_width=80, elem_id="rank-region"
            )
            page.clear_region = gr.Button(t("clear"), size="sm", min_width=80)
        page.finger = gr.Checkbox(False, label=t("draw"))


def _frames(page: Page) -> None:
    with gr.Accordion(t("frames"), visible=False, elem_id="frames") as page.frames:
        page.strip = gr.Gallery(
            show_label=False,
            columns=4,
            height="auto",
            allow_preview=False,
            interactive=False,
            format="png",
            elem_id="strip",
        )
        with gr.Row(equal_height=True):
            page.frame_count = gr.Slider(1, limits.FRAMES, 8, step=1, label=t("frame_count"))
            page.frame_numbers = gr.Textbox(label=t("frame_list"), elem_id="frame-numbers")
        page.use_frames = gr.Button(t("apply_frames"), size="sm", elem_id="use-frames")
    gr.HTML(cards.note("privacy"))


def _data(page: Page) -> None:
    with gr.Accordion(t("data"), open=False, elem_id="data"):
        with gr.Row():
            page.make_files = gr.Button(t("make_files"), size="sm", elem_id="make-files")
            page.link = gr.Button(t("link"), size="sm", elem_id="copy-link")
        page.files = gr.Files(visible=False, interactive=False, label=t("files"), elem_id="files")
        page.link_box = gr.Textbox(
            visible=False, label=t("link_is"), buttons=["copy"], elem_id="link"
        )
        page.link_note = gr.HTML(visible=False)
        page.data = gr.JSON(
            page.first_data, label=t("json"), buttons=["copy"], open=False, elem_id="json"
        )


def thumbnail(example: Example) -> Any:
    """The picture itself, or the stored first frame beside a clip."""
    return example.path if example.kind == "image" else example.path.with_suffix(".jpg")


def _wire(demo: gr.Blocks, page: Page, arrivals: Arrivals) -> None:
    page.stage = [page.shown, page.canvas, page.layers, page.words, page.caption, page.data]
    page.redraw = [page.shown, page.canvas, page.caption]
    for _name, lens in LENSES:
        lens.wire(page)
    _wire_view(page)
    _wire_region(page)
    _wire_arrivals(demo, page, arrivals)


def _wire_view(page: Page) -> None:
    page.on_view(
        [c.change for c in page.look_controls],
        viewing.change_look,
        [page.shown, *page.look_controls],
        [page.look, *page.redraw[1:]],
    )
    page.on_view(
        page.layers.change,
        viewing.choose_layer,
        [page.shown, page.look, page.layers],
        [*page.redraw, page.words],
    )
    page.on_view(page.words.select, viewing.choose_word, [page.shown, page.look], page.redraw)
    page.on_view(page.strip.select, viewing.choose_frame, [page.shown, page.look], page.redraw)
    page.on_view(page.kind.input, viewing.show_source, [page.kind], [page.image, page.video])
    page.on_view(page.make_files.click, viewing.make_files, [page.shown, page.look], [page.files])
    linked = page.on_view(
        page.link.click, viewing.link_to, [page.shown], [page.link_box, page.link_note]
    )
    page.on_view(linked.then, None, [page.link_box], [page.link_box], js=COPY_LINK)


COPY_LINK = """(query) => {
  if (!query) return query;
  const link = new URL(window.location.href);
  const tab = document.querySelector('#tabs [role=tab][aria-selected=true]');
  link.search = query + (tab ? '&tab=' + tab.id.replace('tab-', '').replace('-button', '') : '');
  navigator.clipboard?.writeText(link.toString());
  return link.toString();
}"""
PLACE_REGION = "(...sides) => { window.x2vlmRegion?.(...sides); }"
FINGER = (
    "(on) => { window.x2vlmDraw = on; "
    "document.querySelector('.x2-frame')?.classList.toggle('draw', on); }"
)


def _wire_region(page: Page) -> None:
    page.on_view(page.canvas.select, viewing.draw_region, [], page.sides)
    for side in page.sides:
        page.on_view(side.change, None, page.sides, [], js=PLACE_REGION)
    page.on_view(page.clear_region.click, viewing.no_region, [], page.sides)
    page.on_view(page.finger.change, None, [page.finger], [], js=FINGER)
    handlers, context, sides = page.handlers, page.context, page.sides
    jobs = (  # without rules: the field to mark may lie in a tab that is not open
        (page.describe_region, handlers.describe_region, [], page.describe.outputs, "describe"),
        (page.ask_region, handlers.ask_region, [page.ask.question], page.ask.outputs, "ask"),
        (page.rank_region, handlers.rank_region, [page.match.texts], page.match.outputs, "match"),
    )
    for button, handler, fields, outputs, tab in jobs:
        done = page.on_model(
            button.click, handler, [*context, *fields, *sides], [*outputs, *page.stage]
        )
        page.on_view(
            done.success,
            None,
            [],
            [page.tabs],
            js=f"() => ({{selected: '{tab}', __type__: 'update'}})",
        )


def _wire_arrivals(demo: gr.Blocks, page: Page, arrivals: Arrivals) -> None:
    panels_out = [component for name, _ in LENSES for component in getattr(page, name).outputs]
    arrived = [
        *page.stage,
        *page.sides,
        *(page.files, page.link_box, page.link_note),
        *(
            page.frames,
            page.strip,
            page.frame_numbers,
            page.truth,
            page.truth_card,
            page.find.annotate,
            page.match.over_time,
        ),
        *(
            page.find.clip,
            page.inspect.slider,
            page.inspect.compared,
            page.inspect.check,
            page.match.curve,
        ),
        *panels_out,
    ]
    filled = [
        *arrived,
        page.kind,
        page.image,
        page.video,
        page.ask.question,
        page.find.phrases,
        page.inspect.text,
        page.match.texts,
    ]
    for uploader, arrives in (
        (page.image, page.image.upload),
        (page.video, [page.video.upload, page.video.stop_recording]),
    ):
        uploaded = page.on_model(
            arrives, arrivals.upload, [uploader, page.look, page.model], arrived
        )
        page.on_view(
            uploaded.failure, None, [], [uploader], js="() => null"
        )  # what was refused does not stay beside the stage
        page.on_model(uploader.clear, arrivals.clear, [page.look], arrived)
    frames = [page.shown, page.look, page.model, page.frame_count, page.frame_numbers]
    page.on_model(
        page.use_frames.click,
        arrivals.use_frames,
        frames,
        arrived,
        rules={page.frame_numbers: inputs.frame_numbers},
    )
    page.on_model(
        page.new_scene.click, arrivals.new_scene, [page.kind, page.look, page.model], filled
    )
    page.on_model(page.examples.select, arrivals.example, [page.look, page.model], filled)
    tabs = [page.lens[name] for name, _ in LENSES]
    status = [
        page.head,
        page.model_note,
        page.lacks,
        *tabs,
        *page.find.controls,
        page.inspect.layer,
        page.inspect.head,
    ]
    page.on_model(
        [demo.load, page.use_model.click],
        arrivals.model_status,
        [page.model],
        status,
        show_progress="hidden",
    )
    opened = page.on_view(demo.load, arrivals.open, [], [page.shown, page.tabs])
    page.on_model(
        opened.then, arrivals.arrive, [page.look, page.model], filled, show_progress="hidden"
    )
    page.on_view(page.stop.click, arrivals.stop, [], [], cancels=page.model_events)

"""About & API: what the models can and cannot do, how to call them from elsewhere, how to cite."""

from __future__ import annotations

import gradio as gr

from x2vlm.hub import BUNDLED

from .. import html
from ..export import versions
from ..gallery import gallery
from ..i18n import LANGUAGES, LOCALES
from ..tab import Tab, Values

PYTHON = """
```python
from x2vlm import Predictor

predictor = Predictor.from_pretrained("photo")
scene = predictor.encode("photo.jpg")
for found in predictor.ground(scene, ["a man", "a dog"]):
    print(found.phrase, found.box_xyxy, found.match, found.verdict)
```
"""
CLIENT = """
```python
from gradio_client import Client, handle_file

client = Client("http://127.0.0.1:7860")
client.predict(media=handle_file("photo.jpg"), phrases=["a dog"], api_name="/ground")
```
```bash
curl -F files=@photo.jpg http://127.0.0.1:7860/gradio_api/upload   # answers ["PATH"]
curl -d '{"data": [{"path": "PATH"}, ["a dog"]]}' -H 'Content-Type: application/json' \\
  http://127.0.0.1:7860/gradio_api/call/ground                       # answers {"event_id": "ID"}
curl http://127.0.0.1:7860/gradio_api/call/ground/ID
```
"""
COMMANDS = """
```bash
x2vlm ground photo.jpg "a man" "a dog" --json
x2vlm ask video.mp4 "what is the man doing?"
```
"""
CITATION = """
```bibtex
@article{zeng2022x2vlm,
  title={X$^2$-VLM: All-In-One Pre-trained Model For Vision-Language Tasks},
  author={Zeng, Yan and Zhang, Xinsong and Li, Hang and Wang, Jiawei and Zhang, Jipeng and
          Zhou, Wangchunshu},
  journal={arXiv preprint arXiv:2211.12402}, year={2022}
}
```
"""


class About(Tab):
    """Text, and a gallery of failures."""

    name = "about"
    asks = False
    tours = False

    def build(self, values: Values) -> None:
        with gr.Column(elem_id="about"):
            for language in LANGUAGES:
                gr.Markdown(text_of(language), container=False, elem_classes=f"only-{language}")
            gr.HTML("".join([html.note("failures"), *map(gallery, BUNDLED)]), elem_id="failures")


def text_of(language: str) -> str:
    """The page in one language, with the code and the versions, which have none."""
    parts = {"python": PYTHON, "client": CLIENT, "commands": COMMANDS, "citation": CITATION}
    return LOCALES[language]["about"].format(versions=versions(), **parts)

"""About & API: what the models can and cannot do, how to call them from elsewhere, how to cite."""

from __future__ import annotations

import gradio as gr

from ..export import versions
from ..i18n import LANGUAGES, LOCALES
from ..tab import Tab, Values

PYTHON = """
```python
from x2vlm import Predictor

predictor = Predictor.from_pretrained("mini")
scene = predictor.encode("picture.png")
for found in predictor.ground(scene, ["the red car", "a dog"]):
    print(found.phrase, found.box_xyxy, found.match, found.verdict)
```
"""
CLIENT = """
```python
from gradio_client import Client, handle_file

client = Client("http://127.0.0.1:7860")
client.predict(media=handle_file("picture.png"), phrases=["a dog"], api_name="/ground")
```
```bash
curl -F files=@picture.png http://127.0.0.1:7860/gradio_api/upload   # answers ["PATH"]
curl -d '{"data": [{"path": "PATH"}, ["a dog"]]}' -H 'Content-Type: application/json' \\
  http://127.0.0.1:7860/gradio_api/call/ground                       # answers {"event_id": "ID"}
curl http://127.0.0.1:7860/gradio_api/call/ground/ID
```
"""
COMMANDS = """
```bash
x2vlm ground picture.png "the red car" --json
x2vlm ask video.mp4 "what enters the scene?"
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
    """Text only."""

    name = "about"
    asks = False
    tours = False

    def build(self, values: Values) -> None:
        with gr.Column(elem_id="about"):
            for language in LANGUAGES:
                gr.Markdown(text_of(language), container=False, elem_classes=f"only-{language}")


def text_of(language: str) -> str:
    """The page in one language, with the code and the versions, which have none."""
    parts = {"python": PYTHON, "client": CLIENT, "commands": COMMANDS, "citation": CITATION}
    return LOCALES[language]["about"].format(versions=versions(), **parts)

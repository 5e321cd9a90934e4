"""About & API: what the model can and cannot do, and how to call it from elsewhere."""

from __future__ import annotations

import gradio as gr

from ..page import Page

TEXT = """
## What this is
X²-VLM aligns text with pictures at every grain: objects, regions, whole images and clips. One upload serves all tabs. Every
word has its own map (cross-attention × gradient), computed once; choosing a word, opacity or colour map asks the model nothing.

## What it cannot do
* **`mini` knows the sticker world only**: scenes of emoji-like stickers, as *New scene* draws them. For photographs load an
  official X²-VLM, X-VLM or CCLM checkpoint.
* One box per phrase. “two dogs” is one box. Clips are searched frame by frame, without tracking.
* Frames of a clip are averaged after their positions are added; fine order in time is weak.
* *Match* is the matching head's probability. It ranks well, but is not calibrated. The cut-offs for “found” and “probably
  not here” come from validation scenes of the loaded model.
* Counting, small things, negation and reading text are known weak spots.
* A map shows which patches moved a score. It is no proof of a reason; *Check faithfulness* in Inspect tests it.

## From Python
```python
from x2vlm import Predictor

predictor = Predictor.from_pretrained("mini")
scene = predictor.encode("picture.png")
for found in predictor.ground(scene, ["the red car", "a dog"]):
    print(found.phrase, found.box_xyxy, found.match, found.verdict)
```

## From anywhere: the API
```python
from gradio_client import Client, handle_file

client = Client("http://127.0.0.1:7860")
client.predict(media=handle_file("picture.png"), phrases=["a dog"], api_name="/ground")
```
| endpoint | takes | gives |
|---|---|---|
| `/caption` | media, num_beams, num_captions, max_new_tokens, do_sample, top_p, temperature, seed | captions, best first |
| `/ask` | media, question, choices, top_k, mode | answers with probabilities |
| `/ground` | media, phrases, absent_below, found_from | box, match and verdict of every phrase |
| `/explain` | media, text, target, layer, method | one map a word, on the patch grid |
| `/match` | media, texts | match and similarity of every text |

Media is a picture or a clip as an upload; paths and addresses of yours are never opened. Boxes are `x1, y1, x2, y2` in pixels
of the upright picture. Start the app with `--mcp` to offer the same endpoints as MCP tools, which take media as a
`data:` address. `/healthz` and `/readyz` tell how the server is.

## From the command line
```bash
x2vlm ground picture.png "the red car" --json
x2vlm ask clip.mp4 "what enters the scene?"
```

## Keyboard
Tab moves, Enter presses, arrow keys move between words, tabs and choices. Enter in a one-line field starts its tab. A region
can be typed instead of drawn. Every picture's content is told in words below it.

## Privacy
Uploads are read in a separate, confined process, kept for an hour at most, used for nothing else, and put into no history or
link. There are no analytics.
"""


def build(page: Page) -> None:
    gr.Markdown(TEXT, elem_id="about", container=False)

"""About & API: what the model can and cannot do, and how to call it from elsewhere."""

from __future__ import annotations

import gradio as gr

from ..page import Page

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
| endpoint | takes | gives |
|---|---|---|
| `/caption` | media, num_beams, num_captions, max_new_tokens, do_sample, top_p, temperature, seed | captions, best first |
| `/ask` | media, question, choices, top_k, mode | answers with probabilities |
| `/ground` | media, phrases, absent_below, found_from | box, match and verdict of every phrase |
| `/explain` | media, text, target, layer, method | one map a word, on the patch grid |
| `/match` | media, texts | match and similarity of every text |
"""
COMMANDS = """
```bash
x2vlm ground picture.png "the red car" --json
x2vlm ask clip.mp4 "what enters the scene?"
```
"""

TEXTS = {
    "en": f"""
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
{PYTHON}
## From anywhere: the API
{CLIENT}
Media is a picture or a clip as an upload; paths and addresses of yours are never opened. Boxes are `x1, y1, x2, y2` in pixels
of the upright picture. Start the app with `--mcp` to offer the same endpoints as MCP tools, which take media as a
`data:` address. `/healthz` and `/readyz` tell how the server is.

## From the command line
{COMMANDS}
## Keyboard
Tab moves, Enter presses, arrow keys move between words, tabs and choices. Enter in a one-line field starts its tab. A region
can be typed instead of drawn. Every picture's content is told in words below it.

## Privacy
Uploads are read in a separate, confined process, used for nothing else, and put into no history or link. Their files are
deleted within an hour, and what you see of them an hour after your last step. There are no analytics.
""",
    "ko": f"""
## 무엇인가
X²-VLM은 사물, 영역, 사진 전체, 영상까지 모든 단위에서 글과 그림을 맞춰 봅니다. 한 번 올리면 모든 탭에서 씁니다. 단어마다
지도(교차 주의 × 기울기)가 한 번에 계산되므로, 단어나 불투명도, 색상표를 바꿔도 모델을 다시 부르지 않습니다.

## 하지 못하는 것
* **`mini`는 스티커 세계만 압니다.** *새 장면*이 그리는, 이모지 같은 스티커 장면입니다. 사진에는 공식 X²-VLM, X-VLM, CCLM
  체크포인트를 불러오세요.
* 문구마다 상자는 하나입니다. “two dogs”도 상자 하나입니다. 영상은 추적 없이 프레임마다 찾습니다.
* 영상의 프레임은 위치를 더한 뒤 평균을 내므로 세밀한 시간 순서에는 약합니다.
* *일치*는 대조 헤드의 확률입니다. 순위에는 좋지만 보정된 값은 아닙니다. ‘있음’과 ‘아마 없음’의 경계는 불러온 모델의 검증
  장면에서 정했습니다.
* 개수 세기, 작은 것, 부정, 글자 읽기는 알려진 약점입니다.
* 지도는 점수를 움직인 패치를 보여 줄 뿐 이유의 증거는 아닙니다. 살펴보기의 *충실도 검사*로 시험할 수 있습니다.

## Python에서
{PYTHON}
## 어디서나: API
{CLIENT}
media는 올린 사진이나 영상입니다. 경로나 주소는 열지 않습니다. 상자는 바로 세운 사진의 픽셀로 나타낸 `x1, y1, x2, y2`입니다.
`--mcp`로 시작하면 같은 기능을 MCP 도구로도 제공하며, 이때 media는 `data:` 주소로 받습니다. `/healthz`와 `/readyz`는 서버의
상태를 알려 줍니다.

## 명령줄에서
{COMMANDS}
## 키보드
Tab으로 옮기고 Enter로 누르며, 화살표로 단어와 탭, 선택지 사이를 움직입니다. 한 줄 칸에서 Enter를 누르면 그 탭이 시작됩니다.
영역은 그리는 대신 숫자로 넣을 수 있습니다. 모든 그림의 내용은 그 아래에 글로도 적힙니다.

## 개인정보
올린 파일은 격리된 별도 프로세스에서 읽고, 최대 한 시간만 보관하며, 다른 곳에 쓰지 않고, 기록이나 링크에 담지 않습니다. 사용
통계도 수집하지 않습니다.
""",
    "zh": f"""
## 这是什么
X²-VLM 在物体、区域、整幅图片与视频等各个粒度上对齐文字与画面。上传一次，所有标签页都可使用。
每个词的热图（交叉注意力 × 梯度）一次算好；切换词、不透明度或色图都不会再调用模型。

## 它做不到的
* **`mini` 只认识贴纸世界**：即“新场景”所画的类似表情符号的贴纸场景。若要处理照片，请加载官方的 X²-VLM、X-VLM 或 CCLM 检查点。
* 每个短语一个框，“two dogs”也是一个框。视频逐帧查找，不做跟踪。
* 视频各帧加上位置后取平均，因此对细微的时间顺序较弱。
* “匹配”是匹配头给出的概率，适合排序，但未经校准。“找到”与“可能没有”的界限来自所加载模型的验证场景。
* 计数、细小物体、否定和读字是已知的弱项。
* 热图显示哪些图块影响了分数，并不证明原因；可用“检视”中的“检验忠实度”来测试。

## 在 Python 中
{PYTHON}
## 在任何地方：API
{CLIENT}
media 是上传的图片或视频；不会打开你给出的路径或网址。框为转正后图片的像素坐标 `x1, y1, x2, y2`。
以 `--mcp` 启动可将同样的接口作为 MCP 工具提供，此时 media 用 `data:` 地址传入。`/healthz` 与 `/readyz` 报告服务器的状态。

## 在命令行
{COMMANDS}
## 键盘
Tab 移动，Enter 按下，方向键在词、标签页和选项之间移动。在单行输入框中按 Enter 即开始该标签页的任务。
区域可以输入数字而不必绘制。每幅图的内容都在其下方以文字说明。

## 隐私
上传的文件在独立的受限进程中读取，最多保留一小时，不作他用，也不进入任何历史或链接。没有使用统计。
""",
}


def build(page: Page) -> None:
    with gr.Column(elem_id="about"):
        for language, text in TEXTS.items():
            gr.Markdown(text, container=False, elem_classes=f"only-{language}")

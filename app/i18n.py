"""The page's texts in English, Korean and Chinese. Results of the model are not translated.

Labels go through `gr.I18n`; our own HTML carries all three languages and shows the page's
(`theme.py` picks by `html[lang]`); plain sentences of the moment, such as refusals and stages of
work, are in the language that the request asks for: on the page its own, which its visitor may
switch in the settings.
"""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

import gradio as gr

from .service.gradio_patches import current_request

LANGUAGES = ("en", "ko", "zh")

TEXT: dict[str, tuple[str, str, str]] = {
    # stage
    "tagline": (
        "Describe, ask, find, and see why: in pictures and video",
        "설명하고, 묻고, 찾고, 그 이유를 보세요: 사진과 영상에서",
        "描述、提问、查找，并看到理由：图片与视频",
    ),
    "image": ("Image", "사진", "图片"),
    "video": ("Video", "영상", "视频"),
    "upload_image": ("Your picture", "내 사진", "你的图片"),
    "upload_video": ("Your clip", "내 영상", "你的视频"),
    "drop_image": (
        "Drop a picture here, paste it, or press to choose",
        "사진을 끌어다 놓거나 붙여 넣거나 눌러서 고르세요",
        "拖放、粘贴图片，或点击选择",
    ),
    "media": ("Picture or clip", "사진 또는 영상", "图片或视频"),
    "new_scene": ("New scene", "새 장면", "新场景"),
    "examples": ("Examples", "예시", "示例"),
    "privacy": (
        "Files stay on this server for an hour at most. They are not used for training and not "
        "kept in any history.",
        "파일은 이 서버에 최대 한 시간만 보관됩니다. 학습에 쓰이거나 기록에 남지 않습니다.",
        "文件在服务器上最多保留一小时，不用于训练，也不保留历史。",
    ),
    "stage": ("Stage", "무대", "舞台"),
    "layer": ("In view", "표시 중", "当前显示"),
    "words": (
        "Words: choose one to see its map (◎ all)",
        "단어: 하나를 고르면 그 단어의 지도가 보입니다 (◎ 전체)",
        "词：选择一个查看其热图（◎ 全部）",
    ),
    "view": ("View", "보기", "显示"),
    "show": ("Show", "표시", "显示"),
    "box_layer": ("Box", "상자", "框"),
    "heat_layer": ("Heat", "열지도", "热图"),
    "opacity": ("Opacity", "불투명도", "不透明度"),
    "threshold": (
        "Hide heat below (share of the scale)",
        "이 값보다 낮은 열 숨기기 (눈금 비율)",
        "隐藏低于此值的热度（占刻度比例）",
    ),
    "colormap": ("Colour map", "색상표", "色图"),
    "smooth": (
        "Smooth (off: the model's own patches)",
        "부드럽게 (끄면 모델의 실제 패치)",
        "平滑（关闭则显示模型的原始图块）",
    ),
    "region": (
        "Region: draw on the picture or type it",
        "영역: 그림 위에 그리거나 숫자로 입력",
        "区域：在图上绘制或输入数字",
    ),
    "draw": ("Draw with a finger", "손가락으로 그리기", "用手指绘制"),
    "left": ("Left", "왼쪽", "左"),
    "top": ("Top", "위", "上"),
    "right": ("Right", "오른쪽", "右"),
    "bottom": ("Bottom", "아래", "下"),
    "describe_region": ("Describe it", "설명하기", "描述"),
    "ask_region": ("Ask about it", "질문하기", "提问"),
    "rank_region": ("Rank texts", "문장 순위", "文本排序"),
    "clear": ("Clear", "지우기", "清除"),
    "frames": ("Frames that the model sees", "모델이 보는 프레임", "模型看到的帧"),
    "frame_count": ("How many, evenly spaced", "고르게 뽑을 개수", "均匀抽取的数量"),
    "frame_list": ("Or these frame numbers", "또는 이 프레임 번호", "或指定帧号"),
    "apply_frames": ("Use these frames", "이 프레임 사용", "使用这些帧"),
    "truth": ("What is really in this scene", "이 장면의 실제 내용", "此场景的真实内容"),
    "stop": ("Stop", "중지", "停止"),
    "link": ("Copy link", "링크 복사", "复制链接"),
    "model": ("Model", "모델", "模型"),
    "settings": ("Model and settings", "모델과 설정", "模型与设置"),
    "use_model": ("Use this model", "이 모델 사용", "使用此模型"),
    "data": ("Data and downloads", "데이터와 내려받기", "数据与下载"),
    "json": ("Result as JSON", "결과 JSON", "JSON 结果"),
    "make_files": ("Make files", "파일 만들기", "生成文件"),
    "files": ("Downloads", "내려받기", "下载"),
    "methods": ("Methods sentence", "방법 문장", "方法说明"),
    # tabs
    "tab_describe": ("Describe", "설명", "描述"),
    "tab_ask": ("Ask", "질문", "提问"),
    "tab_find": ("Find", "찾기", "查找"),
    "tab_inspect": ("Inspect", "살펴보기", "检视"),
    "tab_match": ("Match", "대조", "匹配"),
    "tab_about": ("About & API", "정보와 API", "关于与 API"),
    "describe": ("Describe", "설명하기", "描述"),
    "ask": ("Ask", "질문하기", "提问"),
    "find": ("Find", "찾기", "查找"),
    "inspect": ("Show the map", "지도 보기", "显示热图"),
    "rank": ("Rank", "순위 매기기", "排序"),
    "advanced": ("Options", "옵션", "选项"),
    "decoding": ("Decoding", "생성 방식", "解码方式"),
    "beam": ("Beam search", "빔 탐색", "束搜索"),
    "sample": ("Sampling", "표본 추출", "采样"),
    "beams": ("Beams", "빔 개수", "束宽"),
    "candidates": ("Candidates", "후보 개수", "候选数量"),
    "max_tokens": ("Longest caption (word pieces)", "최대 길이 (단어 조각)", "最长描述（词片）"),
    "min_tokens": (
        "Shortest caption (0: the model's own)",
        "최소 길이 (0: 모델 기본)",
        "最短描述（0：模型默认）",
    ),
    "prefix": ("Begins with", "시작 문구", "开头"),
    "top_p": ("Top-p", "Top-p", "Top-p"),
    "temperature": ("Temperature", "온도", "温度"),
    "seed": ("Seed", "시드", "随机种子"),
    "caption": ("Caption", "설명문", "描述"),
    "caption_words": (
        "Caption, words tinted by probability: choose one to see its map",
        "설명문 (확률에 따라 색칠): 단어를 고르면 지도가 보입니다",
        "描述（按概率着色）：选择一个词查看热图",
    ),
    "to_find": ("Find these things", "이것들 찾기", "查找这些"),
    "to_inspect": ("Inspect", "살펴보기", "检视"),
    "to_match": ("Compare texts", "문장 비교", "比较文本"),
    "question": ("Question", "질문", "问题"),
    "question_hint": (
        "What colour is …? How many …? Is there …?",
        "영어로 물어보세요: What colour is …?",
        "请用英语提问：What colour is …?",
    ),
    "ask_mode": ("Answers", "답변 방식", "回答方式"),
    "auto": ("Automatic", "자동", "自动"),
    "ranked": ("Ranked from a list", "목록에서 순위", "从列表排序"),
    "generated": ("Written freely", "자유롭게 생성", "自由生成"),
    "choices": (
        "Your own choices, one per line",
        "직접 정한 후보, 한 줄에 하나",
        "自定义候选，每行一个",
    ),
    "probabilities": (
        "Best answers: choose one to see its map",
        "상위 답변: 고르면 지도가 보입니다",
        "最佳答案：选择一个查看热图",
    ),
    "history": ("Asked so far", "지금까지의 질문", "已提问题"),
    "phrases": (
        "Phrases, one per line or separated by ;",
        "찾을 문구, 한 줄에 하나 또는 ; 로 구분",
        "短语，每行一个或用 ; 分隔",
    ),
    "present_at": ("Found from this match score", "이 점수부터 '있음'", "匹配分达到此值视为找到"),
    "absent_at": ("Probably not here below", "이 점수 아래는 '아마 없음'", "低于此值视为可能没有"),
    "annotate": ("Annotated clip", "표시된 영상 만들기", "生成标注视频"),
    "clip": (
        "Boxes in the frames that the model sees",
        "모델이 보는 프레임의 상자",
        "模型所见帧中的框",
    ),
    "text_to_inspect": ("Text", "문장", "文本"),
    "target": ("Explain the", "설명 대상", "解释对象"),
    "target_match": ("match score", "일치 점수", "匹配分"),
    "target_caption": ("words as a caption", "설명문으로서의 단어", "作为描述的词"),
    "target_answer": ("answer to this question", "이 질문의 답", "此问题的答案"),
    "target_box": ("box", "상자", "框"),
    "layer_number": ("Fusion layer", "융합 층", "融合层"),
    "head_number": (
        "Head (default: mean of all)",
        "헤드 (default: 평균)",
        "注意力头（default：平均）",
    ),
    "method": ("Method", "방법", "方法"),
    "small_multiples": ("Every word", "모든 단어", "所有词"),
    "compare": ("Compare with", "비교할 방법", "对比方法"),
    "compare_run": ("Compare", "비교", "对比"),
    "compared": (
        "Left: chosen method. Right: compared method.",
        "왼쪽: 선택한 방법. 오른쪽: 비교 방법.",
        "左：所选方法。右：对比方法。",
    ),
    "compared_peak": (
        "{method}: hottest at {x} from the left, {y} from the top.",
        "{method}: 왼쪽에서 {x}, 위에서 {y} 지점이 가장 뜨겁습니다.",
        "{method}：距左 {x}、距上 {y} 处最热。",
    ),
    "deletion": ("Check faithfulness", "충실도 검사", "检验忠实度"),
    "texts": ("Texts, one per line", "문장, 한 줄에 하나", "文本，每行一个"),
    "template": ("Template, {} is the text", "틀, {} 자리에 문장", "模板，{} 处为文本"),
    "over_time": (
        "Match over time (first text)",
        "시간에 따른 일치 (첫 문장)",
        "随时间的匹配（首个文本）",
    ),
    # cards
    "phrase": ("phrase, box, share of picture", "문구, 상자, 그림 중 비율", "短语、框、占图比例"),
    "verdict": ("verdict and match", "판정과 일치", "判定与匹配"),
    "heat_inside": ("heat in box", "상자 안 열", "框内热度"),
    "peak_in": ("peak inside", "정점이 안쪽", "峰值在内"),
    "peak_out": ("peak outside", "정점이 바깥", "峰值在外"),
    "region_phrase": ("Phrase", "문구", "短语"),
    "not_there": ("Not there", "없는 것", "不存在"),
    "iou": ("IoU with region", "영역과의 IoU", "与区域的 IoU"),
    "log_prob": ("log p / token", "토큰당 로그확률", "每词片对数概率"),
    "length": ("words", "단어 수", "词数"),
    "match": ("match", "일치", "匹配"),
    "similarity": ("similarity", "유사도", "相似度"),
    "text": ("text", "문장", "文本"),
    "found": ("found", "있음", "找到"),
    "unsure": ("unsure", "불확실", "不确定"),
    "absent": ("probably not here", "아마 없음", "可能没有"),
    "one_box": (
        "The model gives one box per phrase: “two dogs” is one box. Match scores are not "
        "calibrated probabilities.",
        "모델은 문구마다 상자 하나를 냅니다. “two dogs”도 상자 하나입니다. 일치 점수는 보정된 확률이 아닙니다.",
        "模型对每个短语给出一个框：“two dogs”也是一个框。匹配分不是校准过的概率。",
    ),
    "degenerate": (
        "Box {which} covers almost nothing or almost everything; trust it little.",
        "상자 {which}은(는) 거의 비었거나 거의 전체를 덮습니다. 믿기 어렵습니다.",
        "框 {which} 几乎不覆盖或几乎覆盖全图，请谨慎对待。",
    ),
    "cut": (
        "The text was too long and was cut at letter {at}. The model read: “{text}”",
        "문장이 너무 길어 {at}번째 글자에서 잘렸습니다. 모델이 읽은 부분: “{text}”",
        "文本过长，在第 {at} 个字符处截断。模型读到：“{text}”",
    ),
    "caption_cut": (
        "The caption reached the length limit.",
        "설명문이 길이 제한에 닿았습니다.",
        "描述达到长度上限。",
    ),
    "repetitive": (
        "The model repeats itself. Try fewer word pieces or sampling.",
        "모델이 같은 말을 반복합니다. 길이를 줄이거나 표본 추출을 써 보세요.",
        "模型在重复。请减少长度或改用采样。",
    ),
    "disagree": (
        "Match and similarity disagree about the best text. Match sees picture and text together "
        "and is more careful.",
        "일치와 유사도가 가장 좋은 문장을 다르게 봅니다. 일치는 그림과 문장을 함께 보므로 더 신중합니다.",
        "匹配分与相似度对最佳文本看法不同。匹配分同时看图与文，更为谨慎。",
    ),
    "close": (
        "The two best answers are close.",
        "상위 두 답의 차이가 작습니다.",
        "前两个答案很接近。",
    ),
    "weak_spot": (
        "Counts and yes/no questions are known weak spots of this kind of model.",
        "개수와 예/아니요 질문은 이런 모델의 약점입니다.",
        "计数与是非题是此类模型的弱项。",
    ),
    "scale": ("one scale for all words", "모든 단어가 같은 눈금", "所有词共用刻度"),
    "flat": (
        "This map is flat: no place stands out.",
        "이 지도는 평평합니다. 두드러진 곳이 없습니다.",
        "该热图平坦：没有突出的位置。",
    ),
    "twin_found": (
        "“{phrase}”: found, match {match}; box from {left} left, {top} top to {right} right, "
        "{bottom} bottom.",
        "“{phrase}”: 있음, 일치 {match}. 상자는 왼쪽 {left}, 위 {top}부터 오른쪽 {right}, 아래 {bottom}까지.",
        "“{phrase}”：找到，匹配 {match}；框从左 {left}、上 {top} 到右 {right}、下 {bottom}。",
    ),
    "twin_unsure": (
        "“{phrase}”: unsure, match {match}; box from {left} left, {top} top to {right} right, "
        "{bottom} bottom.",
        "“{phrase}”: 불확실, 일치 {match}. 상자는 왼쪽 {left}, 위 {top}부터 오른쪽 {right}, 아래 {bottom}까지.",
        "“{phrase}”：不确定，匹配 {match}；框从左 {left}、上 {top} 到右 {right}、下 {bottom}。",
    ),
    "twin_absent": (
        "“{phrase}”: probably not here, match {match}; the dashed box is the best guess, from "
        "{left} left, {top} top.",
        "“{phrase}”: 아마 없음, 일치 {match}. 점선 상자는 추측이며 왼쪽 {left}, 위 {top}에서 시작합니다.",
        "“{phrase}”：可能没有，匹配 {match}；虚线框是最佳猜测，从左 {left}、上 {top} 起。",
    ),
    "twin_map": (
        "The map of “{what}” is hottest at {x} from the left, {y} from the top.",
        "“{what}”의 지도는 왼쪽에서 {x}, 위에서 {y} 지점이 가장 뜨겁습니다.",
        "“{what}”的热图在距左 {x}、距上 {y} 处最热。",
    ),
    "no_map": (
        "There is no map of this yet. Press Describe or Ask to make it.",
        "이것의 지도가 아직 없습니다. 설명하기나 질문을 누르면 만들어집니다.",
        "此项还没有热图。点击“描述”或“提问”即可生成。",
    ),
    "twin_plain": (
        "{name}: {width} × {height} pixels.",
        "{name}: {width} × {height} 픽셀.",
        "{name}：{width} × {height} 像素。",
    ),
    "honesty": (
        "A map shows which patches moved the explained score. It is not a cause, and a wrong "
        "answer has a map too.",
        "지도는 설명 대상 점수를 움직인 패치를 보여 줍니다. 원인이 아니며, 틀린 답에도 지도가 있습니다.",
        "热图显示影响该分数的图块。它不是原因，错误的答案也有热图。",
    ),
    "numbers": (
        "Score {score}. Entropy {entropy} of {most} bits; {top} of the heat in the hottest tenth "
        "of the patches.",
        "점수 {score}. 엔트로피 {entropy} / {most} 비트. 가장 뜨거운 10 % 패치에 열의 {top}.",
        "分数 {score}。熵 {entropy} / {most} 比特；最热的十分之一图块占热度 {top}。",
    ),
    "faithful": (
        "Faithfulness {value} (above 0: greying the hottest patches lowers the match score faster "
        "than greying random ones).",
        "충실도 {value} (0보다 크면: 가장 뜨거운 패치를 가릴 때 점수가 무작위보다 빨리 떨어집니다).",
        "忠实度 {value}（大于 0：遮住最热图块比随机遮挡更快降低匹配分）。",
    ),
    "by_heat": ("hottest patches greyed", "뜨거운 패치 가림", "遮住最热图块"),
    "by_chance": ("random patches greyed", "무작위 패치 가림", "随机遮挡"),
    "fraction": ("share of patches greyed", "가린 패치 비율", "遮挡比例"),
    "seconds": ("seconds", "초", "秒"),
    "region_answer": (
        "Answered from the region's cut-out.",
        "영역을 잘라 낸 그림으로 답했습니다.",
        "根据裁剪出的区域回答。",
    ),
    "per_frame": (
        "Boxes are found frame by frame, without tracking.",
        "상자는 프레임마다 따로 찾으며 추적하지 않습니다.",
        "框逐帧查找，不做跟踪。",
    ),
    "reading": ("Reading the file", "파일 읽는 중", "正在读取文件"),
    "looking": ("Looking", "보는 중", "正在观察"),
    "thinking": ("Thinking", "생각하는 중", "正在思考"),
    "writing": ("Writing", "쓰는 중", "正在书写"),
    "explaining": ("Drawing the map", "지도 그리는 중", "正在绘制热图"),
    "loading": ("Loading the model …", "모델을 불러오는 중 …", "正在加载模型…"),
    "ready": (
        "{name} · {device} · {hash}",
        "{name} · {device} · {hash}",
        "{name} · {device} · {hash}",
    ),
    # What x2vlm says in English of a model or a file.
    "remark": ("{text}", "{text}", "{text}"),
    "mini_note": (
        "mini knows the sticker world only; for photographs choose an X2-VLM checkpoint",
        "mini는 스티커 세계만 압니다. 사진에는 X2-VLM 체크포인트를 고르세요.",
        "mini 只认识贴纸世界；照片请选择 X2-VLM 检查点。",
    ),
    "video/partial": (
        "{text}",
        "영상의 일부만 읽을 수 있었습니다 ({text})",
        "只能读取视频的一部分（{text}）",
    ),
    "image/animated": (
        "{text}",
        "여러 장이 든 파일이라 첫 장만 봅니다 ({text})",
        "文件含多张图，只看第一张（{text}）",
    ),
    "lacks": (
        "Not with this model: {task}. {reason}",
        "이 모델에 없음: {task}. 체크포인트에 그 일을 하는 헤드가 없습니다 ({reason})",
        "此模型不支持：{task}。该检查点没有相应的头（{reason}）",
    ),
    "lacks_video": (
        "Not with this model: video. {reason}",
        "이 모델은 사진으로만 학습해, 영상은 프레임의 평균으로 봅니다 ({reason})",
        "此模型只用图片训练，视频按各帧的平均来看（{reason}）",
    ),
    "uploads_not_linked": (
        "Links reopen examples and scenes. An upload is never put into a link: download the result "
        "instead.",
        "링크는 예시와 장면만 다시 엽니다. 올린 파일은 링크에 담기지 않으니 결과를 내려받으세요.",
        "链接只能重新打开示例和场景。上传的文件不会放入链接，请下载结果。",
    ),
    "link_is": ("Link to this scene", "이 장면의 링크", "此场景的链接"),
    # empty states
    "empty_stage": (
        "Drop a picture or a clip above, take an example, or press New scene.",
        "위에 사진이나 영상을 놓거나, 예시를 고르거나, 새 장면을 누르세요.",
        "在上方放入图片或视频，选择示例，或点击新场景。",
    ),
    "empty_describe": (
        "Press Describe, and the model says what it sees.",
        "설명하기를 누르면 모델이 본 것을 말합니다.",
        "点击描述，模型会说出所见。",
    ),
    "empty_ask": (
        "Ask anything about the picture, for example “what is left of the dog?”",
        "그림에 대해 영어로 물어보세요. 예: “what is left of the dog?”",
        "用英语提问，例如“what is left of the dog?”",
    ),
    "empty_find": (
        "Name things to look for. Each gets a box, a heat map, and a verdict whether it is there "
        "at all.",
        "찾을 것을 영어로 적으세요. 상자, 열지도, 그리고 실제로 있는지의 판정을 받습니다.",
        "用英语写出要找的东西。每个都有框、热图，以及是否存在的判定。",
    ),
    "empty_inspect": (
        "Write a sentence and see for every word where the model looks.",
        "문장을 영어로 쓰면 단어마다 모델이 보는 곳이 나타납니다.",
        "写一句英语，查看每个词对应模型所看的位置。",
    ),
    "empty_match": (
        "Write several texts; the one that fits the picture best comes first.",
        "여러 문장을 쓰면 그림에 가장 맞는 것이 먼저 나옵니다.",
        "写几条文本；最符合图片的排在最前。",
    ),
}

PREFIX = "x2_"  # apart from Gradio's own keys
I18N = gr.I18n(
    **{
        locale: {PREFIX + key: texts[k] for key, texts in TEXT.items()}
        for k, locales in enumerate((("en",), ("ko", "ko-KR"), ("zh", "zh-CN", "zh-TW")))
        for locale in locales
    }
)

# The page asks in its own language, not in the browser's, and shows what it is told: for the text
# of a 503 Gradio's page would put an English one of its own.
IN_OWN_LANGUAGE = """<script>{
  const send = window.fetch;
  window.fetch = async (...what) => {
    const request = new Request(...what);
    request.headers.set('Accept-Language', document.documentElement.lang);
  request.headers.set('X-From-Page', '1');
    const answer = await send(request);
    return answer.status === 503 ? new Response(answer.body, {status: 429, headers: answer.headers}) : answer;
  };
}</script>"""


def language(headers: Mapping[str, str] | None = None) -> int:
    """Number of the language that a request's headers ask for, by default the present event's;
    English where nobody says."""
    request = current_request()
    wanted = (headers or getattr(request, "headers", {})).get("accept-language", "").lower()
    return next((k for k, spoken in enumerate(LANGUAGES) if wanted.startswith(spoken)), 0)


def t(key: str) -> Any:
    """The text of a label, button or tab."""
    if key not in TEXT:
        raise KeyError(key)
    return I18N(PREFIX + key)


def say(key: str, **values: Any) -> str:
    """The text as HTML in all languages; `values` are escaped."""
    texts = (
        template.format(**{k: escape(str(v)) for k, v in values.items()}) for template in TEXT[key]
    )
    return (
        '<span class="l">'
        + "".join(f'<span lang="{lang}">{text}</span>' for lang, text in zip(LANGUAGES, texts))
        + "</span>"
    )

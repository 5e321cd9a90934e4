"""Errors in the visitor's language: one general sentence per code. The English text has the
details and stands in for a language that lacks the code."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from x2vlm.errors import X2VLMError

from ..i18n import LANGUAGES, language
from .gradio_patches import current_headers

CRASHED = X2VLMError(
    "Something broke on the server and was logged; nothing of yours is lost. Try again.",
    "job/crashed",
)
FROM_PAGE = "x-from-page"

# code -> Korean, Chinese
SENTENCES: dict[str, tuple[str, str]] = {
    "image/empty": (
        "사진이나 영상이 없습니다. 올리거나 예시를 고르세요.",
        "没有图片或视频。请上传或选择示例。",
    ),
    "image/format": (
        "읽을 수 없는 사진 형식입니다. JPEG나 PNG로 저장해 다시 올리세요.",
        "无法读取此图片格式。请存为 JPEG 或 PNG 再上传。",
    ),
    "image/corrupt": (
        "사진이 손상되었거나 끝이 잘렸습니다. 다른 사본을 올리세요.",
        "图片已损坏或不完整。请上传另一份。",
    ),
    "image/pixels": (
        "사진의 픽셀 수가 제한을 넘습니다. 줄여서 다시 올리세요.",
        "图片像素超过限制。请缩小后再上传。",
    ),
    "image/bytes": (
        "파일이 제한보다 큽니다. 줄여서 다시 올리세요.",
        "文件超过大小限制。请缩小后再上传。",
    ),
    "image/memory": (
        "이 사진은 메모리를 너무 많이 씁니다. 줄여서 다시 올리세요.",
        "此图片占用内存过多。请缩小后再上传。",
    ),
    "image/timeout": (
        "사진을 읽는 데 너무 오래 걸립니다. 더 작은 사진을 올리세요.",
        "读取图片超时。请上传更小的图片。",
    ),
    "image/reference": (
        "올린 파일만 읽습니다. 주소나 경로 대신 파일을 올리세요.",
        "只读取上传的文件。请上传文件，不要给出网址或路径。",
    ),
    "video/empty": (
        "영상에 읽을 프레임이 없습니다. 다른 영상을 올리세요.",
        "视频中没有可读的帧。请上传另一个视频。",
    ),
    "video/format": (
        "읽을 수 없는 영상입니다. MP4 (H.264)로 저장해 다시 올리세요.",
        "无法读取此视频。请存为 MP4（H.264）再上传。",
    ),
    "video/corrupt": ("영상이 손상되었습니다. 다른 사본을 올리세요.", "视频已损坏。请上传另一份。"),
    "video/pixels": (
        "영상 화면이 제한보다 큽니다. 줄여서 다시 올리세요.",
        "视频画面超过限制。请缩小后再上传。",
    ),
    "video/bytes": (
        "파일이 제한보다 큽니다. 줄여서 다시 올리세요.",
        "文件超过大小限制。请缩小后再上传。",
    ),
    "video/duration": (
        "영상이 제한보다 깁니다. 잘라서 다시 올리세요.",
        "视频超过时长限制。请剪短后再上传。",
    ),
    "video/frames": (
        "그런 프레임이 영상에 없습니다. 번호를 바꾸세요.",
        "视频中没有该帧。请更改编号。",
    ),
    "video/memory": (
        "이 영상은 메모리를 너무 많이 씁니다. 줄여서 다시 올리세요.",
        "此视频占用内存过多。请缩小后再上传。",
    ),
    "video/timeout": (
        "영상을 읽는 데 너무 오래 걸립니다. 더 짧거나 작은 영상을 올리세요.",
        "读取视频超时。请上传更短或更小的视频。",
    ),
    "video/reference": (
        "올린 파일만 읽습니다. 주소나 경로 대신 파일을 올리세요.",
        "只读取上传的文件。请上传文件，不要给出网址或路径。",
    ),
    "text/empty": (
        "글이 비어 있습니다. 영어로 적고 다시 누르세요.",
        "文字为空。请用英语填写后再试。",
    ),
    "text/long": (
        "글이 너무 길거나 줄이 너무 많습니다. 줄여서 다시 누르세요.",
        "文字过长或行数过多。请缩短后再试。",
    ),
    "text/type": (
        "글의 형식이 맞지 않습니다. 고쳐서 다시 누르세요.",
        "文字格式不对。请修改后再试。",
    ),
    "param/range": (
        "값이 허용 범위를 벗어났거나 아직 정해지지 않았습니다. 바꾸고 다시 누르세요.",
        "数值超出范围或尚未设定。请更改后再试。",
    ),
    "box/invalid": (
        "영역이 없거나 잘못되었습니다. 사진 위에 다시 그리세요.",
        "区域缺失或无效。请在图上重新绘制。",
    ),
    "busy/queue": (
        "지금은 붐빕니다. 아무것도 시작하지 않았으니 잠시 뒤 다시 누르세요.",
        "现在很繁忙，任务未开始。请稍后再试。",
    ),
    "busy/quota": (
        "동시에, 또는 1분 동안 맡길 수 있는 작업 수를 넘었습니다. "
        "앞의 작업이 끝나기를 기다리거나 중지한 뒤 다시 누르세요.",
        "同时或一分钟内的任务数已达上限。请等前面的任务结束，或先停止，再试一次。",
    ),
    "busy/draining": (
        "서버가 다시 시작하는 중입니다. 1분 뒤 다시 누르세요.",
        "服务器正在重启。请一分钟后再试。",
    ),
    "job/cancelled": ("요청대로 멈췄습니다.", "已按要求停止。"),
    "job/timeout": (
        "시간이 너무 오래 걸려 멈췄습니다. 문구나 프레임, 빔을 줄여 다시 누르세요.",
        "用时过长，已停止。请减少短语、帧或束宽后再试。",
    ),
    "job/crashed": (
        "서버에서 문제가 생겨 기록했습니다. 다시 시도하세요.",
        "服务器出错并已记录。请再试一次。",
    ),
    "ckpt/keys": (
        "이 모델은 그 일을 하지 못합니다. 다른 모델을 고르세요.",
        "此模型不支持该任务。请选择其他模型。",
    ),
    "ckpt/source": (
        "그런 모델을 쓸 수 없습니다. 목록에서 고르세요.",
        "没有可用的该模型。请从列表中选择。",
    ),
}


def message(error: X2VLMError, headers: Mapping[str, str] | None = None) -> str:
    """What the visitor reads, in the language of the request (by default the present event's): the
    sentence, and for callers of the API the code in brackets.

    The page's own requests have the header `X-From-Page`.
    """
    headers = current_headers() if headers is None else headers
    known, k = SENTENCES.get(error.code), language(headers)
    sentence = error.message if known is None or LANGUAGES[k] == "en" else known[k - 1]
    return sentence if FROM_PAGE in headers else f"{sentence} [{error.code}]"


def complaint(
    rule: Callable[[Any], Any] | None, value: Any, headers: Mapping[str, str] | None = None
) -> str:
    """What a rule has against a value, in the language of the request; nothing where it has
    nothing."""
    try:
        if rule is not None:
            rule(value)
    except X2VLMError as error:
        return message(error, headers)
    return ""

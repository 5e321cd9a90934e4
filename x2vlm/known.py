"""The table of known checkpoints: the bundled models and every file that the authors of X2-VLM,
X-VLM and CCLM have released."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass


@dataclass(frozen=True)
class KnownCheckpoint:
    """One official file.

    Attributes:
        file: its official file name.
        summary: what it is for.
        gigabytes: how much is downloaded, about.
        vocabulary: name of its tokenizer on the Hugging Face Hub.
        downloadable: False where its authors publish no direct link.
        sha256, size: checked after a download where they are known.
    """

    file: str
    summary: str
    gigabytes: float = 1.0
    vocabulary: str = "bert-base-uncased"
    downloadable: bool = True
    sha256: str | None = None
    size: int | None = None


BUNDLED = ("photo", "mini")
"""Checkpoints that come with the package."""
DEFAULT = BUNDLED[0]
"""The checkpoint of app, command line and every `from_pretrained` where none is named."""
KNOWN = {
    "x2vlm_base_4m": KnownCheckpoint("x2vlm_base_4m.th", "X2-VLM base, on 4M images"),
    "x2vlm_large_4m": KnownCheckpoint("x2vlm_large_4m.th", "X2-VLM large, on 4M images", 2.4),
    "x2vlm_base_1b": KnownCheckpoint("x2vlm_base_1b.th", "X2-VLM base, on 1B pairs"),
    "x2vlm_large_1b": KnownCheckpoint("x2vlm_large_1b.th", "X2-VLM large, on 1B pairs", 2.4),
    "cclm_x2vlm_base": KnownCheckpoint(
        "cclm_x2vlm_base.th", "CCLM base, multilingual", 2.5, "xlm-roberta-base"
    ),
    "cclm_x2vlm_large": KnownCheckpoint(
        "cclm_x2vlm_large.th", "CCLM large, multilingual", 4.9, "xlm-roberta-large"
    ),
    "x2vlm_base_1b_vqa": KnownCheckpoint("x2vlm_base_1b_vqa.th", "X2-VLM base for VQA v2, 768 px"),
    "x2vlm_large_1b_vqa": KnownCheckpoint(
        "x2vlm_large_1b_vqa.th", "X2-VLM large for VQA v2, 768 px", 2.4
    ),
    "x2vlm_large_1b_captioning": KnownCheckpoint(
        "x2vlm_large_1b_captioning.tar", "X2-VLM large for COCO captions", 2.4
    ),
    "x2vlm_large_1b_grounding": KnownCheckpoint(
        "x2vlm_large_1b_grounding.tar", "X2-VLM large for RefCOCO+", 2.4
    ),
    "xvlm_beit_1b_stage2_coco_rerun": KnownCheckpoint(
        "xvlm_beit_1b_stage2_coco_rerun.th", "X2-VLM base for COCO retrieval, 384 px"
    ),
    "xvlm_beit_1b_large_stage2_coco_rerun": KnownCheckpoint(
        "xvlm_beit_1b_large_stage2_coco_rerun.th", "X2-VLM large for COCO retrieval, 384 px", 2.4
    ),
    "xvlm_base_4m": KnownCheckpoint(
        "4m_base_model_state_step_199999.th",
        "X-VLM base (Swin), pre-trained on 4M images",
        downloadable=False,
    ),
    "xvlm_base_16m": KnownCheckpoint(
        "16m_base_model_state_step_199999.th",
        "X-VLM base (Swin), pre-trained on 16M images",
        downloadable=False,
    ),
    "xvlm_base_4m_finetuned": KnownCheckpoint(
        "4m-all-ft-ckpts.tar",
        "X-VLM base (4M), all fine-tuned checkpoints in one archive",
        7.0,
        downloadable=False,
    ),
    **{
        f"xvlm_base_16m_{task}": KnownCheckpoint(
            f"16m_base_{task}.th", f"X-VLM base (16M) for {purpose}", downloadable=False
        )
        for task, purpose in {
            "coco_retrieval": "COCO retrieval, 384 px",
            "flickr_retrieval": "Flickr30K retrieval, 384 px",
            "vqa": "VQA v2",
            "nlvr2": "NLVR2, 384 px",
            "refcoco": "RefCOCO+, 384 px",
            "refcoco_weak": "RefCOCO+ without boxes, 384 px",
            "coco_captioning": "COCO captions, 384 px",
        }.items()
    },
    "cclm_3m": KnownCheckpoint(
        "cclm_3m_epoch_29.th",
        "CCLM (Swin, XLM-R), pre-trained on 3M images",
        2.1,
        "xlm-roberta-large",
        downloadable=False,
    ),
    "cclm_4m": KnownCheckpoint(
        "cclm_4m_epoch_29.th",
        "CCLM (Swin, XLM-R), pre-trained on 4M images",
        2.1,
        "xlm-roberta-large",
        downloadable=False,
    ),
}
"""X-VLM's fine-tuned files have one name in the folders they lie in; here each has its own."""


def nearest(name: str) -> str | None:
    """The known checkpoint that a misspelt name or file name may mean, of its own family only."""
    stem = re.sub(r"[-\s.]", "_", name.lower().removesuffix(".th").removesuffix(".tar"))
    spellings = {known: known for known in (*BUNDLED, *KNOWN)}
    spellings |= {
        re.sub(r"[-\s.]", "_", known.file.rpartition(".")[0].lower()): key
        for key, known in KNOWN.items()
    }
    family = _family(stem)
    alike = [text for text, key in spellings.items() if family in (None, _family(key))]
    close = difflib.get_close_matches(stem, alike, n=1, cutoff=0.6)
    return spellings[close[0]] if close else None


def _family(name: str) -> str | None:
    """Whose checkpoint a name means, None where it does not tell."""
    found = re.match(r"(?:(cclm)|(x_?2_?vlm|xvlm_beit)|(x_?vlm|4m_|16m_))", name)
    return ("cclm", "x2vlm", "xvlm")[found.lastindex - 1] if found else None

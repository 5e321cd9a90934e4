"""How each recorded quantity is computed with our model. Names are those of the recordings.

Shapes: B pairs, R regions, P image tokens, T text tokens, H heads.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.parity.case import Case
from x2vlm.losses import box_losses, contrastive_loss, masked_lm_loss
from x2vlm.modeling.captioning import X2VLMForCaptioning
from x2vlm.modeling.causal_captioning import X2VLMForCausalCaptioning
from x2vlm.modeling.classification import X2VLMForClassification, X2VLMForPairReasoning
from x2vlm.modeling.layers import AttentionRecord
from x2vlm.modeling.retrieval import X2VLMForRetrieval
from x2vlm.modeling.vqa import X2VLMForQuestionAnswering
from x2vlm.modeling.x2vlm import region_context_mask

INPUTS = {
    "image", "images", "video", "text_ids", "text_atts", "masked_ids", "masked_pos", "mlm_labels",
    "itc_idx", "is_image",
    "target_bbox", "targets", "region_image_index", "region_image_atts", "region_text_index",
    "parallel_text_ids",
    "parallel_text_atts", "question_ids", "question_atts", "answer_ids", "answer_atts",
    "train_text_ids",
    "train_attention_mask", "train_position_ids", "train_masked_pos", "train_masked_labels",
    "train_masked_weight",
    "train_answer_ids", "train_answer_atts", "train_answer_weights", "train_answers_per_question",
}  # fmt: skip
_TABLE: dict[str, Callable[..., Tensor]] = {}


def quantity(pattern: str) -> Callable:
    """Registers a function of (case, *numbers in the name)."""

    def register(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        _TABLE[pattern] = function
        return function

    return register


def compute(case: Case, name: str) -> Tensor | None:
    """Our value of a recorded quantity; None if nobody knows how to compute it."""
    for pattern, function in _TABLE.items():
        if match := re.fullmatch(pattern, name):
            return function(case, *match.groups())
    return None


@quantity("image_embeds")
def image_embeds(case: Case) -> Tensor:
    return case.model.encode_image(case["image"])


@quantity("text_embeds")
def text_embeds(case: Case) -> Tensor:
    return case.model.encode_text(case["text_ids"], case["text_atts"])


@quantity("image_feat")
def image_feat(case: Case) -> Tensor:
    return case.model.image_features(image_embeds(case))


@quantity("text_feat")
def text_feat(case: Case) -> Tensor:
    return case.model.text_features(text_embeds(case))


@quantity("similarity")
def similarity(case: Case) -> Tensor:
    return image_feat(case) @ text_feat(case).T


@quantity("itc_logits")
def itc_logits(case: Case) -> Tensor:
    return similarity(case) / case.model.temperature


@quantity("loss_itc")
def loss_itc(case: Case) -> Tensor:
    return contrastive_loss(image_feat(case), text_feat(case), case.model.temperature)


@quantity("loss_itc_idx")
def loss_itc_idx(case: Case) -> Tensor:
    return contrastive_loss(
        image_feat(case), text_feat(case), case.model.temperature, case["itc_idx"]
    )


@quantity("fusion_embeds")
def fusion_embeds(case: Case) -> Tensor:
    return case.model.fuse(text_embeds(case), case["text_atts"], image_embeds(case))


@quantity("itm_logits")
def itm_logits(case: Case) -> Tensor:
    return case.model.match_logits(fusion_embeds(case))


@quantity("itm_score")
def itm_score(case: Case) -> Tensor:
    """Class 1 for all images x texts."""
    images, texts = image_embeds(case), text_embeds(case)
    count = len(images)
    scores = X2VLMForRetrieval(case.model).rerank(
        images, texts.repeat(count, 1, 1), case["text_atts"].repeat(count, 1)
    )
    return scores.view(count, len(texts))


@quantity("bbox")
def bbox(case: Case) -> Tensor:
    return case.model.predict_boxes(fusion_embeds(case))


@quantity("loss_bbox_l1")
def loss_bbox_l1(case: Case) -> Tensor:
    return box_losses(bbox(case), case["target_bbox"], case["is_image"].bool())[0]


@quantity("loss_bbox_giou")
def loss_bbox_giou(case: Case) -> Tensor:
    return box_losses(bbox(case), case["target_bbox"], case["is_image"].bool())[1]


@quantity("mlm_logits")
def mlm_logits(case: Case) -> Tensor:
    return _mlm_logits(case, image_embeds(case), None)


@quantity("loss_mlm")
def loss_mlm(case: Case) -> Tensor:
    return masked_lm_loss(mlm_logits(case), case["mlm_labels"])


def _mlm_logits(case: Case, context: Tensor, context_mask: Tensor | None) -> Tensor:
    masked = case.model.encode_text(case["masked_ids"], case["text_atts"])
    return case.model.masked_lm_logits(
        case.model.fuse(masked, case["text_atts"], context, context_mask), case["masked_pos"]
    )


@quantity("region_embeds")
def region_embeds(case: Case) -> Tensor:
    patch_mask = case["region_image_atts"][:, 1:].bool()
    return case.model.encode_regions(image_embeds(case), patch_mask, case["region_image_index"])


@quantity("region_full_embeds")
def region_full_embeds(case: Case) -> Tensor:
    return image_embeds(case)[case["region_image_index"]]


@quantity("region_itm_logits")
def region_itm_logits(case: Case) -> Tensor:
    mask = region_context_mask(case["region_image_atts"][:, 1:].bool())
    return case.model.match_logits(_fuse_regions(case, region_embeds(case), mask))


@quantity("region_bbox")
def region_bbox(case: Case) -> Tensor:
    """Boxes come from the whole image."""
    return case.model.predict_boxes(_fuse_regions(case, region_full_embeds(case), None))


def _fuse_regions(case: Case, embeds: Tensor, mask: Tensor | None) -> Tensor:
    rows = case["region_text_index"]
    return case.model.fuse(text_embeds(case)[rows], case["text_atts"][rows], embeds, mask)


@quantity("video_embeds")
def video_embeds(case: Case) -> Tensor:
    return case.model.encode_video(case["video"])


@quantity("video_feat")
def video_feat(case: Case) -> Tensor:
    return case.model.image_features(video_embeds(case))


@quantity("video_itm_logits")
def video_itm_logits(case: Case) -> Tensor:
    count = len(case["video"])
    return case.model.match_logits(
        case.model.fuse(text_embeds(case)[:count], case["text_atts"][:count], video_embeds(case))
    )


@quantity("rel_pos_table_block0")
def rel_pos_table_block0(case: Case) -> Tensor:
    return case.model.vision.tower.blocks[0].attn.relative_position_bias_table


@quantity("parallel_text_embeds")
def parallel_text_embeds(case: Case) -> Tensor:
    return case.model.encode_text(case["parallel_text_ids"], case["parallel_text_atts"])


@quantity("parallel_text_feat")
def parallel_text_feat(case: Case) -> Tensor:
    return case.model.text_features(parallel_text_embeds(case))


@quantity("loss_parallel_contrastive")
def loss_parallel_contrastive(case: Case) -> Tensor:
    return contrastive_loss(text_feat(case), parallel_text_feat(case), case.model.temperature)


@quantity("loss_parallel_mlm")
def loss_parallel_mlm(case: Case) -> Tensor:
    """Masked source tokens attend to the whole parallel text."""
    logits = _mlm_logits(case, parallel_text_embeds(case), case["parallel_text_atts"])
    return masked_lm_loss(logits, case["mlm_labels"])


@quantity("logits")
def logits(case: Case) -> Tensor:
    if "images" in case.recorded:
        embeds = case.model.encode_image(case["images"])
        return X2VLMForPairReasoning(case.model).predict(
            embeds, case["text_ids"], case["text_atts"]
        )
    embeds = case.model.encode_visual(case["video" if "video" in case.recorded else "image"])
    return X2VLMForClassification(case.model).predict(embeds, case["text_ids"], case["text_atts"])


@quantity("loss")
def loss(case: Case) -> Tensor:
    return F.cross_entropy(logits(case), case["targets"])


@quantity(r"(top\d+|all)_index")
def answer_index(case: Case, count: str) -> Tensor:
    return _rank(case, count)[0]


@quantity(r"(top\d+|all)_prob")
def answer_probability(case: Case, count: str) -> Tensor:
    return _rank(case, count)[1]


def _rank(case: Case, count: str) -> tuple[Tensor, Tensor]:
    task, mask = X2VLMForQuestionAnswering(case.model), case["question_atts"]
    states = task.read_question(image_embeds(case), case["question_ids"], mask)
    k = len(case["answer_ids"]) if count == "all" else int(count.removeprefix("top"))
    return task.rank_answers(states, mask, case["answer_ids"], case["answer_atts"], k)


@quantity("train_loss")
def train_loss(case: Case) -> Tensor:
    if "train_answer_ids" in case.recorded:
        output = X2VLMForQuestionAnswering(case.model)(
            case["image"],
            case["question_ids"],
            case["question_atts"],
            case["train_answer_ids"],
            case["train_answer_atts"],
            case["train_answer_weights"],
            case["train_answers_per_question"],
        )
        return output.losses["answer_loss"]
    if "causal_lm" in case.model.config.heads:
        output = X2VLMForCausalCaptioning(case.model)(
            case["image"][: len(case["train_text_ids"])],
            case["train_text_ids"],
            case["train_attention_mask"],
            prompt_length=len(case.meta["prompt_ids"]),
            label_smoothing=case.meta["label_smoothing"],
        )
        return output.losses["caption_loss"]
    output = X2VLMForCaptioning(case.model)(
        case["image"][: len(case["train_text_ids"])],
        case["train_text_ids"],
        case["train_attention_mask"],
        case["train_position_ids"],
        case["train_masked_pos"],
        case["train_masked_labels"],
        case["train_masked_weight"],
        label_smoothing=case.meta["label_smoothing"],
        excluded_id=case.tokenizer.cls_token_id,
    )
    return output.losses["caption_loss"]


@quantity(r"fusion(\d+)_attention")
def fusion_attention(case: Case, layer: str) -> Tensor:
    return _attention_and_gradient(case, int(layer))[0]


@quantity(r"fusion(\d+)_attention_grad")
def fusion_attention_gradient(case: Case, layer: str) -> Tensor:
    return _attention_and_gradient(case, int(layer))[1]


@quantity(r"fusion(\d+)_gradcam")
def fusion_gradcam(case: Case, layer: str) -> Tensor:
    """Mean over heads of attention x positive gradient over the patches, padding zeroed: float[B,
    T, P-1]."""
    attention, gradient = _attention_and_gradient(case, int(layer))
    heat = (attention * gradient.clamp(min=0)).mean(dim=1)[..., 1:]
    return heat * case["text_atts"][..., None]


@torch.enable_grad()
def _attention_and_gradient(case: Case, layer: int) -> tuple[Tensor, Tensor]:
    """Cross-attention float[B, H, T, P] of a fusion layer and its gradient of the summed class-1
    matching logit."""
    record = AttentionRecord()
    fused = case.model.fuse(text_embeds(case), case["text_atts"], image_embeds(case), attend=record)
    score = case.model.match_logits(fused)[:, 1].sum()
    return record.probabilities[layer], torch.autograd.grad(score, record.probabilities[layer])[0]

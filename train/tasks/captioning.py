"""Captioning, several captions of an image at a time: as left-to-right masked LM, X²-VLM's way
("FG-free" layout), or by next-token prediction where the model has a `causal_lm` head (X-VLM)."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from train.data.captioning import (
    caption_layout,
    caption_tokens,
    collate_captions,
    collate_tokens,
)
from train.data.masking import MaskingConfig, TokenMasker
from train.data.records import TestRecords
from train.tasks.records import RecordTask, choose_exactly, device_of
from x2vlm.caption_metrics import caption_scores
from x2vlm.inference.captions import caption_score
from x2vlm.inference.closing_beams import closing_beam_search
from x2vlm.inference.generation import StepDecoder, beam_search
from x2vlm.modeling.captioning import CaptionDecoder, X2VLMForCaptioning
from x2vlm.modeling.causal_captioning import CausalCaptionDecoder, X2VLMForCausalCaptioning
from x2vlm.modeling.x2vlm import X2VLM
from x2vlm.processing import normalize
from x2vlm.stickers import check_caption


@dataclass(kw_only=True)
class Captioning(RecordTask):
    """Captions of images or videos.

    Attributes:
        batch_size: images.
        captions_per_image: texts learnt from one encoding of the image.
        first_share: how often the first caption of a record is taken, the fullest one in the
            sticker world, and not any.
        prompt: stands before every caption and is not learnt.
        label_smoothing: of the predicted token.
        num_beams, min_length, max_new_tokens, no_repeat_ngram_size: of the captions written in
            evaluation, see `x2vlm.inference.generation.beam_search`.
        ranked: of what the beams find, the caption is taken that a Predictor takes: by its match
            too.
    """

    all_losses = X2VLMForCaptioning.loss_names

    masking: MaskingConfig = field(default_factory=lambda: MaskingConfig(0.6, 18))
    captions_per_image: int = 1
    first_share: float = 0.0
    prompt: str = "a picture of"
    label_smoothing: float = 0.1
    num_beams: int = 3
    min_length: int = 5
    max_new_tokens: int = 50
    no_repeat_ngram_size: int = 0
    ranked: bool = False

    def prepare(self, processor: Any) -> None:
        super().prepare(processor)
        self.masker = TokenMasker.from_tokenizer(self.masking, processor.tokenizer)

    @property
    def causal(self) -> bool:
        """Whether captions are written by next-token prediction."""
        return self.processor.config.causal

    def sample(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        record = self.record(index)
        captions = choose_exactly(record["captions"], self.captions_per_image, rng)
        captions = [
            record["captions"][0] if rng.random() < self.first_share else caption
            for caption in captions
        ]
        layouts = [
            caption_tokens(caption, self.processor, self.prompt)
            if self.causal
            else caption_layout(caption, self.processor, self.masker, rng, self.prompt)
            for caption in captions
        ]
        return {"visual": self.pixels(record, rng), "layouts": layouts}

    def collate(self, samples: list[dict[str, Any]]) -> dict[str, Any]:
        layouts = [layout for sample in samples for layout in sample["layouts"]]
        collated = collate_tokens if self.causal else collate_captions
        fields = collated(layouts, self.processor.pad_id)
        return {"visual": torch.stack([sample["visual"] for sample in samples]), **fields}

    def training_step(self, model, batch):
        batch = batch | {"visual": normalize(batch["visual"])}
        smoothing = {"label_smoothing": self.label_smoothing}
        if self.causal:
            prompt_length = len(self.prompt_ids())
            task = X2VLMForCausalCaptioning(model)
            return task(**batch, **smoothing, prompt_length=prompt_length).losses
        task = X2VLMForCaptioning(model)
        return task(**batch, **smoothing, excluded_id=self.processor.cls_id).losses

    def prompt_ids(self) -> list[int]:
        """[CLS] and the prompt."""
        return [self.processor.cls_id, *self.processor.pieces(self.prompt)]

    def decoder(self, model: X2VLM, embeds: Tensor) -> StepDecoder:
        """What writes captions of image_embeds float (N, P, D)."""
        if self.causal:
            return CausalCaptionDecoder(model, embeds)
        return CaptionDecoder(model, embeds, self.processor.mask_id)

    def measure(self, model: X2VLM, records: TestRecords) -> dict[str, float]:
        """BLEU, ROUGE-L and CIDEr-D; for sticker scenes also `true`: the share whose every claim
        parses and holds."""
        candidates, references, true = [], [], []
        for group in records.batches(32):
            captions = self.write(model, group)
            candidates += captions
            references += [record["captions"] for record in group]
            for record, caption in zip(group, captions, strict=True):
                records.predict(record, caption=caption, references=record["captions"])
            scenes = [
                record.get("scene") or getattr(record.get("video"), "summary", None)
                for record in group
            ]
            true += [
                check_caption(scene, text).true
                for scene, text in zip(scenes, captions, strict=True)
                if scene
            ]
        candidates, references, true = map(records.gather, (candidates, references, true))
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            scores = caption_scores(candidates, references)
        for warning in said:
            records.note(str(warning.message))
        return scores | ({"true": sum(true) / len(true)} if true else {})

    def write(self, model, records) -> list[str]:
        """The best caption of each record by beam search, without the prompt."""
        processor, embeds = self.processor, self.see(model, records)
        prompt = torch.tensor([self.prompt_ids()] * len(records), device=device_of(model))
        search = closing_beam_search if self.causal else beam_search
        found = search(
            self.decoder(model, embeds),
            prompt,
            end_id=processor.sep_id,
            num_beams=self.num_beams,
            num_return=self.num_beams if self.ranked else 1,
            min_length=self.min_length,
            max_new_tokens=min(self.max_new_tokens, self.max_tokens - prompt.shape[1]),
            no_repeat_ngram_size=self.no_repeat_ngram_size,
        )
        if not self.ranked:
            return [processor.decode(hypotheses[0].token_ids) for hypotheses in found]
        written = [
            (i, h.log_probability, processor.decode(h.token_ids))
            for i, group in enumerate(found)
            for h in group
        ]
        written = [(i, likely, text) for i, likely, text in written if any(map(str.isalnum, text))]
        _, mask, text_embeds = self.read(model, [text for _, _, text in written])
        fused = model.fuse(text_embeds, mask, embeds[[i for i, _, _ in written]])
        matches = model.match_logits(fused).softmax(-1)[:, 1].tolist()
        best = dict.fromkeys(range(len(records)), (-math.inf, ""))
        for (i, likely, text), match in zip(written, matches, strict=True):
            best[i] = max(best[i], (caption_score(likely, match), text))
        return [text for _, text in best.values()]

"""Self-critical sequence training (Rennie et al., arXiv 1612.00563): a captioner that was trained
by its captions learns to write what CIDEr-D rewards."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from train.data.captioning import collate_captions, collate_tokens, masked_layout
from train.data.files import FileRecords
from train.tasks.captioning import Captioning
from train.tasks.records import device_of
from x2vlm.caption_metrics import caption_cider_d, document_frequency, ngrams_of
from x2vlm.errors import ConfigError
from x2vlm.inference.generation import beam_search, sample
from x2vlm.losses import self_critical_loss
from x2vlm.modeling.captioning import X2VLMForCaptioning
from x2vlm.modeling.causal_captioning import X2VLMForCausalCaptioning
from x2vlm.modeling.x2vlm import X2VLM
from x2vlm.processing import normalize

MOST_DOCUMENTS = 1000
"""Drawn scenes and photos that n-grams are counted in; of files, all entries are."""


@dataclass(kw_only=True)
class SelfCritical(Captioning):
    """Of every image some captions are drawn; those that CIDEr-D places above the greedy one become
    more probable, the others less. Every entry must hold all captions of its image: they are the
    references.

    Captions are drawn in evaluation mode and scored in training mode. A word's weight follows from
    the images that are trained on, not from the batch.

    Attributes:
        batch_size: images.
        samples: captions drawn of an image.
    """

    all_losses: ClassVar[tuple[str, ...]] = ("self_critical_loss",)

    samples: int = 5

    def __post_init__(self):
        super().__post_init__()
        if self.samples < 1:
            raise ConfigError(f"samples is {self.samples}; it must be at least 1.", "config/value")

    def prepare(self, processor: Any) -> None:
        super().prepare(processor)
        groups = list(self._references())
        counted = document_frequency(map(ngrams_of, groups))
        self.documents = len(groups)
        # An n-gram that is not listed counts as standing in one image, as most do.
        self.frequency = Counter({gram: n for gram, n in counted.items() if n > 1})

    def _references(self) -> Iterable[list[str]]:
        if isinstance(self.records, FileRecords):
            return self.records.captions()
        most = min(MOST_DOCUMENTS, len(self.records))
        return (self.records[index]["captions"] for index in range(most))

    def sample(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        record = self.record(index)
        return {"visual": self.pixels(record, rng), "references": record["captions"]}

    def collate(self, samples: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "visual": torch.stack([sample["visual"] for sample in samples]),
            "references": [sample["references"] for sample in samples],
        }

    def training_step(self, model, batch):
        visual = normalize(batch["visual"])
        greedy, drawn = self.draw(model, visual)
        advantages = self.advantages(greedy, drawn, batch["references"])
        log_probabilities, written = self.log_probabilities(
            model, model.encode_visual(visual), [ids for group in drawn for ids in group]
        )
        advantages = advantages.to(log_probabilities.device)
        return {"self_critical_loss": self_critical_loss(log_probabilities, advantages, written)}

    @torch.no_grad()
    def draw(
        self, model: X2VLM, visual: Tensor
    ) -> tuple[list[tuple[int, ...]], list[list[tuple[int, ...]]]]:
        """Token ids of the greedy caption of each image, and of the drawn ones."""
        training = model.training
        model.eval()
        try:
            embeds = model.encode_visual(visual)
            prompt = torch.tensor([self.prompt_ids()] * len(embeds), device=device_of(model))
            most = min(self.max_new_tokens, self.max_tokens - prompt.shape[1])
            shared = {"end_id": self.processor.sep_id, "max_new_tokens": most}
            best = beam_search(self.decoder(model, embeds), prompt, num_beams=1, **shared)
            seeds = torch.randint(2**31, (len(embeds),)).tolist()
            found = sample(
                self.decoder(model, embeds),
                prompt,
                generators=[torch.Generator().manual_seed(seed) for seed in seeds],
                num_samples=self.samples,
                top_p=1.0,
                **shared,
            )
        finally:
            model.train(training)
        return (
            [hypotheses[0].token_ids for hypotheses in best],
            [[hypothesis.token_ids for hypothesis in hypotheses] for hypotheses in found],
        )

    def advantages(
        self,
        greedy: Sequence[Sequence[int]],
        drawn: Sequence[Sequence[Sequence[int]]],
        references: Sequence[Sequence[str]],
    ) -> Tensor:
        """float (N,): CIDEr-D of each drawn caption minus that of the greedy one of its image."""
        found = []
        for first, others, group in zip(greedy, drawn, references, strict=True):
            counts = ngrams_of(group)
            rewards = [
                caption_cider_d(self.processor.decode(ids), counts, self.frequency, self.documents)
                for ids in (first, *others)
            ]
            found += [reward - rewards[0] for reward in rewards[1:]]
        return torch.tensor(found)

    def log_probabilities(
        self, model: X2VLM, embeds: Tensor, captions: Sequence[Sequence[int]]
    ) -> tuple[Tensor, Tensor]:
        """float (N, T) of the tokens of N captions, and bool (N, T), where there are any;
        consecutive captions are of one image of image_embeds float (B, P, D)."""
        prompt, pad, device = self.prompt_ids(), self.processor.pad_id, device_of(model)
        rows = [[*prompt, *ids] for ids in captions]
        if self.causal:
            fields = {k: v.to(device) for k, v in collate_tokens(rows, pad).items()}
            logits = X2VLMForCausalCaptioning(model).predict(embeds, **fields)
            labels = fields["input_ids"][:, 1:]
            written = fields["attention_mask"][:, 1:].bool()
            written[:, : len(prompt) - 1] = False
        else:
            layouts = [
                masked_layout(row, range(len(prompt), len(row)), self.processor) for row in rows
            ]
            fields = {k: v.to(device) for k, v in collate_captions(layouts, pad).items()}
            labels = fields.pop("masked_labels")
            logits = X2VLMForCaptioning(model).predict(embeds, **fields)
            written = labels >= 0
        tokens = labels.masked_fill(~written, 0)[..., None]
        return logits.float().log_softmax(dim=-1).gather(-1, tokens)[..., 0], written

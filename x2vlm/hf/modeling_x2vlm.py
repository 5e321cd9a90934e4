"""Configuration, models and processors in the form of transformers; thin shells around ours.

This file stands by itself, so that a folder on the Hub can carry a copy and be opened with
`trust_remote_code=True`; it then needs `pip install x2vlm`.

Shapes: B images, N texts, T tokens, L labels.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from PIL import Image
from torch import Tensor
from transformers import BatchFeature, GenerationConfig, PreTrainedConfig, PreTrainedModel
from transformers.dynamic_module_utils import custom_object_save
from transformers.image_processing_utils import BaseImageProcessor
from transformers.processing_utils import ProcessorMixin
from transformers.utils import ModelOutput

from x2vlm.boxes import cxcywh_to_xyxy
from x2vlm.checkpoint import save_model
from x2vlm.checkpoint.source import weights_file
from x2vlm.config import X2VLMConfig as CoreConfig
from x2vlm.hub import resolve
from x2vlm.inference.answers import answer_questions
from x2vlm.inference.captions import write_ranked
from x2vlm.inference.matching import match_texts
from x2vlm.inference.models import Member
from x2vlm.media import open_image
from x2vlm.modeling.build import build_model, load_model
from x2vlm.options import AnswerOptions, CaptionOptions
from x2vlm.processing import Processor, normalize, to_pixels
from x2vlm.settings import Settings

FIELDS = tuple(field.name for field in dataclasses.fields(CoreConfig))


class X2VLMConfig(PreTrainedConfig):
    """Our configuration; `core` is the object that our own classes take."""

    model_type = "x2vlm"

    def __init__(self, **values: Any):
        own = {name: values.pop(name) for name in FIELDS if name in values}
        super().__init__(**values)
        for name, value in CoreConfig.from_dict(own).to_dict().items():
            setattr(self, name, value)

    def get_text_config(self, *_: Any, **__: Any) -> X2VLMConfig:
        """Our blocks `text` and `decoder` are no configurations of transformers."""
        return self

    @property
    def core(self) -> CoreConfig:
        """The configuration of `x2vlm.build_model`."""
        return CoreConfig.from_dict({name: getattr(self, name) for name in FIELDS})


@dataclasses.dataclass
class X2VLMOutput(ModelOutput):
    """What the models say.

    Attributes:
        pred_boxes: float[N, 1, 4], (cx, cy, w, h) as fractions, of texts.
        logits: float[N, 1], log-odds that the text is there; float[N, 2] of plain matching.
        logits_per_image: float[B, L], similarity of each image with each label.
        image_embeds, text_embeds: float[B, P, D], float[N, T, C].
    """

    pred_boxes: Tensor | None = None
    logits: Tensor | None = None
    logits_per_image: Tensor | None = None
    image_embeds: Tensor | None = None
    text_embeds: Tensor | None = None


class X2VLMPreTrainedModel(PreTrainedModel):
    """Loads and saves through our own files, so that a round trip keeps every bit."""

    config_class = X2VLMConfig
    base_model_prefix = "model"
    main_input_name = "pixel_values"
    input_modalities = ("image", "text")
    _no_split_modules: ClassVar[list[str]] = []

    def __init__(self, config: X2VLMConfig, core: torch.nn.Module | None = None):
        super().__init__(config)
        self.model = build_model(config.core) if core is None else core

    @classmethod
    def from_pretrained(
        cls, name_or_path: str | Path, *_: Any, config: X2VLMConfig | None = None, **options: Any
    ) -> X2VLMPreTrainedModel:
        """Any checkpoint that `x2vlm.load_model` opens; of the options of transformers `dtype` and
        `device_map` (one device) are used."""
        dtype = options.get("dtype") or options.get("torch_dtype") or torch.float32
        device = options.get("device_map")
        loaded = load_model(
            name_or_path,
            dtype=torch.float32 if dtype == "auto" else dtype,
            device=None if device in (None, "auto") else device,
        )
        model = cls(config or X2VLMConfig(**loaded.config.to_dict()), loaded.model)
        model.folder = loaded.path.parent
        return model.eval()

    def save_pretrained(self, save_directory: str | Path, **options: Any) -> None:
        """Our folder: weights, configuration, tokenizer and settings; with this file beside them
        where `register_for_auto_class` was called."""
        folder, origin = Path(save_directory), getattr(self, "folder", None)
        tokenizer = settings = None
        if origin is not None and (origin / "tokenizer_config.json").is_file():
            tokenizer = Processor.from_pretrained(origin, self.config.core).tokenizer
            settings = Settings.read(origin)
        save_model(self.model, folder, tokenizer, settings=settings)
        path = folder / "config.json"
        values = json.loads(path.read_text(encoding="utf-8"))
        values["architectures"] = [type(self).__name__]
        if self._auto_class is not None:
            custom_object_save(self, folder, config=self.config)
            values["auto_map"] = {**AUTO_MAP, **(getattr(self.config, "auto_map", None) or {})}
            extra = json.dumps({"processor_class": "X2VLMProcessor", "auto_map": AUTO_MAP})
            (folder / "preprocessor_config.json").write_text(extra + "\n", encoding="utf-8")
        path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")

    def _init_weights(self, module: torch.nn.Module) -> None:
        """`build_model` has done it."""


class X2VLMModel(X2VLMPreTrainedModel):
    """Image and text embeddings, and the match where there is a matching head."""

    def forward(
        self,
        pixel_values: Tensor | None = None,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        **_: Any,
    ) -> X2VLMOutput:
        """pixel_values float[B, 3, H, W], input_ids int64[N, T], N a multiple of B."""
        model, out = self.model, X2VLMOutput()
        if pixel_values is not None:
            out.image_embeds = model.encode_image(pixel_values)
        if input_ids is not None:
            out.text_embeds = model.encode_text(input_ids, attention_mask)
        if pixel_values is not None and input_ids is not None and "matching" in model.config.heads:
            fused = model.fuse(out.text_embeds, attention_mask, out.image_embeds)
            out.logits = model.match_logits(fused)
        return out

    def get_image_features(self, pixel_values: Tensor) -> Tensor:
        """Contrastive features float[B, E], L2-normalised."""
        return self.model.image_features(self.model.encode_image(pixel_values))

    def get_text_features(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Contrastive features float[N, E], L2-normalised."""
        return self.model.text_features(self.model.encode_text(input_ids, attention_mask))


class X2VLMForZeroShotObjectDetection(X2VLMPreTrainedModel):
    """One box a text; its score is the match of the text with the image."""

    def forward(
        self, pixel_values: Tensor, input_ids: Tensor, attention_mask: Tensor, **_: Any
    ) -> X2VLMOutput:
        """pixel_values float[B, 3, H, W], input_ids int64[N, T], N a multiple of B."""
        model = self.model
        text_embeds = model.encode_text(input_ids, attention_mask)
        image_embeds = model.encode_image(pixel_values)
        fused = model.fuse(text_embeds, attention_mask, image_embeds).float()
        match = model.match_logits(fused)
        odds = (match[:, 1] - match[:, 0])[:, None]
        boxes = model.locate(image_embeds.float(), text_embeds.float(), fused)
        return X2VLMOutput(pred_boxes=boxes[:, None], logits=odds)


class X2VLMForZeroShotImageClassification(X2VLMPreTrainedModel):
    """Labels by the similarity of the two encoders, divided by the learned temperature."""

    def forward(
        self, pixel_values: Tensor, input_ids: Tensor, attention_mask: Tensor, **_: Any
    ) -> X2VLMOutput:
        """pixel_values float[B, 3, H, W], input_ids int64[L, T]."""
        model = self.model
        images = model.image_features(model.encode_image(pixel_values).float())
        texts = model.text_features(model.encode_text(input_ids, attention_mask).float())
        return X2VLMOutput(logits_per_image=images @ texts.T / model.temperature)


class X2VLMForImageTextToText(X2VLMPreTrainedModel):
    """Writes a caption to an empty text and an answer to a question."""

    def __init__(self, config: X2VLMConfig, core: torch.nn.Module | None = None):
        super().__init__(config, core)
        self.generation_config = GenerationConfig(max_new_tokens=30, num_beams=3)

    @classmethod
    def can_generate(cls) -> bool:
        return True

    def forward(self, **_: Any) -> X2VLMOutput:
        """There is none: ask `generate`."""
        raise NotImplementedError("Use generate; X2VLMModel has a forward.")

    @torch.no_grad()
    def generate(
        self, pixel_values: Tensor, input_ids: Tensor, attention_mask: Tensor, **options: Any
    ) -> Tensor:
        """int64[B, T], padded on the right: answers to the questions input_ids, or captions where
        these hold special tokens alone.

        Args:
            options: `max_new_tokens` and `num_beams` of captions.
        """
        settings, member = self.generation_config, self._member()
        chosen = CaptionOptions(
            num_beams=options.get("num_beams") or settings.num_beams,
            max_new_tokens=options.get("max_new_tokens") or settings.max_new_tokens,
        )
        processor, rows = member.processor, []
        embeds = self.model.encode_image(pixel_values)
        for one, ids, mask in zip(embeds.split(1), input_ids, attention_mask, strict=True):
            text = processor.decode(ids[mask.bool()].tolist())
            written = _answer(member, one, text) if text else _caption(member, one, chosen)
            rows.append(processor.encode(written, None, None)[1:-1])
        longest = max(map(len, rows))
        padded = [[*row, *[processor.pad_id] * (longest - len(row))] for row in rows]
        return torch.tensor(padded, device=input_ids.device)

    def _member(self) -> Member:
        """The model as our inference takes it, with the tokenizer and settings of its folder."""
        settings = Settings.read(self.folder)
        processor = Processor.from_pretrained(self.folder, self.config.core, settings.max_tokens)
        return Member(self.folder.name, "", self.model, processor, settings)


def _answer(member: Member, embeds: Tensor, question: str) -> str:
    tokens = member.processor.tokenize(question, "question", "question")
    options = AnswerOptions(top_k=1)
    return answer_questions(member, embeds, [tokens], member.answers, options, None)[0].best


def _caption(member: Member, embeds: Tensor, options: CaptionOptions) -> str:
    match = None
    if "matching" in member.model.config.heads:
        match = partial(match_texts, member, image_embeds=embeds)
    return write_ranked(member, embeds, options, match)[0][0].text


class X2VLMImageProcessor(BaseImageProcessor):
    """Images to pixel_values, and boxes back to the pixels of the images."""

    model_input_names: ClassVar[list[str]] = ["pixel_values"]

    def __init__(self, image_size: int | Sequence[int] = 384, **values: Any):
        super().__init__(**values)
        self.image_size = image_size

    @classmethod
    def from_pretrained(cls, name_or_path: str | Path, **_: Any) -> X2VLMImageProcessor:
        """The size that stands in the config.json of a folder, or of a model on the Hub."""
        return cls(X2VLMConfig.from_pretrained(name_or_path).core.vision.image_size)

    def __call__(self, images: Any, return_tensors: str = "pt", **_: Any) -> BatchFeature:
        """pixel_values float[B, 3, H, W] of an image, a path or a list of them."""
        many = images if isinstance(images, (list, tuple)) else [images]
        opened = [
            one if isinstance(one, Image.Image) else open_image(one).pixels for one in flat(many)
        ]
        pixels = [normalize(to_pixels(one, self.image_size)) for one in opened]
        return BatchFeature({"pixel_values": torch.stack(pixels)})

    preprocess = __call__

    def post_process_object_detection(
        self, outputs: Any, threshold: float = 0.1, target_sizes: Any = None
    ) -> list[dict[str, Tensor]]:
        """For each image `scores` float[K] and `boxes` float[K, 4], (x1, y1, x2, y2) in pixels, of
        what scores at least `threshold`.

        Args:
            outputs: of `X2VLMForZeroShotObjectDetection`.
            target_sizes: (height, width) of each image; fractions without them.
        """
        scores = outputs["logits"].double().sigmoid()
        boxes = cxcywh_to_xyxy(outputs["pred_boxes"]).clamp(0, 1)
        if target_sizes is not None:
            sizes = torch.as_tensor(target_sizes, device=boxes.device).flip(1)
            boxes = boxes * torch.cat([sizes, sizes], dim=1)[:, None]
        kept = scores >= threshold
        return [
            {"scores": scores[i][kept[i]], "boxes": boxes[i][kept[i]], "labels": kept[i].nonzero()}
            for i in range(len(boxes))
        ]


class X2VLMProcessor(ProcessorMixin):
    """Images and texts to what the models take; texts are read as a Predictor reads them."""

    def __init__(self, image_processor: X2VLMImageProcessor, tokenizer: Any, texts: Processor):
        self.image_processor, self.tokenizer, self.texts = image_processor, tokenizer, texts
        self.chat_template = None

    @classmethod
    def from_pretrained(cls, name_or_path: str | Path, **_: Any) -> X2VLMProcessor:
        """Of a model folder, or of a model on the Hub."""
        folder = weights_file(resolve(name_or_path)).parent
        config = X2VLMConfig.from_pretrained(folder).core
        texts = Processor.from_pretrained(folder, config, Settings.read(folder).max_tokens)
        return cls(X2VLMImageProcessor(config.vision.image_size), texts.tokenizer, texts)

    def __call__(
        self, images: Any = None, text: str | Sequence[str] | None = None, **_: Any
    ) -> BatchFeature:
        """pixel_values float[B, 3, H, W], input_ids and attention_mask int64[N, T]."""
        found = BatchFeature() if images is None else self.image_processor(images)
        if text is not None:
            ids, mask = self.texts.pad([self._ids(one) for one in flat([text])])
            found.update({"input_ids": ids, "attention_mask": mask})
        return found

    def _ids(self, text: str) -> Sequence[int]:
        if not text.strip():  # a caption is asked for
            return (self.texts.cls_id, self.texts.sep_id)
        rules = "question" if text.rstrip().endswith("?") else "caption"
        return self.texts.tokenize(text, rules).ids

    def save_pretrained(self, save_directory: str | Path, **_: Any) -> None:
        """The tokenizer; the rest stands in the configuration of the model."""
        self.texts.save_pretrained(save_directory)

    def post_process_image_text_to_text(self, generated: Any, **_: Any) -> list[str]:
        """Token ids to texts."""
        return [self.texts.decode(row) for row in torch.as_tensor(generated).tolist()]


def flat(values: Any) -> list[Any]:
    """Nested lists as one list."""
    if isinstance(values, (list, tuple)):
        return [one for value in values for one in flat(value)]
    return [values]


AUTO_MAP = {
    "AutoConfig": "modeling_x2vlm.X2VLMConfig",
    "AutoModel": "modeling_x2vlm.X2VLMModel",
    "AutoModelForZeroShotObjectDetection": "modeling_x2vlm.X2VLMForZeroShotObjectDetection",
    "AutoModelForZeroShotImageClassification": "modeling_x2vlm.X2VLMForZeroShotImageClassification",
    "AutoModelForImageTextToText": "modeling_x2vlm.X2VLMForImageTextToText",
    "AutoProcessor": "modeling_x2vlm.X2VLMProcessor",
    "AutoImageProcessor": "modeling_x2vlm.X2VLMImageProcessor",
}
"""What a folder with a copy of this file says in its config.json."""

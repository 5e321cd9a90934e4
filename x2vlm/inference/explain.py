"""Which patches of an image a text's answer rests on: heat maps over the patch grid, and how far
they can be trusted.

The main method is Grad-CAM on cross-attention (Selvaraju et al., arXiv 1610.02391; ALBEF, arXiv
2107.07651): attention times its positive gradient, for every token at once from one forward and one
backward pass. Nothing is left in the model: probabilities are recorded by a function handed to
`fuse`, gradients are returned by `torch.autograd.grad`, and only the text embeddings of the call
ask for them.

Shapes: N texts, H heads, T tokens, P image tokens incl. pooled, G x G patches, C width, L fusion
layers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from torch import Tensor, nn

from x2vlm.modeling.dense_boxes import patch_shares
from x2vlm.modeling.layers import AttentionRecord, attention_bias
from x2vlm.modeling.x2vlm import X2VLM
from x2vlm.options import METHODS, MapChoice
from x2vlm.results import Agreement
from x2vlm.visualize import is_flat

Objective = Callable[[Tensor], Tensor]
"""fused_embeds float[N, T, C] to the explained quantity float[N]."""


@dataclass(frozen=True)
class AttentionTrace:
    """One pass over N texts: `attention` and its `gradients` per fusion layer float[N, H, T, P],
    detached.

    `fused_embeds` float[N, T, C] serve every head, so that the pass also gives the answer; `scores`
    float[N] is the objective.
    """

    attention: tuple[Tensor, ...]
    gradients: tuple[Tensor, ...]
    fused_embeds: Tensor
    scores: Tensor


def trace_attention(
    model: X2VLM,
    text_embeds: Tensor,
    attention_mask: Tensor,
    image_embeds: Tensor,
    objective: Objective,
    context_mask: Tensor | None = None,
) -> AttentionTrace:
    """One forward and one backward pass through the fusion layers. Arguments as in `X2VLM.fuse`.

    Texts do not see each other, so the gradient of the summed objective is each text's own.
    """
    record = AttentionRecord()
    with torch.enable_grad():
        text_embeds = text_embeds.detach().requires_grad_()
        fused = model.fuse(
            text_embeds, attention_mask, image_embeds.detach(), context_mask, attend=record
        )
        scores = objective(fused)
        gradients = torch.autograd.grad(scores.sum(), record.probabilities)
    return AttentionTrace(
        tuple(p.detach() for p in record.probabilities), gradients, fused.detach(), scores.detach()
    )


@dataclass(frozen=True)
class FusionInputs:
    """N texts on one image and the explained quantity; fields as in `trace_attention`."""

    model: X2VLM
    text_embeds: Tensor
    attention_mask: Tensor
    image_embeds: Tensor
    objective: Objective

    def row(self, i: int) -> FusionInputs:
        """The i-th text alone."""
        return replace(
            self,
            text_embeds=self.text_embeds[i : i + 1],
            attention_mask=self.attention_mask[i : i + 1],
        )

    def arguments(self) -> tuple[X2VLM, Tensor, Tensor, Tensor, Objective]:
        """As `trace_attention`, `rollout` and `image_gradcam` take them."""
        return tuple(getattr(self, f.name) for f in fields(self))


def token_maps(
    inputs: FusionInputs, choices: Sequence[MapChoice], seed: int
) -> tuple[list[Tensor], Tensor]:
    """Maps of every token by any of `x2vlm.options.METHODS`, one pass for all that need one.

    A method without maps of tokens gives all tokens of a text the text's one map.

    Args:
        seed: of the random baseline.

    Returns:
        For each choice float32[N, T, P-1], and fused_embeds float[N, T, C].
    """
    trace, found = None, {}
    if any(METHODS[choice.method].layered for choice in choices):
        trace = trace_attention(*inputs.arguments())
        fused = trace.fused_embeds
    else:
        with torch.no_grad():
            fused = inputs.model.fuse(
                inputs.text_embeds, inputs.attention_mask, inputs.image_embeds
            )
    ways = [(choice.method, choice.layer, choice.head) for choice in choices]
    for way in dict.fromkeys(ways):
        if METHODS[way[0]].layered:
            found[way] = relevance(trace, *way)
        else:
            found[way] = _maps_without_layers(inputs, way[0], fused.shape[1], seed)
    return [found[way] for way in ways], fused


def _maps_without_layers(inputs: FusionInputs, method: str, tokens: int, seed: int) -> Tensor:
    texts = len(inputs.text_embeds)
    if method == "rollout":
        return rollout(*inputs.arguments())
    if method == "random":
        drawn = random_maps(inputs.image_embeds, texts * tokens, seed)
        return drawn.unflatten(0, (texts, tokens))
    if method == "similarity":
        rows = similarity_maps(inputs.model, inputs.image_embeds, inputs.text_embeds)
    else:
        rows = torch.stack([image_gradcam(*inputs.row(i).arguments()) for i in range(texts)])
    return rows[:, None].expand(-1, tokens, -1)


def gradcam(attention: Tensor, gradients: Tensor) -> Tensor:
    """Attention times positive gradient, pooled token left out: float[N, H, T, P] to float[N, H, T,
    P-1]."""
    return (attention * gradients.clamp(min=0))[..., 1:]


def relevance(
    trace: AttentionTrace,
    method: str = "gradient",
    layer: int | None = None,
    head: int | str | None = None,
) -> Tensor:
    """Maps of every token, float32[N, T, P-1].

    Args:
        method: `gradient`, or `attention` for the bare probabilities.
        layer: fusion layer from 0; None for the mean of all.
        head: attention head from 0, `max` for the strongest head of each patch, None for the mean
            of all.
    """
    layers = range(len(trace.attention)) if layer is None else [layer]
    maps = []
    for i in layers:
        heat = (
            gradcam(trace.attention[i], trace.gradients[i])
            if method == "gradient"
            else trace.attention[i][..., 1:]
        )
        heat = heat.float()
        maps.append(
            heat.mean(1) if head is None else heat.amax(1) if head == "max" else heat[:, head]
        )
    return torch.stack(maps).mean(0)


def rollout(
    model: X2VLM,
    text_embeds: Tensor,
    attention_mask: Tensor,
    image_embeds: Tensor,
    objective: Objective,
) -> Tensor:
    """Relevance carried through self- and cross-attention of all fusion layers (Chefer et al.,
    arXiv 2103.15679).

    Both kinds of attention are weighted by their positive gradient. Returns maps float32[N, T,
    P-1].
    """
    with torch.enable_grad():
        embeds = text_embeds.detach().requires_grad_()
        contexts = model.fusion_encoder.project_context(image_embeds.detach())
        within, across = AttentionRecord(), AttentionRecord()
        bias = attention_bias(attention_mask, embeds.dtype)
        for layer, context in zip(model.fusion_encoder.layers, contexts, strict=True):
            # The layer's own two attentions, one after the other, because its forward records only
            # the second.
            attended = layer.attention(embeds, layer.attention.keys_values(embeds), bias, within)
            embeds = layer.attention_norm(embeds + attended)
            embeds = layer.cross_attention_norm(
                embeds + layer.cross_attention(embeds, context, None, across)
            )
            embeds = layer.mlp_norm(embeds + layer.fc2(nn.functional.gelu(layer.fc1(embeds))))
        recorded = [*within.probabilities, *across.probabilities]
        gradients = torch.autograd.grad(objective(embeds).sum(), recorded)
    weighted = [
        (p.detach() * g.clamp(min=0)).mean(1).float()
        for p, g in zip(recorded, gradients, strict=True)
    ]
    count = len(contexts)
    identity = torch.eye(embeds.shape[1], device=embeds.device)
    text_to_text, text_to_image = (
        identity.expand(len(embeds), -1, -1),
        torch.zeros_like(weighted[count]),
    )
    for self_attention, cross_attention in zip(weighted[:count], weighted[count:], strict=True):
        text_to_image = text_to_image + self_attention @ text_to_image
        text_to_text = text_to_text + self_attention @ text_to_text
        mixed = text_to_text - identity
        mixed = (
            mixed / mixed.sum(-1, keepdim=True).clamp(min=torch.finfo(mixed.dtype).tiny) + identity
        )
        text_to_image = text_to_image + mixed.transpose(1, 2) @ cross_attention
    return text_to_image[..., 1:]


@torch.no_grad()
def similarity_maps(model: X2VLM, image_embeds: Tensor, text_embeds: Tensor) -> Tensor:
    """Each patch's share of a text by their similarity: float32[N, P-1]. Of the dense box head
    where the model has one, else of the contrastive features.

    Raises:
        CheckpointError: the model has no contrastive head (`ckpt/keys`).
    """
    seen, texts = image_embeds.float(), text_embeds.float()
    if model.dense_box_head is None:
        return patch_shares(model.patch_similarity(seen, texts))
    return patch_shares(model.dense_boxes(seen, texts)[0])


def image_gradcam(
    model: X2VLM,
    text_embeds: Tensor,
    attention_mask: Tensor,
    image_embeds: Tensor,
    objective: Objective,
) -> Tensor:
    """Grad-CAM at the image tower's output by the grad-cam package: float32[P-1] in [0, 1], for a
    text as a whole.

    The package hooks and runs a stand-in of this call that starts from the patch tokens, never the
    shared model. The model's parameters must be frozen, as a Predictor's are: the package calls
    `backward`.
    """
    from pytorch_grad_cam import GradCAM

    grid_size = model.config.vision.grid_size

    class FromPatches(nn.Module):
        def __init__(self):
            super().__init__()
            self.patches = nn.Identity()
            # The package takes the device from it.
            self.place = nn.Parameter(torch.zeros((), device=image_embeds.device))

        def forward(self, patches: Tensor) -> Tensor:
            patches = self.patches(patches)
            tokens = torch.cat([patches.mean(1, keepdim=True), patches], dim=1)
            return objective(model.fuse(text_embeds, attention_mask, tokens))[:, None]

    class PatchGridCAM(GradCAM):
        def get_target_width_height(self, input_tensor: Tensor) -> tuple[int, int]:
            return grid_size[::-1]

    def as_channels(tokens: Tensor) -> Tensor:
        return tokens.float().transpose(1, 2).unflatten(2, grid_size)

    stand_in = FromPatches()
    with (
        torch.enable_grad(),
        PatchGridCAM(stand_in, [stand_in.patches], reshape_transform=as_channels) as cam,
    ):
        heat = cam(
            image_embeds[:, 1:].detach().clone().requires_grad_(), [lambda output: output[0]]
        )
    return torch.from_numpy(heat[0].flatten())


def random_maps(image_embeds: Tensor, count: int, seed: int) -> Tensor:
    """The baseline of the grad-cam package's RandomCAM with a seed: channels of the image tokens
    weighted at random, ReLU.

    float32[count, P-1], each map scaled to at most 1.
    """
    generator = torch.Generator().manual_seed(seed)
    weights = torch.rand(count, image_embeds.shape[-1], generator=generator) * 2 - 1
    maps = (weights @ image_embeds[0, 1:].float().cpu().T).clamp(min=0)
    return maps / maps.amax(1, keepdim=True).clamp(min=torch.finfo(maps.dtype).tiny)


def overall_map(token_maps: Tensor, grid_size: tuple[int, int]) -> np.ndarray:
    """Map of a whole text float32 (rows, columns) from those of all its tokens float[T, P-1]: their
    mean, `[CLS]` and `[SEP]` included.

    The special tokens gather what the words found, so the mean over all points better than the
    words alone (the same choice as ALBEF's for grounding, arXiv 2107.07651).
    """
    return token_maps.float().mean(0).view(grid_size).cpu().numpy()


def left_to_right_layout(
    prompt_ids: Sequence[int], piece_ids: Sequence[int], mask_id: int
) -> tuple[Tensor, Tensor, Tensor]:
    """A caption laid out so that one pass scores each of its tokens as generation would.

    The prompt and all pieces but the last stand first, then one `[MASK]` per piece at the piece's
    own position. A mask sees the tokens before its position and itself, and nobody sees a mask: its
    gradients belong to its own token alone.

    Returns:
        input_ids int64[1, T], attention_mask bool[1, T, T], position_ids int64[1, T]. The masks are
        the last tokens.
    """
    real, count = [*prompt_ids, *piece_ids[:-1]], len(piece_ids)
    positions = torch.cat([torch.arange(len(real)), len(prompt_ids) + torch.arange(count)])
    is_mask = torch.arange(len(positions)) >= len(real)
    earlier = positions[None] < positions[:, None]
    sees = (earlier & ~is_mask[None]) | torch.eye(len(positions), dtype=torch.bool)
    return torch.tensor([[*real, *[mask_id] * count]]), sees[None], positions[None]


def agreement(map2d: np.ndarray, box_xyxy: Sequence[float]) -> Agreement:
    """How far a heat map (rows, columns) and a box agree.

    Args:
        box_xyxy: as fractions of the picture's sides. A patch that the box cuts counts with the
            share inside.
    """
    x1, y1, x2, y2 = box_xyxy
    rows, columns = _shares(map2d.shape[0], y1, y2), _shares(map2d.shape[1], x1, x2)
    total = float(map2d.sum())
    inside = float((map2d * rows[:, None] * columns).sum()) / total if total > 0 else 0.0
    hit = None
    if not is_flat(map2d):
        row, column = np.unravel_index(int(map2d.argmax()), map2d.shape)
        x, y = (column + 0.5) / map2d.shape[1], (row + 0.5) / map2d.shape[0]
        hit = bool(x1 <= x <= x2 and y1 <= y <= y2)
    return Agreement(
        pointing_hit=hit, energy_inside=inside, box_area=max(x2 - x1, 0.0) * max(y2 - y1, 0.0)
    )


def _shares(count: int, start: float, end: float) -> np.ndarray:
    """How much of each of `count` equal parts of a side lies between two fractions of it."""
    edges = np.arange(count) / count
    return (np.minimum(edges + 1 / count, end) - np.maximum(edges, start)).clip(min=0) * count

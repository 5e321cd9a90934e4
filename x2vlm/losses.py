"""The losses of X²-VLM as pure functions of tensors, with the official arithmetic where it is
sound.

Departures, each an official slip: a degenerate box affects its own term only (the official code
zeroes GIoU for the whole batch), and a batch without boxes gives 0 instead of NaN.

Shapes: B local pairs, G pairs over all processes, R regions, V vocabulary.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from x2vlm.boxes import cxcywh_to_xyxy, generalized_iou_pairs


def _gather(rows: Tensor) -> tuple[Tensor, int]:
    """Rows of every process in rank order, and where the own ones start; processes may have
    different numbers of rows."""
    counts = [
        torch.zeros(1, dtype=torch.long, device=rows.device) for _ in range(dist.get_world_size())
    ]
    dist.all_gather(counts, torch.tensor([len(rows)], device=rows.device))
    counts = [int(count) for count in counts]
    padded = rows.new_zeros(max(counts), *rows.shape[1:])
    padded[: len(rows)] = rows
    gathered = [torch.empty_like(padded) for _ in counts]
    dist.all_gather(gathered, padded)
    whole = torch.cat([part[:count] for part, count in zip(gathered, counts, strict=True)])
    return whole, sum(counts[: dist.get_rank()])


class _GatherLocalGradient(torch.autograd.Function):
    """All processes' rows; backward keeps the local slice.

    DistributedDataParallel averages gradients over processes and every process computes the whole
    loss, so the local slice is scaled by their number: the result is the gradient of the
    one-process loss on the global batch.
    """

    @staticmethod
    def forward(ctx, rows: Tensor) -> Tensor:
        whole, ctx.start = _gather(rows)
        ctx.count = len(rows)
        return whole

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        return gradient[ctx.start : ctx.start + ctx.count] * dist.get_world_size()


def _processes() -> int:
    """How many train together; 1 without a process group, and where no gradient is wanted:
    processes evaluate by themselves."""
    together = torch.is_grad_enabled() and dist.is_available() and dist.is_initialized()
    return dist.get_world_size() if together else 1


class StepFeatures:
    """Gradient cache (arXiv 2101.06983): contrastive losses of one part of a step compare the rows
    of all parts, of which its own have a graph.

    First every part runs without a graph within `first`, then every part again within `part`; the
    mean of their losses has the gradients of one loss on the whole step. A part is to its step what
    a process is to the batch.
    """

    def __init__(self, parts: int):
        self.rows: list[list[Tensor]] = [[] for _ in range(parts)]
        self._number, self._call = 0, None

    @contextlib.contextmanager
    def _within(self, number: int, call: int | None) -> Iterator[None]:
        self._number, self._call = number, call
        token = _features.set(self)
        try:
            yield
        finally:
            _features.reset(token)

    def first(self, number: int) -> contextlib.AbstractContextManager[None]:
        """Keeps the rows that the part compares."""
        return self._within(number, None)

    def part(self, number: int) -> contextlib.AbstractContextManager[None]:
        """Joins the rows of the part with those of the others."""
        return self._within(number, 0)

    def join(self, rows: Tensor) -> Tensor:
        """What a contrastive loss compares instead of its `rows` [B, ...]."""
        if self._call is None:
            self.rows[self._number].append(rows)
            return rows
        whole = [kept[self._call] for kept in self.rows]
        self._call += 1
        own = rows.view_as(rows)
        if own.requires_grad:  # of the mean over parts only this part's loss knows these rows
            own.register_hook(lambda gradient: gradient * len(whole))
        whole[self._number] = own
        return torch.cat(whole)


_features: ContextVar[StepFeatures | None] = ContextVar("step_features", default=None)


def gather_features(rows: Tensor) -> Tensor:
    """float[B, ...] of every process in rank order float[G, ...]; B may differ. Within the parts of
    a `StepFeatures`, B are the rows of all of them."""
    features = _features.get()
    if features is not None:
        rows = features.join(rows)
    if _processes() == 1:
        return rows
    return _GatherLocalGradient.apply(rows) if rows.requires_grad else _gather(rows)[0]


def _global_mean(terms: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean of `terms` over the global batch, however its weights are spread over
    processes; 0 without any weight.

    What a process returns is its share of the mean times the number of processes: losses and
    gradients are averaged over them.
    """
    terms, weights = terms.float(), weights.float()
    whole, processes = weights.sum(), _processes()
    if processes > 1:
        dist.all_reduce(whole)
    return (terms * weights).sum() * processes / whole.clamp(min=1e-5)


def contrastive_loss(
    image_features: Tensor,
    text_features: Tensor,
    temperature: Tensor | float,
    positives: Tensor | None = None,
) -> Tensor:
    """Symmetric contrastive loss over the global batch (arXiv 2111.08276, equations 1-3).

    Args:
        image_features, text_features: float[B, E], L2-normalised; row i belongs to row i.
        temperature: scalar that divides the similarity.
        positives: int64[B] or int64[B, K]; rows with an equal number in some column are positives
            of each other. None: only the diagonal.

    Returns:
        Scalar, the mean of both directions; 0 where there are no rows.
    """
    images, texts = gather_features(image_features), gather_features(text_features)
    if not len(images):
        return images.sum() + texts.sum()
    logits = images @ texts.T / temperature
    if positives is None:
        labels = torch.arange(len(logits), device=logits.device)
        return (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2
    positives = gather_features(positives)
    targets = _positive_pairs(len(logits), positives, logits.device).to(logits.dtype)
    targets = targets / targets.sum(dim=1, keepdim=True)
    return (F.cross_entropy(logits, targets) + F.cross_entropy(logits.T, targets)) / 2


@torch.no_grad()
def sample_hard_negatives(similarity: Tensor, positives: Tensor | None = None) -> Tensor:
    """For every row one column that is not its positive, drawn in proportion to softmax(similarity)
    + 1e-5.

    Args:
        similarity: float[B, B], already divided by the temperature, over the local batch.
        positives: see `contrastive_loss`.

    Returns:
        int64[B]. A row without any negative gets its own index; leave such rows out with
        `has_negative`.
    """
    # NaN shows in the loss, where it is dealt with.
    weights = similarity.float().softmax(dim=1).nan_to_num(0) + 1e-5
    weights = weights.masked_fill(_positive_pairs(len(weights), positives, weights.device), 0)
    alone = weights.sum(dim=1) == 0
    weights[alone] = torch.eye(len(weights), device=weights.device)[alone]
    return torch.multinomial(weights, 1)[:, 0]


def has_negative(batch_size: int, positives: Tensor | None, device: torch.device) -> Tensor:
    """bool[B]: rows for which the batch holds a negative at all."""
    return ~_positive_pairs(batch_size, positives, device).all(dim=1)


def _positive_pairs(batch_size: int, positives: Tensor | None, device: torch.device) -> Tensor:
    if positives is None:
        return torch.eye(batch_size, dtype=torch.bool, device=device)
    keys = positives.reshape(batch_size, *positives.shape[1:] or (1,))
    return (keys[:, None] == keys[None]).any(dim=-1)


def classification_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy of matching, pairs and classes: logits float[K, C], labels int64[K], -100
    = left out. No label: 0."""
    terms = F.cross_entropy(logits.float(), labels, ignore_index=-100, reduction="none")
    return _global_mean(terms, labels != -100)


def masked_lm_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy over masked tokens: logits float[B, M, V], labels int64[B, M], -100 =
    ignored. No label: 0."""
    return classification_loss(logits.flatten(0, 1), labels.flatten())


def smoothed_lm_loss(
    logits: Tensor,
    labels: Tensor,
    smoothing: float,
    excluded_id: int,
    weights: Tensor | None = None,
) -> Tensor:
    """KL divergence to smoothed targets, summed over the vocabulary, averaged over real masks
    (official captioning loss).

    The label has probability 1 - smoothing; the rest is shared by all other tokens but
    `excluded_id`.

    Args:
        logits: float[B, M, V]; labels: int64[B, M], -100 or weight 0 = ignored; weights: float[B,
            M].
    """
    ignored = (labels == -100) | (labels == excluded_id)
    log_probabilities = logits.float().log_softmax(dim=-1)
    targets = torch.full_like(log_probabilities, smoothing / (logits.shape[-1] - 2))
    targets[..., excluded_id] = 0
    targets.scatter_(-1, labels.masked_fill(ignored, 0)[..., None], 1 - smoothing)
    loss = (
        F.kl_div(log_probabilities, targets, reduction="none").sum(dim=-1).masked_fill(ignored, 0)
    )
    return _global_mean(loss, labels != -100 if weights is None else weights)


def next_token_loss(logits: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
    """Cross-entropy to smoothed targets, mean over the labels (X-VLM's captioning loss).

    The label has probability 1 - smoothing, every other token smoothing / V.

    Args:
        logits: float[B, T, V]; labels: int64[B, T], -100 = ignored.
    """
    log_probabilities = logits.float().log_softmax(dim=-1)
    real = labels != -100
    own = log_probabilities.gather(-1, labels.masked_fill(~real, 0)[..., None])[..., 0]
    others = log_probabilities.sum(dim=-1) - own
    loss = -((1 - smoothing) * own + smoothing / logits.shape[-1] * others)
    return _global_mean(loss.masked_fill(~real, 0), real)


def self_critical_loss(log_probabilities: Tensor, advantages: Tensor, written: Tensor) -> Tensor:
    """REINFORCE with the model's own greedy text as the baseline (Rennie et al., arXiv 1612.00563):
    minus the log-probability of every token times the advantage of its text, mean over tokens.

    Args:
        log_probabilities: float[N, T], of the tokens of texts that were drawn.
        advantages: float[N], reward of each text minus that of the greedy one of its image.
        written: bool[N, T], False = padding.
    """
    terms = -log_probabilities.float() * advantages[:, None]
    return _global_mean(terms.masked_fill(~written, 0), written)


def box_losses(
    boxes_cxcywh: Tensor, targets_cxcywh: Tensor, is_image: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """L1 and 1 - GIoU, each summed over regions and divided by their number (arXiv 2111.08276,
    equation 6).

    Args:
        boxes_cxcywh, targets_cxcywh: float[R, 4] as fractions of the picture's sides.
        is_image: bool[R]; rows whose text describes the whole image are left out.
    """
    boxes_cxcywh, targets_cxcywh = boxes_cxcywh.float(), targets_cxcywh.float()
    weights = torch.ones_like(boxes_cxcywh[:, 0]) if is_image is None else ~is_image.bool()
    l1 = (boxes_cxcywh - targets_cxcywh).abs().sum(dim=1)
    giou = generalized_iou_pairs(cxcywh_to_xyxy(boxes_cxcywh), cxcywh_to_xyxy(targets_cxcywh))
    return _global_mean(l1, weights), _global_mean(1 - giou, weights)


def alignment_loss(
    patch_features: Tensor,
    text_features: Tensor,
    inside: Tensor,
    temperature: Tensor | float,
    weights: Tensor,
) -> Tensor:
    """How much of a phrase's similarity to the patches falls outside its box. Not in the paper.

    The similarities become shares of the image by a softmax over its patches; the loss is minus the
    logarithm of the share inside. A phrase finds its place so thousands of images before the box
    head does, and the box head follows.

    Args:
        patch_features: float[B, P, E], L2-normalised; text_features: float[B, K, E].
        inside: bool[B, K, P], the patches of each phrase's box.
        weights: float or bool[B, K], 0 = no box is known.
    """
    similarity = patch_features.float() @ text_features.float().transpose(1, 2) / temperature
    return share_loss(similarity.transpose(1, 2), inside, weights)


def share_loss(scores: Tensor, inside: Tensor, weights: Tensor) -> Tensor:
    """Minus the logarithm of the share inside a phrase's box, shares being the softmax of float[B,
    K, P]; the rest as for `alignment_loss`."""
    shares = scores.float().log_softmax(dim=-1)
    within = shares.masked_fill(~inside, -torch.inf).logsumexp(dim=-1)
    return _global_mean(-within.masked_fill(~weights.bool(), 0), weights)


def dense_box_losses(
    boxes_xyxy: Tensor, targets_cxcywh: Tensor, inside: Tensor
) -> tuple[Tensor, Tensor]:
    """L1 and 1 - GIoU of the boxes that the patches inside a region tell, every region counted
    once. Not in the paper.

    Args:
        boxes_xyxy: float[R, P, 4] as fractions of the picture's sides.
        targets_cxcywh: float[R, 4].
        inside: bool[R, P], the patches of each region; a region without any is left out.
    """
    region, _ = inside.nonzero(as_tuple=True)
    told, right = boxes_xyxy.float()[inside], cxcywh_to_xyxy(targets_cxcywh.float())[region]
    weights = 1 / inside.sum(dim=1)[region]
    l1 = (told - right).abs().sum(dim=1)
    giou = generalized_iou_pairs(told, right)
    return _global_mean(l1, weights), _global_mean(1 - giou, weights)

"""Losses against hand-made numbers and properties."""

import math

import pytest
import torch
import torch.nn.functional as F

from x2vlm.boxes import (
    cxcywh_to_xyxy,
    generalized_box_iou,
    generalized_iou_pairs,
    xywh_to_cxcywh,
    xyxy_to_cxcywh,
)
from x2vlm.losses import (
    alignment_loss,
    box_losses,
    classification_loss,
    contrastive_loss,
    dense_box_losses,
    has_negative,
    masked_lm_loss,
    sample_hard_negatives,
    smoothed_lm_loss,
)


def test_contrastive_loss_of_two_pairs():
    features = torch.eye(2)
    expected = math.log(1 + math.exp(-1 / 0.5))
    assert contrastive_loss(features, features, 0.5).item() == pytest.approx(expected, rel=1e-5)


def test_contrastive_loss_of_no_pairs_is_zero():
    empty = torch.zeros(0, 4, requires_grad=True)
    loss = contrastive_loss(empty, empty, 0.5, torch.zeros(0, dtype=torch.long))
    loss.backward()
    assert loss.item() == 0


def test_equal_positives_share_the_target():
    images = F.normalize(torch.randn(4, 8, generator=torch.Generator().manual_seed(0)), dim=1)
    texts = F.normalize(torch.randn(4, 8, generator=torch.Generator().manual_seed(1)), dim=1)
    distinct = contrastive_loss(images, texts, 0.1, torch.tensor([3, 5, 9, 1]))
    torch.testing.assert_close(distinct, contrastive_loss(images, texts, 0.1))
    logits = images @ texts.T / 0.1
    targets = torch.tensor([[0.5, 0.5, 0, 0], [0.5, 0.5, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    by_hand = (
        -(targets * logits.log_softmax(1)).sum(1).mean() / 2
        - (targets * logits.T.log_softmax(1)).sum(1).mean() / 2
    )
    torch.testing.assert_close(
        contrastive_loss(images, texts, 0.1, torch.tensor([4, 4, 2, 8])), by_hand
    )


def test_hard_negatives_follow_similarity_and_avoid_positives():
    torch.manual_seed(0)
    similarity = torch.tensor([[9.0, 8.0, 0.0, -9.0]]).expand(4, 4)
    draws = torch.stack([sample_hard_negatives(similarity) for _ in range(300)])
    assert not (draws == torch.arange(4)).any()
    assert (draws[:, 0] == 1).float().mean() > 0.95
    positives = torch.tensor([1, 1, 2, 2])
    draws = torch.stack([sample_hard_negatives(similarity, positives) for _ in range(100)])
    assert set(draws[:, :2].unique().tolist()) <= {2, 3}
    assert has_negative(3, torch.tensor([1, 1, 1]), torch.device("cpu")).tolist() == [False] * 3
    assert sample_hard_negatives(torch.zeros(1, 1)).tolist() == [0]
    broken = sample_hard_negatives(
        torch.full((3, 3), torch.nan)
    )  # that the loss is NaN too is for the loop to say
    assert (broken != torch.arange(3)).all()


def test_classification_leaves_rows_out():
    logits = torch.tensor([[0.0, 2.0], [0.0, 2.0], [5.0, 0.0]])
    torch.testing.assert_close(
        classification_loss(logits, torch.tensor([1, -100, -100])),
        F.cross_entropy(logits[:1], torch.tensor([1])),
    )


def test_masked_lm_loss_without_a_label_is_zero():
    logits = torch.randn(2, 3, 11)
    assert masked_lm_loss(logits, torch.full((2, 3), -100)).item() == 0
    labels = torch.tensor([[1, -100, 4], [7, -100, -100]])
    torch.testing.assert_close(
        masked_lm_loss(logits, labels),
        F.cross_entropy(logits[labels != -100], labels[labels != -100]),
    )


def test_smoothed_targets_are_the_official_ones():
    """The loss is zero exactly when the prediction is the smoothed target: 0.9, 3.27654e-6
    elsewhere, 0 at the excluded id."""
    vocabulary, label, excluded = 30522, 7, 101
    target = torch.full((1, 1, vocabulary), 0.1 / (vocabulary - 2))
    assert target[0, 0, 0].item() == pytest.approx(3.27654e-6, rel=1e-5)
    target[..., label], target[..., excluded] = 0.9, 1e-30
    assert smoothed_lm_loss(
        target.log(), torch.tensor([[label]]), 0.1, excluded
    ).item() == pytest.approx(0, abs=1e-4)
    assert (
        smoothed_lm_loss(torch.zeros_like(target), torch.tensor([[label]]), 0.1, excluded).item()
        > 5
    )
    assert (
        smoothed_lm_loss(torch.zeros_like(target), torch.tensor([[excluded]]), 0.1, excluded).item()
        == 0
    )


def test_box_losses_by_hand():
    boxes = torch.tensor([[0.5, 0.5, 0.2, 0.2], [0.25, 0.25, 0.5, 0.5]])
    targets = torch.tensor([[0.5, 0.5, 0.2, 0.2], [0.75, 0.25, 0.5, 0.5]])
    l1, giou = box_losses(boxes, targets)
    assert l1.item() == pytest.approx(0.25)
    assert giou.item() == pytest.approx(0.5)
    l1, giou = box_losses(boxes, targets, torch.tensor([True, False]))
    assert (l1.item(), giou.item()) == (pytest.approx(0.5), pytest.approx(1.0))
    l1, giou = box_losses(boxes, targets, torch.tensor([True, True]))
    assert (l1.item(), giou.item()) == (0, 0)


def test_a_degenerate_box_costs_only_itself():
    boxes = torch.tensor([[0.5, 0.5, 0.0, 0.0], [0.25, 0.25, 0.5, 0.5]], requires_grad=True)
    targets = torch.tensor([[0.5, 0.5, 0.0, 0.0], [0.3, 0.25, 0.5, 0.5]])
    _, giou = box_losses(boxes, targets)
    giou.backward()
    assert torch.isfinite(giou) and torch.isfinite(boxes.grad).all()
    assert boxes.grad[1].abs().max() > 0


def test_pairwise_giou_equals_the_library_diagonal():
    generator = torch.Generator().manual_seed(0)
    boxes, targets = (
        cxcywh_to_xyxy(torch.rand(50, 4, generator=generator) * 0.5 + 0.1) for _ in range(2)
    )
    torch.testing.assert_close(
        generalized_iou_pairs(boxes, targets), generalized_box_iou(boxes, targets).diagonal()
    )


def test_box_formats_round_trip():
    boxes = torch.tensor([[0.5, 0.4, 0.2, 0.1]])
    torch.testing.assert_close(xyxy_to_cxcywh(cxcywh_to_xyxy(boxes)), boxes)
    torch.testing.assert_close(
        xywh_to_cxcywh(torch.tensor([[10.0, 20, 4, 6]])), torch.tensor([[12.0, 23, 4, 6]])
    )


def test_alignment_is_the_share_of_the_similarity_inside_the_box():
    """Equal similarities: minus the logarithm of the box's share of the patches."""
    patches, texts = torch.ones(1, 8, 2), torch.ones(1, 1, 2)
    inside = torch.tensor([[[True, True] + [False] * 6]])
    loss = alignment_loss(patches, texts, inside, 0.1, torch.ones(1, 1))
    assert loss.item() == pytest.approx(math.log(4), abs=1e-5)


def test_alignment_leaves_out_phrases_without_a_box():
    torch.manual_seed(0)
    patches, texts = torch.randn(2, 8, 4), torch.randn(2, 3, 4)
    inside = torch.rand(2, 3, 8) > 0.5
    known = torch.tensor([[True, False, False], [True, False, False]])
    loss = alignment_loss(patches, texts, inside, 1.0, known)
    alone = alignment_loss(patches, texts[:, :1], inside[:, :1], 1.0, known[:, :1])
    torch.testing.assert_close(loss, alone)
    assert alignment_loss(patches, texts, inside, 1.0, torch.zeros(2, 3)).item() == 0


def test_dense_boxes_count_every_region_once_and_the_patches_inside_alone():
    """Of one region two patches tell the right box and a box moved by 0.1, of the other four the
    right one."""
    right = torch.tensor([[0.5, 0.5, 0.4, 0.4], [0.3, 0.3, 0.2, 0.2]])
    boxes = cxcywh_to_xyxy(right)[:, None].repeat(1, 5, 1)
    boxes[0, 1, 0] += 0.1
    boxes[:, 4] = torch.nan
    inside = torch.tensor([[True, True, False, False, False], [True, True, True, True, False]])
    l1, giou = dense_box_losses(boxes.nan_to_num(9.0), right, inside)
    assert l1.item() == pytest.approx(0.1 / 2 / 2, abs=1e-6)
    assert giou.item() == pytest.approx((1 - 0.3 / 0.4) / 2 / 2, abs=1e-6)


def test_dense_boxes_without_a_region_cost_nothing():
    l1, giou = dense_box_losses(torch.rand(2, 5, 4), torch.rand(2, 4), torch.zeros(2, 5).bool())
    assert l1.item() == 0 and giou.item() == 0

"""Whether an image looks like what a model was trained on.

The pooled image tokens of the training images are described by a normal distribution with a few
main directions and equal variance in all others (probabilistic PCA: Tipping and Bishop, 1999). The
distance of an image is its Mahalanobis distance to that; beyond a limit that few validation images
reach, the image is called outside.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from x2vlm.errors import CheckpointError
from x2vlm.settings import DOMAIN_FILE

DIRECTIONS = 64
"""Main directions that are kept."""


@dataclass(frozen=True, eq=False)
class Domain:
    """The distribution of a model's training images.

    Attributes:
        mean: float[D], of the pooled image tokens.
        directions: float[K, D], the main directions, orthonormal.
        variances: float[K + 1], along each of them, and along every other direction.
        limit: distance beyond which an image is outside.
    """

    mean: Tensor
    directions: Tensor
    variances: Tensor
    limit: float

    @classmethod
    def fit(cls, features: Tensor, held_out: Tensor, share: float) -> Domain:
        """From pooled tokens float[N, D] of training images.

        Args:
            held_out: float[M, D], of images like them that training has not seen.
            share: of these that may lie outside.
        """
        features, held_out = features.float(), held_out.float()
        mean = features.mean(dim=0)
        _, singular, directions = torch.linalg.svd(features - mean, full_matrices=False)
        variances = singular.square() / len(features)
        count = min(DIRECTIONS, len(variances) - 1)
        rest = variances[count:].sum() / (features.shape[1] - count)
        kept = torch.cat([variances[:count], rest[None]]).clamp(min=1e-12)
        domain = cls(mean, directions[:count].contiguous(), kept, 0.0)
        limit = domain.distance(held_out).quantile(1 - share).item()
        return cls(domain.mean, domain.directions, domain.variances, limit)

    def distance(self, features: Tensor) -> Tensor:
        """Squared Mahalanobis distance float[N] of pooled tokens float[N, D]."""
        offset = features.to(self.mean) - self.mean
        along = offset @ self.directions.T
        rest = (offset.square().sum(dim=1) - along.square().sum(dim=1)).clamp(min=0)
        return (along.square() / self.variances[:-1]).sum(dim=1) + rest / self.variances[-1]

    def outside(self, features: Tensor) -> bool:
        """Whether most of the images of a scene, float[N, D], lie outside."""
        return bool((self.distance(features) > self.limit).float().mean() > 0.5)

    @classmethod
    def read(cls, folder: Path) -> Domain | None:
        """What the folder of a checkpoint says, None if it says nothing.

        Raises:
            CheckpointError: the file is damaged (`ckpt/damaged`).
        """
        path = folder / DOMAIN_FILE
        if not path.is_file():
            return None
        try:
            stored = {name: tensor.float() for name, tensor in load_file(path).items()}
            return cls(limit=stored.pop("limit").item(), **stored)
        except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError):
            raise CheckpointError(
                f"{DOMAIN_FILE} is damaged. Write it again with train.bundle, or remove it.",
                "ckpt/damaged",
            ) from None

    def write(self, folder: Path) -> None:
        """Into the folder of a checkpoint."""
        tensors = {"mean": self.mean, "variances": self.variances}
        tensors |= {"directions": self.directions.half(), "limit": torch.tensor(self.limit)}
        (folder / DOMAIN_FILE).write_bytes(save(tensors))


def outside_note(name: str) -> str:
    """The sentence for the user about a scene outside the world of the model `name`."""
    return (
        f"this does not look like what {name} was trained on; expect wrong answers. [scene/domain]"
    )

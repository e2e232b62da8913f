"""A new pooling, passed to the network as an object: what lies within the predicted nodule, what around it, and everything.

python examples/new_pooling.py
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from nnduet import Predictor
from nnduet.network.heads import JointNetwork
from nnduet.network.pooling import Pooling


class CorePooling:
    """Three masks: all foreground, a shell of three voxels around it, and everything. No base class is needed."""

    regional = True  # pool the image's intensities as well

    def num_masks(self, num_regions: int) -> int:
        """Whatever the number of regions."""
        return 3

    def masks(self, image: Tensor, logits: Tensor, *, overlapping: bool) -> Tensor:
        """(B, 3, *spatial) from an image (B, C, *spatial) and logits (B, R or R + 1, *spatial)."""
        logits = logits.detach().float()
        inside = logits.sigmoid().amax(1, keepdim=True) if overlapping else 1 - logits.softmax(1)[:, :1]
        grown = functional.max_pool3d(inside, 7, stride=1, padding=3)
        return torch.cat([inside, grown - inside, torch.ones_like(inside)], dim=1)


def main() -> None:
    trained = Predictor.load("lidc-nodule", folds=[0], runtime="torch").network
    pooling: Pooling = CorePooling()
    network = JointNetwork(trained, (), num_image_channels=1, num_regions=1, overlapping=False, stages=[0, 1], pooling=pooling)
    torch.manual_seed(0)
    patch = torch.randn(1, 1, 16, 32, 32)
    patch[..., 4:12, 8:24, 8:24] += 3
    with torch.inference_mode():
        logits, sums = network.forward_joint(patch)
    print(f"logits {tuple(logits.shape)}; volumes of the masks: {[round(v) for v in sums.volumes[0].tolist()]} voxels")
    for name, columns in network.feature_blocks.items():
        values = sums.features()[0, columns.start : columns.stop]
        print(f"{name}: {len(columns)} features, {', '.join(f'{v:.2f}' for v in values[:4])}, ...")


if __name__ == "__main__":
    main()

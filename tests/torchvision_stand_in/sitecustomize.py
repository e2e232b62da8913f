"""Put on PYTHONPATH of a stock nnU-Net process where torchvision was built for another torch and cannot be imported.

nnU-Net's look-up of trainers imports timm and so torchvision, which stops at ``operator torchvision::nms does not exist``.
Naming the two operators that it describes on import is all it asks for; nothing calls them.
"""

import torch

_LIBRARY = torch.library.Library("torchvision", "DEF")
for _name in ("nms", "qnms"):
    _LIBRARY.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

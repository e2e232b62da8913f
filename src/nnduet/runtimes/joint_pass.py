"""What every runtime computes: one pass of the network over a batch of patches."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from nnduet.network.pooling import PooledSums

__all__ = ["JointPass"]

JointPass = Callable[[Tensor, Tensor], tuple[Tensor, PooledSums]]
"""Patches (B, C, *patch) and their tiles' shares (B, 1, *patch) to logits (B, K, *patch) and sums of B rows. Both hold
until the next call, which may write to the same memory."""

"""The joint network: heads, pooling, losses, and the hardware it runs on. Plain torch."""

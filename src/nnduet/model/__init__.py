"""The joint network, its pooling, heads and losses, and the case head."""

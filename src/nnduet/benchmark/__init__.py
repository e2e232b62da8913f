"""Speed: stock nnU-Net against nnDuet in processes of their own; no metric of quality."""

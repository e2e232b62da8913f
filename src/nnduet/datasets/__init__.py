"""From what users have to datasets that nnU-Net reads: layouts, case tables, checks, folds."""

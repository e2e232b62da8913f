"""Sliding window, the predictor and prediction of folders."""

"""Predictions against references: metrics, bootstrap intervals, calibration."""

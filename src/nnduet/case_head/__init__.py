"""The case head on frozen features: feature table, families, fit, calibration, outliers. No torch."""

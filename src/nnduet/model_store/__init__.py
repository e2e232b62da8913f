"""Trained models as files: folders, bundles, shipped and stock models."""

"""Readers and writers: images with their geometry, tables, folders of cases; atomic and guarded."""

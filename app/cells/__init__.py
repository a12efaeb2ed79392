"""Cells: which database holds which project, and what the cells share."""

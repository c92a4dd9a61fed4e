"""Devices: the mesh, and who gets which part of an array."""

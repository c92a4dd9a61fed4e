"""Devices: the mesh, the shardings of parameters, and several processes as one run."""

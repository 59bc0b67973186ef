"""Optical flow as a network, for where it should not leave the GPU."""

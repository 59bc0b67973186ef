"""From a class activation sequence to segments: windows, normalisation, scoring, NMS."""

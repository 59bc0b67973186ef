"""Training: features and background clicks in, a checkpoint that describes itself out."""

"""Export: checkpoints and backbones to ONNX, and a Triton model repository from them."""

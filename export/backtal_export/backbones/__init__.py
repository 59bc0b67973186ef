"""The networks that turn clips into features: their weights, torch ports and ONNX graphs."""

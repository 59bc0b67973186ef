"""TensorRT engines from a bundle's ONNX files.

precision   float32 -> float16, int8: a file of its own, whose types the engine obeys
network     the file in the form that TensorRT reads, and whether it knows every operator
profiles    the shapes that an engine is built for, from the clip plan
engine      build, run, verify against ONNX Runtime: these alone need TensorRT and a GPU
"""

"""A bundle's public model: the code is the installed package's, the bundle is manifest.json."""

from backtal_serving.pipeline_model import TritonPythonModel

__all__ = ["TritonPythonModel"]

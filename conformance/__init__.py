"""Conformance suite: does OpenCV's DNN module answer as TensorFlow does?"""

__version__ = "0.1.0"

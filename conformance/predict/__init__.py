"""Prediction: any picture through OpenCV and TensorFlow, side by side. Imports neither."""

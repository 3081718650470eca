"""The full evaluation on the ImageNet validation set: accuracy, time and L1 of both frameworks."""

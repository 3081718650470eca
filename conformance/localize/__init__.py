"""One model node by node: where OpenCV leaves the noise."""

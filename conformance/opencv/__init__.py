"""The OpenCV side: the only room that imports cv2."""

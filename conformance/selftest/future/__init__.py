"""An OpenCV as it is to become: this folder on PYTHONPATH puts its cv2 before the installed one."""

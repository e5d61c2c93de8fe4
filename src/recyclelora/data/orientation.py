"""Which way up an image is: photographs are stored as the sensor lies, and an EXIF orientation asks for a turn.

Viewers, labelling tools, OpenCV and detectron2 turn, and Pillow does not, so that masks exist on both grids. Where the
sizes differ the mask says which grid is its own; where they cannot tell, the other files of the set do, or the user.
"""

from __future__ import annotations

import cv2
import numpy as np

UPRIGHT = 1
INVERSE = {1: 1, 2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6}
"""The orientation that undoes another one."""


def turned(image: np.ndarray, orientation: int) -> np.ndarray:
    """A stored image (H, W, ...) as EXIF's ``orientation``, 1 to 8, asks for it to be shown."""
    match orientation:
        case 2:
            shown = cv2.flip(image, 1)
        case 3:
            shown = cv2.rotate(image, cv2.ROTATE_180)
        case 4:
            shown = cv2.flip(image, 0)
        case 5:
            shown = cv2.transpose(image)
        case 6:
            shown = cv2.rotate(image, cv2.ROTATE_90_CLOCKWISE)
        case 7:
            shown = cv2.flip(cv2.transpose(image), -1)
        case 8:
            shown = cv2.rotate(image, cv2.ROTATE_90_COUNTERCLOCKWISE)
        case _:
            return image
    return shown

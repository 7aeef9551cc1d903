"""Labelled images from folders, zips, npz and IDX files, decoded when they are needed, in bounded memory."""

from mothkit.images.imageset import ImageSet
from mothkit.images.load import load_images
from mothkit.images.sources import Limits, Resize

__all__ = ["ImageSet", "Limits", "Resize", "load_images"]

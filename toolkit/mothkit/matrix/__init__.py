"""Class distance over many directions: draws of images, their spread, their files and pictures."""

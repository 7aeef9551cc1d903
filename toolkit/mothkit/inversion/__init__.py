"""Trigger inversion: find the smallest trigger that turns source images into the target class."""

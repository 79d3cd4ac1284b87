"""Measurements of this project beside others, side by side on one machine: `./run bench`."""

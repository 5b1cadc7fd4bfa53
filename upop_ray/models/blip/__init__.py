"""BLIP: one file a family, with the layers that they share."""

"""The store: everything that a sweep leaves, under one folder or one prefix of a bucket."""

from upop_ray.store.files import TIMEOUT, Store, as_json
from upop_ray.store.paths import PointPaths, SweepPaths, dense_path

__all__ = ["TIMEOUT", "PointPaths", "Store", "SweepPaths", "as_json", "dense_path"]

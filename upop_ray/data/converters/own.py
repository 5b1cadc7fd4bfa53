"""A user's own data, with splits of its own or without."""

from collections.abc import Callable, Mapping, Sequence

from upop_ray.data.converters.base import Conversion, Item
from upop_ray.data.converters.holding import hold_out
from upop_ray.data.converters.source import Source

#: share of the training rows (of each class) that is held out for a split that is not there
_HELD_OUT = 0.1
SPLITS = ("train", "val", "test")


def completed(
    source: Source, found: Mapping[str, Sequence[Item]], group: Callable[[Item], str] = lambda item: ""
) -> Conversion:
    """The three splits: those that are there, and what is held out of training for those that are not.

    Where only one of `val` and `test` is there it is the test, which nothing may choose by.

    :param found: the splits that are there, `train` among them
    :raises DataError: too few rows to hold any out
    """
    splits = {split: list(items) for split, items in found.items()}
    origin = {split: split for split in splits}
    if "test" not in splits and "val" in splits:
        splits["test"], origin["test"] = splits.pop("val"), "val, as there is no test"
        del origin["val"]
    for split in ("test", "val"):
        if split not in splits:
            splits["train"], splits[split] = hold_out(splits["train"], _HELD_OUT, f"own/{split}", group)
            origin[split] = f"{len(splits[split]):,} rows held out of train, {_HELD_OUT:.0%} of it"
            origin["train"] = "train without what is held out"
        if not splits[split]:
            raise source.wrong(f"too few rows to hold any out as {split}; give one")
    return Conversion({split: splits[split] for split in SPLITS}, origin)

"""How to take a model out of a store."""

from upop_ray.store import PointPaths, Store


def load_lines(store: Store, point: str) -> str:
    """Python that loads the model of a point; of a bucket, the command that brings it here first."""
    path = store.path(PointPaths(point).model)
    if not store.is_local:
        return f"{export_command(store, point)}\n# then load FOLDER: from_pretrained reads folders"
    return (
        "import upop_ray  # makes the sliced classes known\n"
        "from transformers import AutoModel, AutoProcessor\n\n"
        f"model = AutoModel.from_pretrained({path!r})\n"
        f"processor = AutoProcessor.from_pretrained({path!r})"
    )


def export_command(store: Store, point: str) -> str:
    """The command that writes a folder which loads without this package."""
    return f"python -m upop_ray.export {point} --store {store.uri} --to FOLDER"

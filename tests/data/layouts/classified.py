"""ImageNet, ADE20K, and folders of classes."""

import csv
import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from scipy.io import savemat

from tests.data.layouts.files import encoded, jpeg, tar, write

# as ImageNet numbers them: not in the order of the wnids
WNIDS = {2: "n01440764", 1: "n02119789", 3: "n02100735"}
WORDS = {"n01440764": "tench, Tinca tinca", "n02119789": "kit fox, Vulpes macrotis", "n02100735": "English setter"}


def _devkit() -> dict[str, bytes]:
    """meta.mat and the ground truth of nine validation images, which are of the classes 1, 2, 3, 1, 2, ..."""
    kind = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("gloss", "O"), ("num_children", "O")]
    rows = [(id, wnid, WORDS[wnid], "what it is", 0) for id, wnid in sorted(WNIDS.items())]
    # an inner node of the tree of classes
    rows.append((1001, "n00001740", "entity", "what it is", 3))
    buffer = io.BytesIO()
    savemat(buffer, {"synsets": np.array(rows, dtype=kind).reshape(-1, 1)})
    truth = "".join(f"{place % 3 + 1}\n" for place in range(9))
    return {"meta.mat": buffer.getvalue(), "ILSVRC2012_validation_ground_truth.txt": truth.encode()}


def _training_names(wnid: str) -> list[str]:
    return [f"{wnid}_{number}.JPEG" for number in range(6)]


def imagenet_folders(folder: Path) -> None:
    """ImageNet unpacked, validation images in folders of their class."""
    for id, wnid in WNIDS.items():
        for place, name in enumerate(_training_names(wnid)):
            write(folder / "train" / wnid / name, jpeg(100 * id + place))
        for place in range(3):
            number = 3 * place + id
            write(folder / "val" / wnid / f"ILSVRC2012_val_{number:08d}.JPEG", jpeg(1000 + number))


def imagenet_flat(folder: Path) -> None:
    """ImageNet unpacked, validation images side by side, with the development kit."""
    imagenet_folders(folder)
    for image in sorted((folder / "val").glob("*/*.JPEG")):
        image.rename(folder / "val" / image.name)
    for wnid in WORDS:
        (folder / "val" / wnid).rmdir()
    for name, content in _devkit().items():
        write(folder / "ILSVRC2012_devkit_t12" / "data" / name, content)


def imagenet_kaggle(folder: Path) -> None:
    """ImageNet as Kaggle packs it."""
    imagenet_flat(folder)
    inner = folder / "ILSVRC" / "Data" / "CLS-LOC"
    inner.mkdir(parents=True)
    (folder / "train").rename(inner / "train")
    (folder / "val").rename(inner / "val")
    for file in (folder / "ILSVRC2012_devkit_t12" / "data").iterdir():
        file.unlink()
    (folder / "ILSVRC2012_devkit_t12" / "data").rmdir()
    (folder / "ILSVRC2012_devkit_t12").rmdir()
    write(folder / "LOC_synset_mapping.txt", "".join(f"{wnid} {words}\n" for wnid, words in sorted(WORDS.items())))
    buffer = io.StringIO()
    table = csv.writer(buffer)
    table.writerow(["ImageId", "PredictionString"])
    for number in range(1, 10):
        table.writerow([f"ILSVRC2012_val_{number:08d}", f"{WNIDS[(number - 1) % 3 + 1]} 1 2 3 4 "])
    write(folder / "LOC_val_solution.csv", buffer.getvalue())


def imagenet_tars(folder: Path) -> None:
    """ImageNet as it is downloaded: a tar file of tar files, one of images, and the development kit."""
    classes = {}
    for id, wnid in WNIDS.items():
        images = {name: jpeg(100 * id + place) for place, name in enumerate(_training_names(wnid))}
        classes[f"{wnid}.tar"] = tar(images)
    write(folder / "ILSVRC2012_img_train.tar", tar(classes))
    images = {f"ILSVRC2012_val_{number:08d}.JPEG": jpeg(1000 + number) for number in range(9, 0, -1)}
    write(folder / "ILSVRC2012_img_val.tar", tar(images))
    kit = {f"ILSVRC2012_devkit_t12/data/{name}": content for name, content in _devkit().items()}
    write(folder / "ILSVRC2012_devkit_t12.tar.gz", tar(kit, "w:gz"))


def ade20k(folder: Path, train: int = 10, val: int = 4) -> None:
    """ADEChallengeData2016: map n has 0, 1 and 150 in its first row, and class n elsewhere."""
    root = folder / "ADEChallengeData2016"
    for part, short, count in (("training", "train", train), ("validation", "val", val)):
        for number in range(1, count + 1):
            name = f"ADE_{short}_{number:08d}"
            write(root / "images" / part / f"{name}.jpg", jpeg(number))
            numbers = np.full((16, 24), number, dtype=np.uint8)
            numbers[0, :3] = (0, 1, 150)
            write(root / "annotations" / part / f"{name}.png", encoded(numbers, "PNG"))
    lines = ["Idx\tRatio\tTrain\tVal\tName"]
    lines += [f"{number}\t0.1\t100\t20\tthing {number}, object {number}" for number in range(1, 151)]
    write(root / "objectInfo150.txt", "\n".join(lines) + "\n")


def image_folder(folder: Path, splits: Mapping[str, int]) -> None:
    """Images of cats and dogs.

    :param splits: images of each class
    """
    for split, count in splits.items():
        for seed, name in enumerate(("cat", "dog")):
            for number in range(count):
                write(folder / split / name / f"{number}.jpg", jpeg(100 * seed + number))

"""The model card of an export: README.md with front matter that model hubs read."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCardData
from transformers import PreTrainedModel

from upop_ray.deploy.graphs import described
from upop_ray.deploy.licences import Licence
from upop_ray.deploy.loading_lines import loading_lines
from upop_ray.deploy.markdown import table
from upop_ray.deploy.onnx import Graph
from upop_ray.deploy.standing import Standing
from upop_ray.deploy.subject import Subject
from upop_ray.pruning.cost import count_parameters

#: by which a card tells that its folder is an export
TAG = "upop"
#: family -> (name of the task on hubs, what the model is called)
_TASKS: Mapping[str, tuple[str, str]] = {
    "clip": ("zero-shot-image-classification", "CLIP"),
    "siglip": ("zero-shot-image-classification", "SigLIP"),
    "vit": ("image-classification", "vision transformer"),
    "segmenter": ("image-segmentation", "Segmenter"),
    "blip_retrieval": ("feature-extraction", "BLIP for retrieval"),
    "blip_caption": ("image-to-text", "BLIP for captions"),
    "blip_vqa": ("visual-question-answering", "BLIP for question answering"),
    "blip_nlvr": ("text-classification", "BLIP-NLVR2"),
}


@dataclass(frozen=True)
class Contents:
    """What an export holds, and how it did in its checks.

    :param stock: whether it is the padded model of transformers' class, or brings its own code
    :param difference: largest difference from the point's model, of the largest output or of 1
    :param onnx: files with their largest difference in ONNX Runtime; None without any
    """

    model: PreTrainedModel
    stock: bool
    difference: float
    onnx: tuple[tuple[Graph, ...], float] | None
    licence: Licence


def card(subject: Subject, contents: Contents, standing: Standing | None) -> str:
    """The text of README.md.

    :param standing: where the point stands among others of its store; None for a folder that belongs to no point
    """
    parts = [
        f"---\n{_front_matter(subject, contents)}\n---\n",
        _introduction(subject, contents),
        "## Use\n\n" + loading_lines(subject, contents.model, contents.stock),
        "## Checks\n\n" + _checks(contents),
    ]
    if subject.manifest is not None and standing is not None:
        parts += _of_the_point(subject.manifest, standing)
    parts.append("## Licence and data\n\n" + contents.licence.text)
    return "\n\n".join(part.rstrip() for part in parts) + "\n"


def without_place(path: str) -> str:
    """What a card may say of a path: built-in and hub names as they are, of others the last part alone."""
    local = path.startswith((".", "/", "~")) or "://" in path or path.count("/") > 1
    return path.rstrip("/").rpartition("/")[2] if local else path


def _front_matter(subject: Subject, contents: Contents) -> str:
    tags = [TAG, "pruning", *(["onnx"] if contents.onnx else []), *([] if contents.stock else ["custom_code"])]
    data = ModelCardData(
        library_name="transformers",
        pipeline_tag=_TASKS[subject.family][0],
        tags=tags,
        license=contents.licence.name,
        license_name=contents.licence.own_name,
        license_link=contents.licence.link,
        **_results(subject),
    )
    return data.to_yaml().rstrip()  # type: ignore[no-any-return]


def _results(subject: Subject) -> dict[str, Any]:
    """Test results, as hubs show them."""
    manifest = subject.manifest
    if manifest is None:
        return {}
    data = without_place(manifest["settings"]["data"]["path"])
    task: dict[str, Any] = {"task_type": _TASKS[subject.family][0], "task_name": manifest["settings"]["task"]["name"]}
    where: dict[str, Any] = {"dataset_type": data.replace(":", "/"), "dataset_name": data, "dataset_split": "test"}
    results = [
        EvalResult(**task, **where, metric_type=name, metric_name=name, metric_value=round(value, 4))
        for name, value in manifest["metrics"]["test"].items()
    ]
    return {"model_name": _name(subject), "eval_results": results}


def _name(subject: Subject) -> str:
    hash = subject.place.hash if subject.place else "sliced"
    return f"{subject.family}-{hash}"


def _introduction(subject: Subject, contents: Contents) -> str:
    parameters = count_parameters(subject.model)
    lines = [f"# {_name(subject)}", "", f"A {_TASKS[subject.family][1]} that upop_ray has compressed"]
    if subject.manifest is None:
        lines[-1] += f": {parameters:,} parameters."
    else:
        manifest, gone = subject.manifest, subject.manifest["compression"]
        lines[-1] += (
            f": {parameters:,} of {manifest['dense']['parameters']:,} parameters ({gone['parameters']:.1%} gone), "
            f"{manifest['macs']:,} of {manifest['dense']['macs']:,} multiply-accumulates ({gone['macs']:.1%} gone)."
        )
    if contents.stock:
        lines += [
            "",
            "**This folder is the dense shape with zeros** in the place of what was removed, for programs that need "
            f"transformers' own class. It has {count_parameters(contents.model):,} parameters, and is no smaller and "
            "no faster than the dense model.",
        ]
    return "\n".join(lines)


def _checks(contents: Contents) -> str:
    how = "transformers' own class" if contents.stock else "a process that could not import upop_ray"
    lines = [
        f"* loaded by {how}: the outputs on real images and texts differ from those of the point by at most "
        f"{contents.difference:.1e} (of the largest output, or of 1)"
    ]
    if contents.onnx is not None:
        graphs, difference = contents.onnx
        lines += [
            f"* ONNX Runtime on the CPU, 1, 3 and 8 real examples at once: at most {difference:.1e} (likewise)",
            "",
            "Files in `onnx/`, all with a free batch size:",
            "",
            described(graphs),
        ]
    return "\n".join(lines)


def _of_the_point(manifest: Mapping[str, Any], standing: Standing) -> list[str]:
    parts = ["## Evaluation\n\n" + _evaluation(manifest)]
    if standing.curves:
        parts.append("## Position on the curve\n\n" + "\n\n".join(standing.curves))
    if standing.latency:
        parts.append("## Latency\n\n" + standing.latency)
    parts.append("## Cost\n\n" + _cost(manifest, standing))
    parts.append("## Recipe\n\n" + _recipe(manifest))
    return parts


def _evaluation(manifest: Mapping[str, Any]) -> str:
    dense, metrics = manifest["dense"], manifest["metrics"]
    rows = [
        (
            f"**{name}**" if name == manifest["headline"] else name,
            # a split or the dense model may lack a metric, such as a class that has no pixel there
            *(
                f"{found[split][name]:.2f}" if name in found[split] else ""
                for split in ("validation", "test")
                for found in (dense, metrics)
            ),
        )
        for name in metrics["test"]
    ]
    head = ("metric", "validation, dense", "validation", "test, dense", "test")
    note = "Choices were made by the validation split; the test split was computed once."
    return f"{table(head, rows)}\n\n{note}"


def _cost(manifest: Mapping[str, Any], standing: Standing) -> str:
    replica = manifest["replica"]
    devices = f"{manifest['workers']} x {replica['cpus_per_worker']:g} CPUs"
    if replica["gpus_per_worker"]:
        devices += f" and {replica['gpus_per_worker']:g} GPUs"
    rows = [(name, f"{seconds:.0f}") for name, seconds in manifest["seconds"].items()]
    text = f"Seconds on {devices}:\n\n{table(('phase', 'seconds'), rows)}"
    return f"{text}\n\n{standing.cost}" if standing.cost else text


def _recipe(manifest: Mapping[str, Any]) -> str:
    budget, versions = manifest["budget"], manifest["versions"]
    settings = {name: part for name, part in manifest["settings"].items() if name not in ("model", "data")}
    for name in ("model", "data"):
        part = manifest["settings"][name]
        settings[name] = {key: without_place(v) if isinstance(v, str) else v for key, v in part.items()}
    rows = [
        ("point", f"`{manifest['hash']}` of experiment `{manifest['experiment']}`"),
        # points from before it was noted have none
        *([("masks", f"`{manifest['masks_hash']}`")] if "masks_hash" in manifest else []),
        ("asked", f"{budget['asked']:g} of the removable {budget['of']}"),
        ("achieved", f"{budget['achieved']:.4f}"),
        ("kept", ", ".join(f"{group} {share:.1%}" for group, share in manifest["kept_share"].items())),
        ("masked against sliced", f"{manifest['checks']['masked_vs_sliced']:.1e}"),
        ("versions", ", ".join(f"{name} {version}" for name, version in versions.items())),
    ]
    listed = yaml.safe_dump(settings, sort_keys=True).rstrip()
    return f"{table(('', ''), rows)}\n\n```yaml\n{listed}\n```"

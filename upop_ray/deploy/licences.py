"""Under which licence an export goes on, and what has to go with it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from upop_ray.data import emoji
from upop_ray.data.openmoji import LICENCE as OPENMOJI_LICENCE

ATTRIBUTION = Path(emoji.__file__).parent / "ATTRIBUTION.md"
_BUILTIN = "builtin:"
_OPENMOJI = "builtin:openmoji"


@dataclass(frozen=True)
class Licence:
    """What a card says of licences.

    :param name: as model hubs know it; None where nobody stated one
    :param own_name: where ``name`` is ``other``
    :param files: that have to go with the model
    """

    name: str | None
    text: str
    own_name: str | None = None
    link: str | None = None
    files: tuple[Path, ...] = ()


def licence_of(manifest: Mapping[str, Any] | None, stated: str | None) -> Licence:
    """The licence that was stated, or that follows from the built-in model and data.

    :param manifest: of a point; None for a folder of unknown origin
    :param stated: ``--license``
    """
    code = "The code of the model's classes is Apache-2.0."
    settings = {"model": {"path": ""}, "data": {"path": ""}} if manifest is None else manifest["settings"]
    model, data = str(settings["model"]["path"]), str(settings["data"]["path"])
    sources = [path for path in (model, data) if path.startswith(_BUILTIN)]
    files = (ATTRIBUTION,) if sources else ()
    text = " ".join([_weights(stated, len(sources) == 2), *_builtin_sources(sources), code])
    if stated is None and len(sources) == 2:
        return Licence("other", text, "apache-2.0-with-attribution", "ATTRIBUTION.md", files)
    return Licence(stated, text, files=files)


def _weights(stated: str | None, is_builtin: bool) -> str:
    if stated is not None:
        return f"Licence of the weights: {stated}, as stated at the export."
    if is_builtin:
        return "The weights are Apache-2.0 like upop_ray, with the attribution that their training data ask for."
    return "Nobody stated a licence of the weights (`--license`): that of the dense model and of its data counts."


def _builtin_sources(sources: list[str]) -> list[str]:
    lines = []
    if sources:
        names = " and ".join(f"`{name}`" for name in dict.fromkeys(sources))
        lines.append(
            f"Training used {names}, renderings of emoji under MIT, Apache-2.0 and CC-BY-4.0, whose artists "
            "[ATTRIBUTION.md](ATTRIBUTION.md) names."
        )
    if _OPENMOJI in sources or "builtin:segmenter" in sources:
        lines.append(f"The segmentation data are designed by OpenMoji (https://openmoji.org), {OPENMOJI_LICENCE}.")
    return lines

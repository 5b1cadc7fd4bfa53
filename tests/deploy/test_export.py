"""The command: finds a point, writes its folder and card, and shows neither before they are checked."""

import contextlib
import copy
import dataclasses
import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard

from tests.deploy.exports import subject
from tests.deploy.points import finished
from tests.test_commands import refused
from upop_ray import export
from upop_ray.deploy import checks
from upop_ray.deploy.card import Contents, without_place
from upop_ray.deploy.card import card as make_card
from upop_ray.deploy.folder import Wanted
from upop_ray.deploy.folder import export as export_subject
from upop_ray.deploy.licences import licence_of
from upop_ray.deploy.standing import Standing, standing_of
from upop_ray.deploy.subject import Place, find_point, open_subject
from upop_ray.errors import CheckpointError, StoreError
from upop_ray.store import PointPaths, Store


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the process that loads the folder, which takes seconds and has a test of its own."""
    monkeypatch.setattr("upop_ray.deploy.folder.remote_code_difference", lambda *_: 0.0)


def front_matter(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = ModelCard((folder / "README.md").read_text()).data.to_dict()
    return found


def test_a_point_is_exported_with_a_card_that_says_what_its_manifest_does(tmp_path: Path, unchecked: None) -> None:
    store, (manifest, other) = finished()
    target = tmp_path / "new" / "export"
    assert export.main([manifest["hash"][:6], "--store", str(store), "--to", str(target)]) == 0
    text, about = (target / "README.md").read_text(), front_matter(target)
    (result,) = about["model-index"]
    measured = {metric["type"]: metric["value"] for metric in result["results"][0]["metrics"]}
    assert measured == pytest.approx(manifest["metrics"]["test"], abs=1e-4)
    assert about["library_name"] == "transformers" and "custom_code" in about["tags"] and "license" not in about
    for said in (manifest["hash"], f"{manifest['parameters']:,}", f"{other['parameters']:,}", "this model"):
        assert said in text
    recipe = yaml.safe_load(text.partition("```yaml\n")[2].partition("```")[0])
    assert recipe["search"] == manifest["settings"]["search"]
    assert open_subject(str(target), "results", tmp_path).family == "clip"
    # neither this machine's folders nor anything unfinished beside the export
    assert str(store.parent) not in text and list(target.parent.iterdir()) == [target]


def test_what_lies_there_is_replaced_on_demand_and_only_if_it_is_an_export(tmp_path: Path, unchecked: None) -> None:
    store, (manifest, other) = finished()
    point = [f"{store}/points/{manifest['hash']}", "--to", str(tmp_path / "export")]
    assert export.main(point) == 0
    assert "exists; name another folder, or replace" in refused(export.main, *point)
    (tmp_path / "export" / "old.txt").write_text("")
    assert export.main([f"{store}/points/{other['hash']}/model", *point[1:], "--overwrite"]) == 0
    assert other["hash"] in (tmp_path / "export" / "README.md").read_text()
    assert not (tmp_path / "export" / "old.txt").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("")
    assert "is no export" in refused(export.main, point[0], "--to", str(tmp_path / "mine"), "--overwrite")
    assert (tmp_path / "mine" / "thesis.txt").exists()


@pytest.mark.parametrize(
    ("card", "git"),
    [
        ("---\ntags: [clip]\n---\n", False),
        ("no front matter", False),
        ("---\n{\n---\n", False),
        (None, False),
        ("", True),
    ],
)
def test_a_model_of_others_or_under_version_control_is_not_replaced(
    tmp_path: Path, unchecked: None, card: str | None, git: bool
) -> None:
    store, (manifest, _) = finished()
    arguments = [f"{store}/points/{manifest['hash']}", "--to", str(tmp_path / "clone")]
    assert export.main(arguments) == 0
    if git:
        (tmp_path / "clone" / ".git").mkdir()
    elif card is None:
        (tmp_path / "clone" / "README.md").unlink()
    else:
        (tmp_path / "clone" / "README.md").write_text(card)
    assert "is no export" in refused(export.main, *arguments, "--overwrite")
    assert (tmp_path / "clone" / "config.json").is_file()


def test_the_folder_that_one_is_in_is_not_replaced(
    tmp_path: Path, unchecked: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, (manifest, other) = finished()
    assert export.main([f"{store}/points/{manifest['hash']}", "--to", str(tmp_path / "export")]) == 0
    monkeypatch.chdir(tmp_path / "export")
    again = [f"{store}/points/{other['hash']}", "--overwrite", "--to"]
    assert f"--to: {tmp_path / 'export'} cannot be replaced from within" in refused(export.main, *again, ".")
    (tmp_path / "beside").mkdir()
    monkeypatch.chdir(tmp_path / "beside")
    assert export.main([*again, "../export"]) == 0
    assert other["hash"] in (tmp_path / "export" / "README.md").read_text()


def test_a_metric_that_a_split_or_the_dense_model_lacks_is_an_empty_cell() -> None:
    _, (manifest, _) = finished()
    changed = copy.deepcopy(manifest)
    changed["metrics"]["test"]["iou/cat"] = 1.25
    changed["dense"]["validation"]["iou/cat"] = 2.5
    place = Place(Store("nowhere"), manifest["hash"])
    point = dataclasses.replace(subject("clip"), place=place, manifest=changed)
    contents = Contents(point.model, False, 0.0, None, licence_of(changed, None))
    assert "| iou/cat | 2.50 |  |  | 1.25 |" in make_card(point, contents, Standing((), "", ""))


def test_a_folder_that_cannot_be_written_is_one_line() -> None:
    store, (manifest, _) = finished()
    line = refused(export.main, f"{store}/points/{manifest['hash']}", "--to", "/proc/nothing/export")
    assert "--to: /proc/nothing/export cannot be written" in line


def test_an_export_that_fails_its_check_never_appears(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "observed_outside", lambda *_: {})
    with pytest.raises(CheckpointError, match="not exported"):
        export_subject(subject("vit"), tmp_path / "export", Wanted())
    assert not list(tmp_path.iterdir())


def test_the_stock_form_says_that_it_is_no_smaller(tmp_path: Path) -> None:
    contents = export_subject(subject("clip"), tmp_path / "export", Wanted(stock=True, licence="mit"))
    text, about = (tmp_path / "export" / "README.md").read_text(), front_matter(tmp_path / "export")
    assert contents.difference <= 1e-5
    assert "no smaller and no faster" in text and "trust_remote_code" not in text
    assert about["license"] == "mit" and "custom_code" not in about["tags"]
    assert json.loads((tmp_path / "export" / "config.json").read_text())["model_type"] == "clip"


def test_points_are_found_by_hash_its_beginning_and_path(monkeypatch: pytest.MonkeyPatch) -> None:
    store, (manifest, _) = finished()
    hash = manifest["hash"]
    names = [hash, hash[:4], f"{store}/points/{hash}", f"{store}/points/{hash}/", f"{store}/points/{hash}/model"]
    assert {found.hash for name in names if (found := find_point(name, str(store)))} == {hash}
    assert find_point(f"{store}/points", str(store)) is None
    monkeypatch.chdir(store)
    assert find_point(f"points/{hash}", "elsewhere") is not None


def test_what_is_no_point_is_refused_with_its_reason(tmp_path: Path) -> None:
    store, _ = finished()
    root = tmp_path / "store"
    for hash in ("aaaa1111", "aaaa2222"):
        (root / "points" / hash).mkdir(parents=True)
    for point, words in [
        ("aaaa", "begins 2 points, aaaa1111, aaaa2222; give more of the hash"),
        ("aaaa1", "is no finished point"),
        ("bbbb", "holds no point 'bbbb'; name the store"),
    ]:
        with pytest.raises(StoreError, match=words):
            find_point(point, str(root))
    with pytest.raises(CheckpointError, match="is no folder and no hash; give"):
        find_point("no/where", str(root))
    with pytest.raises(CheckpointError, match="type 'clip', which transformers loads as it is"):
        open_subject(str(store.parent / "model"), "results", tmp_path)
    with pytest.raises(CheckpointError, match="no model folder"):
        open_subject(str(root), "results", tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "upop_future"}')
    with pytest.raises(CheckpointError, match="type 'upop_future', which this version of upop_ray does not export"):
        open_subject(str(tmp_path), "results", tmp_path)


def test_a_measured_latency_is_on_the_card(tmp_path: Path) -> None:
    original, (manifest, _) = finished()
    shutil.copytree(original, tmp_path / "store")
    store = Store(str(tmp_path / "store"))
    place = Place(store, manifest["hash"])
    assert standing_of(place).latency == ""
    row = {"backend": "eager", "precision": "fp32", "batch": 8, "problem": "", "rounds": 5}
    row |= {"sliced": {"median": 1.5}, "dense": {"median": 3.0}, "speedup": {"median": 2.0}}
    bare = row | {"sliced": None, "dense": None, "speedup": None, "problem": "no compiler"}
    measured = {"device": "a CPU", "threads": 1, "versions": {"torch": "2"}, "rows": [row, bare], "verdicts": ["twice"]}
    store.write_json(PointPaths(place.hash).latency, measured)
    text = standing_of(place).latency
    assert "| eager | fp32 | 8 | 3.00 | 1.50 | 2.00 |" in text and text.endswith("* twice")


def test_licences_follow_from_built_in_sources() -> None:
    def settings(model: str, data: str) -> dict[str, Any]:
        return {"settings": {"model": {"path": model}, "data": {"path": data}}}

    built_in = licence_of(settings("builtin:clip", "builtin:emoji"), None)
    assert built_in.name == "other" and [file.name for file in built_in.files] == ["ATTRIBUTION.md"]
    own_data = licence_of(settings("builtin:clip", "/my/data"), None)
    assert own_data.name is None and "Nobody stated" in own_data.text and own_data.files
    own = licence_of(settings("/my/model", "/my/data"), "cc-by-4.0")
    assert own.name == "cc-by-4.0" and not own.files
    assert "CC-BY-SA-4.0" in licence_of(settings("builtin:segmenter", "builtin:openmoji"), None).text


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("builtin:emoji", "builtin:emoji"),
        ("owner/name", "owner/name"),
        ("/home/me/data/coco", "coco"),
        ("s3://secret-bucket/data/coco/", "coco"),
        ("~/coco", "coco"),
    ],
)
def test_a_card_tells_no_places(path: str, said: str) -> None:
    assert without_place(path) == said


def test_help_shows_examples() -> None:
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown), pytest.raises(SystemExit) as end:
        export.main(["--help"])
    assert end.value.code == 0 and "python -m upop_ray.export s3://" in shown.getvalue()

"""Notes of how long devices are held: there from the start, kept up to date, and no reason to end a point."""

import time
from pathlib import Path
from typing import Any

import pytest

from upop_ray.errors import StoreError
from upop_ray.store import Store
from upop_ray.training import occupation
from upop_ray.training.occupation import Held, Occupation

HELD = Held("mine", 4.0, 1.0)


def noted(store: Store) -> dict[str, Any]:
    return dict(store.read_json("cost.json"))


def test_a_note_is_kept_up_to_date_until_the_first_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(occupation, "_EVERY", 0.05)
    store = Store(str(tmp_path))
    begun = time.monotonic() - 5.0
    held = Occupation(store, "cost.json", HELD, begun)
    first = noted(store)
    assert (first["state"], first["sweep"], first["cpus"], first["gpus"]) == ("running", "mine", 4.0, 1.0)
    assert first["seconds"] == pytest.approx(5.0, abs=0.5) and first["start"] is None
    assert first["begun"] == pytest.approx(time.time() - 5.0, abs=0.5)
    held.started()
    held.worked({"search": 2.0})
    time.sleep(0.3)
    # what is left of a process that was killed
    later = noted(store)
    assert later["seconds"] > first["seconds"] + 0.1 and later["parts"] == {"search": 2.0}
    assert later["start"] == pytest.approx(5.0, abs=0.5)
    held.end("crashed")
    held.end("finished")
    last = noted(store)
    assert last["state"] == "crashed"
    time.sleep(0.2)
    assert noted(store) == last


def test_notes_that_cannot_be_written_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(self: Store, name: str, content: Any) -> None:
        raise StoreError(f"{name}: cannot be written")

    monkeypatch.setattr(Store, "write_json", broken)
    held = Occupation(Store(str(tmp_path)), "cost.json", HELD, time.monotonic())
    held.end("finished")
    assert "hours are not noted: cost.json: cannot be written" in caplog.text

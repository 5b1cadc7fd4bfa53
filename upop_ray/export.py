"""Take a model out of a store: ``python -m upop_ray.export POINT --to FOLDER [--onnx] [--push OWNER/NAME]``."""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

from upop_ray.terminal import console, guarded

_HELP = """\
Write a point's model as a folder that loads with transformers and torch alone, with a model card, and on wish ONNX.
Before the folder appears it is loaded by a process that cannot import upop_ray, and its outputs are compared."""
_EPILOG = """\
examples:
  python -m upop_ray.export 24e80553 --store results --to exported
  python -m upop_ray.export s3://bucket/results/points/24e8055316888b09 --to exported --onnx
  python -m upop_ray.export results/points/24e8055316888b09 --to exported --push my-name/small-clip"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    options = _parser().parse_args(arguments)
    # not before the options are read: help is to be quick
    from upop_ray.deploy.folder import Wanted, export, require_free
    from upop_ray.deploy.hub import push, require_token
    from upop_ray.deploy.subject import open_subject
    from upop_ray.tracking import quieten

    quieten()
    # "." has no name to put another folder in the place of
    target = Path(options.to).expanduser().resolve()
    require_free(target, options.overwrite)
    if options.push:
        require_token(options.push)
    with tempfile.TemporaryDirectory(prefix="upop-export-") as scratch:
        subject = open_subject(options.point, options.store, Path(scratch))
        contents = export(subject, target, Wanted(options.stock, options.onnx, options.license), options.overwrite)
    console.print(f"{target}: differs from the point's model by at most {contents.difference:.1e}")
    if contents.onnx is not None:
        graphs, difference = contents.onnx
        names = ", ".join(f"{graph.name}.onnx" for graph in graphs)
        console.print(f"{target / 'onnx'}: {names}; in ONNX Runtime they differ by at most {difference:.1e}")
    if options.push:
        console.print(f"pushed to {push(target, options.push, options.public)}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m upop_ray.export",
        description=_HELP,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "point", help="hash of a point (or its beginning), STORE/points/HASH, or a sliced model's folder"
    )
    parser.add_argument("--store", default="results", help="store of a hash: folder or s3://... (default: %(default)s)")
    parser.add_argument("--to", required=True, metavar="FOLDER", help="where the export appears")
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier export")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--onnx", action="store_true", help="also write ONNX files, compared in ONNX Runtime")
    form.add_argument(
        "--stock",
        action="store_true",
        help="instead: transformers' own class in the dense shape, zeros for what was removed; no smaller or faster",
    )
    parser.add_argument(
        "--license", metavar="NAME", help="licence of the weights as hubs call it, for example cc-by-4.0"
    )
    parser.add_argument("--push", metavar="OWNER/NAME", help="upload the folder to this repository of a model hub")
    parser.add_argument("--public", action="store_true", help="make a new repository public (default: private)")
    return parser


if __name__ == "__main__":
    guarded(main)

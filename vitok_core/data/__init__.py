"""Data sets of images and clips: prepared arrays or streams, and a resumable sampler.

A data set is prepared once, into one uint8 array on disk that training maps into memory. What it
holds follows from its name, the resolution, the number of samples and, for clips, their length and
frame rate alone; so does its content identity: sources by SHA-256 and a recipe version, never
paths.

`photos-train` and `photos-eval` are real colour photographs that come with pip packages. Every
picture is divided once into a training and an evaluation region with a gap between them.
`clips-train` and `clips-eval` are cut from real videos of a pip package, which are divided in time,
shot by shot: no clip holds a cut, and no evaluation frame is in a training clip.

A user-defined data set (`OwnData`, of one of the kinds in `vitok_core.sources`) is scanned once:
its content identity is the hash over the hashes of its files. Then it is prepared like the built-in
ones, or decoded as it is needed (`StreamSet`).

Which sample comes next is a function of (seed, position). No torch here: samples leave as numpy
arrays. Of the built-in sets `_sources` and `_datasets` name sources and data sets, `_crops` says
which pixels a sample has, `_decode` and `_prepare` make it. Of own sets `_own` says what one is,
`_walk`, `_units` and `_listing` find what is in it, `_scan` keeps that; `_pixels` and `_footage`
decode, `_random_crops` says where a stream cuts, `_own_prepare` puts on disk, `_stream` does
without. `_prepared`, `_rows` and `_sampler` serve all.
"""

from vitok_core.data._crops import fitting_shots
from vitok_core.data._datasets import DATASETS, content_identity, dataset
from vitok_core.data._listing import ScanProgress, in_order
from vitok_core.data._own import OwnData
from vitok_core.data._own_prepare import prepare_own
from vitok_core.data._pixels import square
from vitok_core.data._prepare import prepare
from vitok_core.data._prepared import SampleSet, channels_first, open_prepared
from vitok_core.data._rows import RowFile, map_rows, row_reader
from vitok_core.data._sampler import Draw, Sampler
from vitok_core.data._scan import Reader, Scan, find_scan, open_scan, scan, scans_folder
from vitok_core.data._sources import PICTURES, Side
from vitok_core.data._stream import StreamSet
from vitok_core.data._units import Entry, Indexed, Unit

Samples = SampleSet | StreamSet
"""What a training takes: prepared and mapped from disk, or decoded when asked for."""

__all__ = [
    "DATASETS",
    "PICTURES",
    "Draw",
    "Entry",
    "Indexed",
    "OwnData",
    "Reader",
    "RowFile",
    "SampleSet",
    "Sampler",
    "Samples",
    "Scan",
    "ScanProgress",
    "Side",
    "StreamSet",
    "Unit",
    "channels_first",
    "content_identity",
    "dataset",
    "find_scan",
    "fitting_shots",
    "in_order",
    "map_rows",
    "open_prepared",
    "open_scan",
    "prepare",
    "prepare_own",
    "row_reader",
    "scan",
    "scans_folder",
    "square",
]

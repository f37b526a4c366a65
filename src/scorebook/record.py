"""What a chapter records while it runs (numbers, data sets), and the committed paper results it may show.

A record is a hidden output that MyST-NB's ``glue`` roles can paste into the text, so a number in the prose always
comes from the run. Its metadata carry the same value in full precision, for the comparison with committed results.
"""

import math
import re

from scorebook.files import book_root, read_json

HIDDEN = "application/papermill.record/"  # the prefix by which glue hides an output from the page


def record(name, value, rtol=None):
    """Record a number under ``name``, for ``{glue:text}`` and for the comparison with committed results.

    ``value`` is an int, float, bool or str, a NumPy or torch scalar, or a 1-D or 2-D array (or list) of numbers.
    ``rtol`` is the relative difference allowed between two runs (arrays: in the maximum norm); by default 1e-3, and
    0 for text, truth values and whole numbers. Raises ValueError for anything else, and for nan or infinity.
    """
    if not re.fullmatch(r"[\w.-]+", name):
        raise ValueError(f"{name!r} cannot name a record; use letters, digits, '-', '_' and '.'.")
    value = _plain(name, value)
    exact = not any(isinstance(entry, float) for entry in _entries(value))
    rtol = float((0 if exact else 1e-3) if rtol is None else rtol)
    _emit(name, repr(value), {"number": {"value": value, "rtol": rtol}})


def record_data(images):
    """Record which data a chapter used: name, split, SHA-256, count and preprocessing of a loaded ``Images``."""
    text = f"{images.count} images of {images.name} ({images.split})"
    _emit(f"data-{images.name}-{images.split}", text, {"data": {**images.provenance, "count": images.count}})


def paper(stem, root=None):
    """The committed paper results of the chapter ``stem``: ``{data set: {name: value}}``, empty when there are none."""
    folder = (root or book_root()) / "results" / "paper" / stem
    return {path.stem: _values(read_json(path)) for path in sorted(folder.glob("[!.]*.json"))}


def _values(result):
    return {name: number["value"] for name, number in result["numbers"].items()}


def _emit(name, text, payload):
    from IPython.display import display

    metadata = {"scrapbook": {"name": name, "mime_prefix": HIDDEN}, "scorebook": {"name": name, **payload}}
    display({HIDDEN + "text/plain": text}, raw=True, metadata=metadata)


def _plain(name, value):
    """The value in Python's own types, which is what JSON can hold."""
    value = value.tolist() if hasattr(value, "tolist") else value
    if isinstance(value, list | tuple):
        value = [_plain(name, entry) for entry in value]
    if isinstance(value, str) or (_is_regular(value) and all(map(_is_number, _entries(value)))):
        return value
    raise ValueError(f"Record {name!r} is {value!r}; expected finite numbers in at most two dimensions, or a text.")


def _is_number(entry):
    return isinstance(entry, bool | int | float) and math.isfinite(entry)


def _entries(value):
    return [entry for part in value for entry in _entries(part)] if isinstance(value, list) else [value]


def _is_regular(value):
    """Whether the value is a number, or a list of numbers, or a list of equally long lists of numbers."""
    if not isinstance(value, list):
        return True
    lengths = {len(row) if isinstance(row, list) else None for row in value}
    return len(lengths) == 1 and not any(isinstance(e, list) for row in value if isinstance(row, list) for e in row)

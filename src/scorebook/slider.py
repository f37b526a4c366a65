"""A figure with a slider: frames are rendered once, and the page only chooses which of them to show."""

import base64
import html
import io
import json
from dataclasses import dataclass

FULL_COLOUR_ERROR = 16  # of 255; a palette that errs by more is not used


def _palette(image):
    """The image in at most 256 colours, or unchanged when a palette would show."""
    from PIL import Image, ImageChops

    small = image.quantize(256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    extrema = ImageChops.difference(image, small.convert("RGB")).getextrema()
    return small if max(high for _, high in extrema) <= FULL_COLOUR_ERROR else image


def _png(figure, dpi):
    from PIL import Image

    raw, packed = io.BytesIO(), io.BytesIO()
    figure.savefig(raw, format="png", dpi=dpi, metadata={"Software": None})
    _palette(Image.open(raw).convert("RGB")).save(packed, format="png", optimize=True)
    return base64.b64encode(packed.getvalue()).decode()


@dataclass(frozen=True)
class FrameSlider:
    """Frames (base64 PNG) with a label and an alternative text each; a notebook shows it as HTML, a PDF as frame 0."""

    frames: tuple[str, ...]
    labels: tuple[str, ...]
    alts: tuple[str, ...]
    label: str

    def __repr__(self):
        return f"frame_slider({len(self.frames)} frames)"

    def _repr_png_(self):
        return self.frames[0]

    def _repr_html_(self):
        rows = zip(self.frames, self.labels, self.alts, strict=True)
        data = [{"src": f"data:image/png;base64,{png}", "label": name, "alt": alt} for png, name, alt in rows]
        packed = json.dumps(data, ensure_ascii=False).replace("<", "\\u003c")
        alt, name, label = (html.escape(text) for text in (self.alts[0], self.labels[0], self.label))
        return (
            f'<frame-slider><img src="{data[0]["src"]}" alt="{alt}">'
            f'<div class="controls" hidden><label>{label} <input type="range" min="0" max="{len(data) - 1}" value="0">'
            f'</label> <output aria-live="off">{name}</output></div>'
            f'<script type="application/json">{packed}</script></frame-slider>'
        )


def frame_slider(figures, labels, alts, label="frame", dpi=80):
    """Show one of several Matplotlib figures, chosen by a slider; byte-identical between runs.

    ``labels`` name the frames (``"sigma = 1.9"``), ``alts`` describe them for readers who cannot see them, ``label``
    names the slider itself. The three lists have one entry per figure; raises ValueError otherwise.
    """
    figures, labels, alts = list(figures), tuple(labels), tuple(alts)
    if len(figures) < 2 or not len(figures) == len(labels) == len(alts):
        counts = f"{len(figures)} figures, {len(labels)} labels and {len(alts)} alternative texts"
        raise ValueError(f"frame_slider got {counts}; give at least two figures and one of each per figure.")
    if not all(text.strip() for text in (*labels, *alts)):
        raise ValueError("frame_slider got an empty label or alternative text; every frame needs both.")
    return FrameSlider(tuple(_png(figure, dpi) for figure in figures), labels, alts, label)

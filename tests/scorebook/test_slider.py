import base64
import io
import json
import re

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from scorebook.slider import frame_slider

matplotlib.use("agg")


def waves(count, cmap="gray"):
    figures = []
    for frequency in range(1, count + 1):
        figure = Figure(figsize=(3, 2))
        grid = np.outer(np.sin(frequency * np.linspace(0, 6, 40)), np.cos(np.linspace(0, 3, 40)))
        figure.add_subplot().imshow(grid, cmap=cmap)
        figures.append(figure)
    return figures


def slider(count=3, cmap="gray"):
    names = [f"frequency {k}" for k in range(1, count + 1)]
    return frame_slider(waves(count, cmap), [f"k = {k}" for k in range(count)], names, label="Frequency <k>")


def frames_of(shown):
    return json.loads(re.search(r"<script[^>]*>(.*?)</script>", shown._repr_html_(), re.DOTALL)[1])


def test_every_frame_has_its_image_label_and_alternative_text():
    frames = frames_of(slider())
    assert [frame["label"] for frame in frames] == ["k = 0", "k = 1", "k = 2"]
    assert [frame["alt"] for frame in frames] == ["frequency 1", "frequency 2", "frequency 3"]
    assert len({frame["src"] for frame in frames}) == 3


def test_first_frame_is_an_ordinary_image_and_what_a_pdf_shows():
    shown = slider()
    assert f'<img src="data:image/png;base64,{shown._repr_png_()}" alt="frequency 1">' in (shown._repr_html_())


def test_controls_are_hidden_until_the_script_runs_and_carry_a_visible_label():
    shown = slider()._repr_html_()
    assert '<div class="controls" hidden><label>Frequency &lt;k&gt; <input type="range"' in shown


def test_two_runs_give_the_same_bytes():
    assert slider()._repr_html_() == slider()._repr_html_()
    assert "0x" not in repr(slider())


def pixels(data):
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), dtype=int)


@pytest.mark.parametrize(("cmap", "error"), [("gray", 0), ("RdBu", 16)])
def test_palette_does_not_show(cmap, error):
    raw = io.BytesIO()
    waves(1, cmap)[0].savefig(raw, format="png", dpi=80)
    shown = base64.b64decode(slider(2, cmap)._repr_png_())
    assert np.abs(pixels(raw.getvalue()) - pixels(shown)).max() <= error


def test_twelve_frames_stay_small():
    assert len(slider(12, "RdBu")._repr_html_()) < 300_000


@pytest.mark.parametrize(
    ("labels", "alts"), [(["a"], ["a", "b"]), (["a", "b"], ["a", ""]), (["a", " "], ["a", "b"]), ([], [])]
)
def test_unequal_or_empty_texts_are_refused(labels, alts):
    with pytest.raises(ValueError, match="frame_slider got"):
        frame_slider(waves(2), labels, alts)


def test_one_frame_needs_no_slider():
    with pytest.raises(ValueError, match="at least two"):
        frame_slider(waves(1), ["a"], ["a"])

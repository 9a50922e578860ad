"""Names of classes and files in pictures: drawn as they are, on one line, whatever characters they have."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.font_manager import findSystemFonts
from matplotlib.text import Text
from PIL import Image

from thaw.visualization.plots import text as plot_text
from thaw.visualization.plots.encode import encode_png
from thaw.visualization.plots.image_grid import Caption, build_captions, save_image_grid
from thaw.visualization.plots.text import clean_name, find_font, find_missing_characters, format_label
from thaw.visualization.plots.training import save_confusion_matrix

MARKUP_NAMES = ("Ba$$in", "US$_to_CA$", "[v2]", "golden\nretriever", "a_b^c", r"\frac{1}{2}", "")
HOSTILE_NAMES = (*MARKUP_NAMES, "кошка", "猫", "สุนัข", "🐶")


def draw_labels(names: tuple[str, ...]) -> Figure:
    figure = Figure(figsize=(4, 4))
    axes = figure.subplots()
    axes.set_xticks(range(len(names)), [format_label(name) for name in names])
    return figure


def list_drawn_texts(figure: Figure) -> list[str]:
    """Return the texts as matplotlib draws them, after it looked for mathematics in them."""
    encode_png(figure)
    texts = [artist for artist in figure.findobj(Text) if isinstance(artist, Text)]
    return [text._preprocess_math(text.get_text()) for text in texts]  # type: ignore[attr-defined]


def test_names_are_drawn_on_one_line_and_never_as_mathematics() -> None:
    names = ("Ba$$in", "US$_to_CA$", r"\$5", "golden\nretriever", "[v2]")
    drawn_texts = list_drawn_texts(draw_labels(names))
    for name in names:
        assert (clean_name(name), False) in drawn_texts
    assert clean_name("golden\nretriever") == r"golden\nretriever"


def test_long_names_are_cut() -> None:
    assert format_label("a" * 30) == "a" * 21 + "…"
    assert format_label("$" * 30, 4) == r"\$\$\$…"


def test_every_character_is_drawn_by_a_font_or_named_by_its_code_point(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plot_text, "_list_installed_fonts", lambda: ())
    assert find_missing_characters(["猫 кошка", "dog"]) == {"猫"}
    assert clean_name("猫 кошка 🐶") == r"\u732b кошка \U0001f436"
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # matplotlib warns about characters without a glyph
        encode_png(draw_labels(HOSTILE_NAMES))


def test_fonts_of_the_machine_are_used_for_other_scripts() -> None:
    if find_missing_characters(["猫"]):
        pytest.skip("no font of this machine has Chinese characters")
    assert str(find_font("猫")) in findSystemFonts()
    assert clean_name("猫") == "猫"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        encode_png(draw_labels(("猫", "cat")))


def test_a_confusion_matrix_and_a_grid_take_any_name(tmp_path: Path) -> None:
    count = len(HOSTILE_NAMES)
    save_confusion_matrix(np.eye(count, dtype=np.int64), HOSTILE_NAMES, "title", tmp_path / "confusion.png")
    captions = [Caption(name, f"{name}.jpg", is_wrong=True) for name in HOSTILE_NAMES]
    save_image_grid(np.zeros((count, 8, 8, 3), np.uint8), captions, tmp_path / "grid.jpg")
    for file in tmp_path.iterdir():
        with Image.open(file) as picture:
            assert min(picture.size) > 300


def test_captions_have_the_classes_the_probability_and_the_file() -> None:
    logits = torch.tensor([[0.0, 9.0, 0.0], [0.0, 0.1, 0.0], [9.0, 0.0, 0.0]])
    captions = build_captions(logits, [0, 1, 0], ["val/ant/1.jpg", "2.jpg", "3.jpg"], ["ant", "bee", "fly"])
    assert [caption.text for caption in captions] == ["ant, not bee 1.00", "bee 0.36", "ant 1.00"]
    assert [caption.name for caption in captions] == ["1.jpg", "2.jpg", "3.jpg"]
    assert [(caption.is_wrong, caption.is_uncertain) for caption in captions] == [
        (True, False),
        (False, True),
        (False, False),
    ]


def test_the_mark_of_a_caption_does_not_need_its_color() -> None:
    texts = [Caption("cat 0.9", is_wrong=True), Caption("cat 0.4", is_uncertain=True), Caption("cat 0.9")]
    assert [caption.format_text() for caption in texts] == ["✗ cat 0.9", "? cat 0.4", "cat 0.9"]


def test_no_plot_bypasses_the_fonts() -> None:
    source = Path(plot_text.__file__).parents[2]
    users = {path.name for path in source.rglob("*.py") if re.search(r"\bsavefig\(", path.read_text(encoding="utf-8"))}
    assert users == {"encode.py"}

"""Data sets in the cache folder that are damaged are unpacked or drawn again; without their source they stay."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import TINY
from tests.damage import WarningReporter, truncate
from tests.data.pictures import make_image, write_class_folders
from thaw.config.compose import compose_recipe
from thaw.config.errors import UserError
from thaw.config.schema import Recipe
from thaw.data.factory import load_samples


def replace_by_another_image(file: Path) -> None:
    """Replace an image by a sound one, which nothing but a hash tells from the first."""
    make_image(12, 14, 999).save(file)


@pytest.fixture(params=["drawn", "unpacked"])
def recipe(request: pytest.FixtureRequest, tmp_path: Path) -> Recipe:
    cache_override = f"data.cache_dir={tmp_path / 'cache'}"
    if request.param == "drawn":
        return compose_recipe([*TINY, "dataset.characters=AB", cache_override])
    write_class_folders(tmp_path / "images", {"ant": 6, "bee": 6})
    archive = shutil.make_archive(str(tmp_path / "images"), "zip", tmp_path / "images")
    return compose_recipe(["dataset=folder", f"dataset.root={archive}", cache_override])


@pytest.mark.parametrize("damage", [replace_by_another_image, truncate, Path.unlink])
def test_a_damaged_data_set_is_made_again_with_a_warning(recipe: Recipe, damage: Callable[[Path], None]) -> None:
    reporter = WarningReporter()
    samples = load_samples(recipe, reporter)
    damage(samples.root / samples.samples[3].path)
    assert load_samples(recipe, reporter) == samples
    (warning,) = reporter.warnings
    assert "was damaged" in warning
    assert samples.samples[3].path in warning
    assert load_samples(recipe, reporter) == samples
    assert len(reporter.warnings) == 1


def test_a_damaged_data_set_stays_if_its_source_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from thaw.data import factory

    write_class_folders(tmp_path / "images", {"ant": 6, "bee": 6})
    archive = shutil.make_archive(str(tmp_path / "images"), "zip", tmp_path / "images")
    recipe = compose_recipe(["dataset=folder", f"dataset.root={archive}", f"data.cache_dir={tmp_path / 'cache'}"])
    samples = load_samples(recipe)
    replace_by_another_image(samples.root / samples.samples[3].path)
    extract_archive = factory.extract_archive

    def fail_to_extract(archive: Path, target: Path, inner: str | None) -> Path:
        if not target.is_dir():
            raise UserError("the archive is gone.")
        return extract_archive(archive, target, inner)

    monkeypatch.setattr(factory, "extract_archive", fail_to_extract)
    with pytest.raises(UserError, match="the archive is gone"):
        load_samples(recipe)
    assert all((samples.root / sample.path).is_file() for sample in samples.samples)

"""The names are read from the libraries' source, which is only right as long as the libraries agree."""

import timm
import torchvision

from thaw.config.catalog import backbone_names


def test_names_read_from_torchvisions_source_are_those_it_registers() -> None:
    assert backbone_names("torchvision") == set(torchvision.models.list_models(module=torchvision.models))


def test_names_read_from_timms_source_are_those_it_registers() -> None:
    assert backbone_names("timm") == set(timm.list_models())


def test_a_library_that_is_not_installed_has_no_names() -> None:
    assert backbone_names("no_such_library") == frozenset()

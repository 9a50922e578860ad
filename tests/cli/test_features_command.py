"""`thaw features`, as a user types it."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.conftest import TINY, run_thaw
from thaw.cli import features as command

SMALL = (*TINY, "backbone=resnet18", "strategy=scratch")  # random weights: nothing to fetch


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("dataset=captcha",), "nothing to write"),
        (("--out", "f.npzz"), "--out f.npz"),
        (("--out", "f.parq"), "--out f.parquet"),
        (("--out", "f"), "no suffix"),
        (("--out",), "no value"),
        (("--out", "--maps"), "no value"),
        (("--out", "f.npz", "--out=g.npz"), "a second --out"),
        (("--out", "nowhere/f.npz"), "mkdir nowhere"),
        (("--map", "nowhere/f.png"), "mkdir nowhere"),
        (("--map", "f.jpeg"), "--map f.png"),
        (("--projector", "nowhere/projector"), "mkdir nowhere"),
        (("--projector", "file"), "a folder"),
        (("--out", "folder.npz"), "a folder"),
        (("--ot", "f.npz"), "--out"),
        (("--projecter=d",), "--projector=d"),
        (("-m", "seed=0,1", "--out", "f.npz"), "no such option"),
        (("--out", "f.npz", "--maps"), "--stage STAGE"),
        (("--map", "f.png", "--stage", "layer1", "--maps"), "--maps with --out"),
        (("--out", "f.parquet", "--stage", "layer1", "--maps"), "--out f.npz"),
        (("--out", "f.npz", "backbone=resnet81"), "resnet18"),
    ],
)
def test_wrong_commands_end_with_2_and_show_the_fix(
    arguments: tuple[str, ...],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    (tmp_path / "folder.npz").mkdir()
    assert run_thaw(monkeypatch, "features", *arguments) == 2
    assert message in capsys.readouterr().err


def test_all_problems_of_the_options_are_reported_together(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_thaw(monkeypatch, "features", "--out", "f.npzz", "--map", "nowhere/f.jpg") == 2
    output = capsys.readouterr().err
    assert "the suffix .npzz" in output
    assert "the suffix .jpg" in output
    assert "mkdir nowhere" in output


def test_parquet_without_pyarrow_shows_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    extraction = importlib.util.find_spec
    monkeypatch.setattr(command, "find_spec", lambda name: None if name == "pyarrow" else extraction(name))
    assert run_thaw(monkeypatch, "features", "--out", str(tmp_path / "f.parquet")) == 2
    assert 'pip install "thaw[features]"' in capsys.readouterr().err


def test_a_wrong_suffix_is_reported_before_torch_is_imported() -> None:
    program = "import sys; from thaw.cli.main import main; main(['features', '--out', 'f.npzz'])\n"
    program += "print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout == "False\n"


def run_features(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    assert run_thaw(monkeypatch, "features", *SMALL, *arguments) == 0


def test_a_wrong_stage_is_answered_with_the_nearest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_thaw(monkeypatch, "features", *SMALL, "--stage", "layr3", "--out", str(tmp_path / "f.npz")) == 2
    output = capsys.readouterr().err
    assert "--stage layer3" in output
    assert "layer1, layer2, layer3, layer4" in output


def test_each_row_has_the_features_of_its_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Computed anew from the files, without cache, store and loader."""
    from thaw.config.compose import compose_recipe
    from thaw.training.extraction import extract_features

    run_features(monkeypatch, "--out", str(tmp_path / "f.npz"))
    extraction = extract_features(compose_recipe(SMALL))
    with np.load(tmp_path / "f.npz", allow_pickle=False) as archive:
        assert archive["features"].shape == (4 * (9 + 4 + 5), 512)
        assert archive["paths"].tolist() == [sample.path for sample in extraction.samples.samples]
        assert archive["labels"].tolist() == [sample.label for sample in extraction.samples.samples]
        assert archive["splits"].tolist() == [sample.split for sample in extraction.samples.samples]
        assert archive["classes"].tolist() == list("ABCD")
        assert str(archive["backbone"]) == "resnet18"
        assert str(archive["fingerprint"]) == extraction.samples.fingerprint
        features = archive["features"]
    mean, std = (
        torch.tensor(sample).view(3, 1, 1) for sample in (extraction.preprocessing.mean, extraction.preprocessing.std)
    )
    for position in (0, 30, len(features) - 1):
        with Image.open(extraction.samples.root / extraction.samples.samples[position].path) as image:
            assert image.size == (32, 32)
            pixels = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1) / 255
        with torch.no_grad():
            maps = (
                extraction.network.eval()
                .cpu()
                .forward_stages(((pixels - mean) / std)[None], 0, len(extraction.network.stages))
            )
        np.testing.assert_allclose(features[position], maps.flatten(1).numpy()[0], rtol=1e-3, atol=1e-4)


def test_a_stage_is_averaged_or_written_as_maps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = ("--stage", "layer2")
    run_features(monkeypatch, *stage, "--out", str(tmp_path / "vectors.npz"))
    run_features(monkeypatch, *stage, "--maps", "--out", str(tmp_path / "maps.npy"))
    maps = np.load(tmp_path / "maps.npy", allow_pickle=False)
    assert maps.shape == (72, 128, 4, 4)
    with np.load(tmp_path / "vectors.npz", allow_pickle=False) as archive:
        assert str(archive["stage"]) == "layer2"
        np.testing.assert_allclose(archive["features"], maps.mean((2, 3)), rtol=1e-5, atol=1e-6)
    assert len((tmp_path / "maps.csv").read_text().splitlines()) == 73


def test_a_stage_of_vectors_has_no_maps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "f.npz")
    assert run_thaw(monkeypatch, "features", *SMALL, "--stage", "layer4", "--maps", "--out", out) == 2
    assert "leave --maps out" in capsys.readouterr().err
    assert not Path(out).exists()


def test_a_second_call_reads_the_cache_and_writes_map_and_projector(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_features(monkeypatch, "--out", str(tmp_path / "f.parquet"))
    capsys.readouterr()
    run_features(monkeypatch, "--map", str(tmp_path / "f.png"), "--projector", str(tmp_path / "projector"))
    assert "from the cache" in capsys.readouterr().out
    with Image.open(tmp_path / "f.png") as picture:
        assert min(picture.size) > 400
    assert {sample.name for sample in (tmp_path / "projector").iterdir()} == {
        "vectors.tsv",
        "metadata.tsv",
        "sprite.png",
        "projector_config.pbtxt",
    }


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full, the disk that is always full, on this system")
def test_a_file_that_cannot_be_written_is_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "f.npz.partial").symlink_to("/dev/full")
    assert run_thaw(monkeypatch, "features", *SMALL, "--out", str(tmp_path / "f.npz")) == 2
    assert "No space left" in capsys.readouterr().err
    assert not (tmp_path / "f.npz").exists()

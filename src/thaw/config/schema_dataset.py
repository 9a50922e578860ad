"""The base class and shared types of the schema, and the schema of the group `dataset`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal
from unicodedata import category

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PositiveFloat
from pydantic import StringConstraints as Text

MAX_PATH_BYTES, MAX_FILE_NAME_BYTES = 4095, 255  # of Linux; other systems allow less


def check_path(text: str) -> str:
    """Return `text` if a file system can have such a path; `~` is the home folder.

    Raises:
        ValueError: with what a path must be.
    """
    if "\0" in text:
        raise ValueError("text without a zero byte")
    name_lengths = [len(name.encode("utf-8", "surrogatepass")) for name in text.split("/")]
    if max(name_lengths) > MAX_FILE_NAME_BYTES or sum(name_lengths) + len(name_lengths) > MAX_PATH_BYTES:
        raise ValueError(f"a path of at most {MAX_PATH_BYTES} bytes, and {MAX_FILE_NAME_BYTES} in each name")
    try:
        Path(text).expanduser()
    except RuntimeError as error:
        raise ValueError("a path; ~ is your home folder, and ~NAME that of a user of this machine") from error
    return text


def check_name(text: str) -> str:
    """Return `text` if a folder can have it as a part of its name.

    Raises:
        ValueError: with what a name must be.
    """
    if text in (".", "..") or any(character in "/\\" or category(character) == "Cc" for character in text):
        raise ValueError("text without slashes and control characters")
    return text


NonEmptyStr = Annotated[str, Text(min_length=1)]
PathStr = Annotated[str, Text(min_length=1), AfterValidator(check_path)]
# A part of the name of run directories. It separates no folders.
Name = Annotated[str, Text(min_length=1, max_length=80), AfterValidator(check_name)]
# Upper limits keep a mistyped number from filling the memory; no training needs more.
Count = Annotated[int, Field(gt=0, le=1_000_000)]
CountOrZero = Annotated[int, Field(ge=0, le=1_000_000)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Probability = Annotated[float, Field(ge=0, le=1)]
Checksum = Annotated[str, Text(pattern=r"^(md5|sha1|sha256):[0-9a-f]+$")]
Interval = Annotated[list[PositiveFloat], Field(min_length=2, max_length=2)]
ImageSize = Annotated[int, Field(ge=16, le=2048)]
CropFraction = Annotated[float, Field(gt=0, le=1)]
ReplacedLayers = Literal["last", "classifier"]
Initialization = Literal["torch", "xavier", "kaiming", "zero"]
Activation = Literal["relu", "leaky_relu", "gelu", "silu", "tanh"]


class StrictModel(BaseModel):
    """Reject unknown keys, convert nothing silently ("5" is no number), and forbid changes after validation.

    The string below a field is its description in the configuration reference and in the JSON schema. `reference.py`
    reads it from the source when it is needed; pydantic's `use_attribute_docstrings` would read it at every start.
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False, defer_build=True)


class CaptchaDatasetConfig(StrictModel):
    """Single characters that the `captcha` package draws; nothing is downloaded."""

    kind: Literal["captcha"]
    """How the data set is read: drawn characters."""
    name: Name
    """Name of the data set in run directories and reports."""
    characters: Annotated[str, Text(min_length=2, pattern=r"^[0-9A-Za-z]+$")]
    """The characters that are drawn, each a class; upper and lower case of a letter cannot both be in it."""
    train: Count
    """Train images of each class."""
    val: CountOrZero
    """Validation images of each class; 0 trains without validation."""
    test: Count
    """Test images of each class."""
    side: Annotated[int, Field(ge=32, le=512)]
    """Width and height of a drawn image in pixels."""
    draw_seed: Seed
    """Seed of the drawn images, separate from `seed`, so that a sweep over seeds shares one data set."""
    split_seed: Seed = 0
    """Seed of the parts into which `folds` cuts the images; without folds it draws nothing."""
    image_size: ImageSize | None
    """Side of the network's input in pixels; null: the size at which the source weights were trained."""
    crop: CropFraction | None
    """Fraction of the shorter side that the center crop keeps; null: as the source weights were trained."""


class Archive(StrictModel):
    """An archive that is downloaded and extracted."""

    url: NonEmptyStr
    """Address of the archive: http(s)://, file://, or kaggle://competitions/NAME."""
    checksum: Checksum | None
    """Checksum as md5:HEX, sha1:HEX or sha256:HEX; null only for kaggle://, whose client checks the download."""
    folder: str
    """Folder inside the archive that holds the data; empty: the top of the archive."""
    inner: NonEmptyStr | None = None
    """Name of an archive inside the archive that holds the data; null: there is none."""


class SplitFolders(StrictModel):
    """The folder of each split, below the root of the data set. The names train, val and test stand for others too:
    training; valid, validation, dev; testing; in any case."""

    train: PathStr
    """Folder of the train images."""
    val: PathStr | None
    """Folder of the validation images; null: they are split from the train images."""
    test: PathStr | None
    """Folder of the test images; null: they are split from the train images."""


class SplitFractions(StrictModel):
    """The fraction of the images that becomes a split for which the data set has no images of its own."""

    val: Fraction
    """Fraction of each class's images that becomes validation images; `val` + `test` must be below 1."""
    test: Fraction
    """Fraction of each class's images that becomes test images; `val` + `test` must be below 1."""


class FolderDatasetConfig(StrictModel):
    """An image folder with one folder for each class, with or without a folder for each split above them."""

    kind: Literal["folder"]
    """How the data set is read: an image folder."""
    name: Name
    """Name of the data set in run directories and reports."""
    root: PathStr | None
    """The image folder, or an archive of it; null: `archive` is downloaded."""
    archive: Archive | None
    """The official archive of the data set, downloaded if there is no `root`; null: there is none."""
    splits: SplitFolders | None
    """The folder of each split; null: there are no split folders, and every folder is a class."""
    fractions: SplitFractions
    """Fractions for splits that have no folder."""
    split_seed: Seed = 0
    """Seed of the splits that have no folder, and of folds; separate from `seed`, so that all seeds share their test
    images. ${seed} draws other splits for each seed."""
    per_class: Count | None = None
    """Train images of each class; of the others `fractions.val` become validation images and the rest test images.
    null: the fractions decide."""
    exclude: list[NonEmptyStr] = Field(default_factory=list)
    """Files and folders to leave out, by name or by path below the root."""
    subfolders: Literal["error", "merge"] = "error"
    """Class folders that contain several folders of images, and no image themselves: error stops, because these may be
    the classes; merge takes all images below a class folder as its own."""
    group_pattern: NonEmptyStr | None = None
    """Regular expression, searched in the path of each image below the root; its group 1 is the group of the image,
    such as the patient, camera or video. No group is in two splits. null: each image is a group of its own."""
    convert: Literal["cifar"] | None = None
    """Conversion of the downloaded files to an image folder: CIFAR's pickles; null: they are images already."""
    image_size: ImageSize | None
    """Side of the network's input in pixels; null: the size at which the source weights were trained."""
    crop: CropFraction | None
    """Fraction of the shorter side that the center crop keeps; null: as the source weights were trained."""


class CsvDatasetConfig(StrictModel):
    """Images listed with their labels in a CSV file with a header line."""

    kind: Literal["csv"]
    """How the data set is read: a CSV file."""
    name: Name
    """Name of the data set in run directories and reports."""
    root: PathStr | None
    """The folder that holds the CSV file, or an archive of it; null: an archive is downloaded."""
    variant: NonEmptyStr | None
    """Name of the entry of `archives` that is downloaded if there is no `root`; null: there are no archives."""
    archives: dict[NonEmptyStr, Archive]
    """The archives from which the data set can be downloaded, by name."""
    file: PathStr
    """Path of the CSV file below the root."""
    delimiter: Annotated[str, Text(min_length=1, max_length=1)] | None = None
    """Character between the cells; null: the one of comma, semicolon, tab and | with which the columns are there."""
    encoding: NonEmptyStr | None = None
    """Encoding of the CSV file, for example cp1252; null: UTF-8, or UTF-16 if the file is."""
    path_column: NonEmptyStr
    """Column that holds the path of the image."""
    label_column: NonEmptyStr
    """Column that holds the class name."""
    split_column: NonEmptyStr | None
    """Column that holds train, val or test; null: all rows are train images, from which the splits are taken."""
    folder: str
    """Folder below the root to which the paths are relative; empty: the root."""
    suffix: str
    """Text appended to each path, for example .jpg; empty: the paths are complete."""
    unlabelled: PathStr | None
    """Folder of images without labels, below the root, for predictions; null: there is none."""
    group_column: NonEmptyStr | None = None
    """Column that holds the group of the image, such as the patient, camera or video. No group is in two splits. null:
    each image is a group of its own, unless there is a `group_pattern`."""
    group_pattern: NonEmptyStr | None = None
    """Regular expression, searched in the path of each image below the root; its group 1 is the group of the image.
    null: `group_column` says it, or each image is a group of its own."""
    fractions: SplitFractions
    """Fractions for splits that the CSV file does not give."""
    split_seed: Seed = 0
    """Seed of the splits that the CSV file does not give, and of folds; separate from `seed`, so that all seeds share
    their test images. ${seed} draws other splits for each seed."""
    per_class: Count | None
    """Train images of each class; of the others `fractions.val` become validation images and the rest test images.
    null: the fractions decide."""
    image_size: ImageSize | None
    """Side of the network's input in pixels; null: the size at which the source weights were trained."""
    crop: CropFraction | None
    """Fraction of the shorter side that the center crop keeps; null: as the source weights were trained."""


DatasetConfig = Annotated[CaptchaDatasetConfig | FolderDatasetConfig | CsvDatasetConfig, Field(discriminator="kind")]

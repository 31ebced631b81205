"""Small folders of pictures on a disk of their own, read by the real code."""

import json
import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from optbench.data import image_folder
from optbench.data.image_folder import load_image, read_image_folder
from optbench.data.imageset import ImageSet

RED, WHITE = (255, 0, 0), (255, 255, 255)


def picture(seed: int, size: int = 8) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (size, size, 3), np.uint8)


def make(root: Path, counts: dict[str, int]) -> Path:
    """PNG files `<split>/<class>/<i>.png`, no two alike."""
    for place, (folder, count) in enumerate(counts.items()):
        (root / folder).mkdir(parents=True)
        for i in range(count):
            Image.fromarray(picture(100 * place + i)).save(root / folder / f"{i}.png")
    return root


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make(tmp_path / "pets", {"train/dog": 3, "train/cat": 4, "test/cat": 2, "test/dog": 1})


def read(root: Path, **changes: Any) -> ImageSet:
    settings = {"image_size": 8, "test_size": 0.25, "split_seed": 0, "on_corrupt": "raise", "workers": 2}
    return read_image_folder(str(root), **{"cache_dir": str(root.parent / "cache"), **settings, **changes})


@pytest.fixture
def no_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_folder, "load_image", lambda path, _: pytest.fail(f"{path} was decoded"))


# One picture


def test_pixels_of_a_matching_size_are_kept(tmp_path: Path) -> None:
    Image.fromarray(picture(1)).save(tmp_path / "a.png")
    image = load_image(tmp_path / "a.png", 8)
    assert image.shape == (3, 8, 8) and image.dtype == np.uint8 and image.flags.c_contiguous
    assert np.array_equal(image, picture(1).transpose(2, 0, 1))


@pytest.mark.parametrize("suffix", [".png", ".PNG", ".bmp", ".gif", ".tif", ".TIFF", ".webp", ".ppm", ".jpg", ".JPEG"])
def test_formats(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    Image.new("RGB", (20, 10), RED).save(path)
    image = load_image(path, 4)
    assert image.shape == (3, 4, 4) and np.abs(image - np.array(RED).reshape(3, 1, 1)).max() <= 2
    assert suffix.lower() in image_folder.IMAGE_SUFFIXES


@pytest.mark.parametrize(
    ("mode", "color", "suffix", "rgb"),
    [
        ("1", 1, "png", WHITE),
        ("L", 70, "png", (70, 70, 70)),
        ("LA", (0, 0), "png", WHITE),
        ("LA", (0, 51), "png", (204, 204, 204)),
        ("RGBA", (255, 0, 0, 255), "png", RED),
        ("RGBA", (255, 0, 0, 0), "png", WHITE),
        ("RGBA", (255, 0, 0, 51), "webp", (255, 204, 204)),
        ("CMYK", (0, 255, 255, 0), "tif", RED),
        ("CMYK", (0, 255, 255, 0), "jpg", RED),
        ("I;16", 65535, "png", WHITE),
        ("I;16", 0x8080, "tif", (128, 128, 128)),
        ("I", 0x8080, "tif", (128, 128, 128)),
        ("I;16", 257, "png", (1, 1, 1)),
    ],
)  # fmt: skip
def test_modes(tmp_path: Path, mode: str, color: Any, suffix: str, rgb: tuple[int, int, int]) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.new(mode, (6, 6), color).save(path, lossless=True)  # which only WebP heeds
    for size in (6, 3):
        image = load_image(path, size).astype(int)
        assert np.abs(image - np.array(rgb).reshape(3, 1, 1)).max() <= (2 if suffix == "jpg" else 0)


def test_palette_with_transparency(tmp_path: Path) -> None:
    image = Image.new("P", (4, 4), 0)
    image.putpalette([*RED, 0, 255, 0])
    image.putpixel((1, 0), 1)
    image.save(tmp_path / "one.png", transparency=0)
    image.save(tmp_path / "several.png", transparency=bytes([0, 255]))
    image.save(tmp_path / "a.gif", transparency=0)
    for name in ("one.png", "several.png", "a.gif"):
        array = load_image(tmp_path / name, 4)
        assert tuple(array[:, 0, 0]) == WHITE and tuple(array[:, 0, 1]) == (0, 255, 0), name


def test_first_frame(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (4, 4), color) for color in (RED, (0, 0, 255))]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert tuple(load_image(tmp_path / "a.gif", 4)[:, 0, 0]) == RED


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_exif_orientation(tmp_path: Path, suffix: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    Image.fromarray(picture(1)).save(tmp_path / f"a.{suffix}", exif=exif)
    expected = np.rot90(picture(1), -1).transpose(2, 0, 1)
    assert np.array_equal(load_image(tmp_path / f"a.{suffix}", 8), expected)


def test_scaling_is_antialiased(tmp_path: Path) -> None:
    checkers = np.indices((512, 512)).sum(0) % 2 * np.uint8(255)
    for name in ("a.png", "a.jpg"):
        Image.fromarray(checkers.astype(np.uint8)).save(tmp_path / name, quality=100)
        assert np.abs(load_image(tmp_path / name, 16).astype(int) - 128).max() <= 4, name


def test_files_that_are_no_picture(tmp_path: Path) -> None:
    Image.fromarray(picture(1, 64)).save(tmp_path / "a.jpg")
    (tmp_path / "torn.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:-500])
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "empty.gif").touch()
    for name in ("torn.jpg", "text.png", "empty.gif", "missing.png"):
        with pytest.raises(ValueError, match=f"{tmp_path / name} cannot be read as a picture"):
            load_image(tmp_path / name, 8)


@pytest.mark.parametrize("limit", [40, 10])  # of 64 pixels: Pillow warns, and raises above twice the limit
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_decompression_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    Image.fromarray(picture(1)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with pytest.raises(ValueError, match=rf"a.png holds more than {limit} pixels.*decompression bomb.*Scale it down"):
        load_image(tmp_path / "a.png", 8)


# A folder


def test_train_and_test(root: Path) -> None:
    images = read(root)
    assert images.classes == ("cat", "dog") and images.skipped == ()
    assert images.train_labels.tolist() == [0] * 4 + [1] * 3 and images.test_labels.tolist() == [0, 0, 1]
    assert images.train_labels.dtype == images.test_labels.dtype == torch.int64
    assert images.train_images.dtype == torch.uint8 and images.train_images.shape == (7, 3, 8, 8)
    seeds = {"train": [100, 101, 102, 103, 0, 1, 2], "test": [200, 201, 300]}
    for split, tensor in (("train", images.train_images), ("test", images.test_images)):
        assert np.array_equal(tensor.numpy(), [picture(seed).transpose(2, 0, 1) for seed in seeds[split]])
        assert tensor.is_contiguous()


def test_what_is_ignored_and_what_is_searched(root: Path) -> None:
    before = read(root, cache_dir=str(root.parent / "other"))
    for name in ("Thumbs.db", ".DS_Store", "notes.txt", "._0.png", "README"):
        (root / "train" / "cat" / name).write_text("no picture")
    (root / "train" / ".cache").mkdir()
    (root / "train" / "list.csv").touch()
    (root / "train" / "dog" / "more").mkdir()
    (root / "train" / "dog" / "2.png").rename(root / "train" / "dog" / "more" / "2.PNG")
    assert read(root).sha256 == before.sha256


def test_many_blocks_are_in_order(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = read(root).sha256
    monkeypatch.setattr(image_folder, "BLOCK_BYTES", 1)
    for workers in (0, 1, 3):
        assert read(root, workers=workers, cache_dir=str(root.parent / str(workers))).sha256 == expected


def test_image_size(root: Path) -> None:
    images = read(root, image_size=5)
    assert images.test_images.shape == (3, 3, 5, 5)
    assert np.array_equal(images.test_images[2].numpy(), load_image(root / "test/dog/0.png", 5))


# Without a test folder


def test_cut_is_stratified_and_depends_on_the_seed_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make(tmp_path / "pets", {"train/cat": 12, "train/dog": 20, "train/emu": 2})
    images = read(root)
    assert images.test_labels.tolist() == [0] * 3 + [1] * 5 + [2]
    assert images.train_labels.tolist() == [0] * 9 + [1] * 15 + [2]
    everything = {image.tobytes() for part in (images.train_images, images.test_images) for image in part.numpy()}
    assert len(everything) == 34  # no picture is lost, none is in both
    assert read(root, split_seed=1).sha256 != images.sha256
    assert read(root, test_size=0.5).test_labels.bincount().tolist() == [6, 10, 1]

    scandir = os.scandir

    class Reversed:
        def __init__(self, path: Any) -> None:
            with scandir(path) as entries:
                self.entries = list(entries)[::-1]

        def __enter__(self) -> Any:
            return iter(self.entries)

        def __exit__(self, *_: object) -> None:
            pass

    monkeypatch.setattr(image_folder.os, "scandir", Reversed)
    assert read(root, cache_dir=str(tmp_path / "other")).sha256 == images.sha256


def test_cut_of_a_class_ignores_the_other_classes(tmp_path: Path) -> None:
    root = make(tmp_path / "pets", {"train/cat": 6, "train/dog": 8})
    dogs = read(root).test_images[-2:]
    (root / "train/cat/0.png").unlink()
    assert torch.equal(read(root).test_images[-2:], dogs)


def test_cut_needs_two_pictures(tmp_path: Path) -> None:
    root = make(tmp_path / "pets", {"train/cat": 5, "train/dog": 1})
    with pytest.raises(ValueError, match=r"train/dog holds a single readable picture.*make a folder test"):
        read(root)


# The cache


def test_second_start_decodes_nothing(root: Path, no_decoding: None, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(image_folder, "load_image", load_image)
        images = read(root)
    again = read(root)
    assert again.sha256 == images.sha256 and again.classes == images.classes
    again.train_images[0] = 0  # the tensors are the caller's own
    names = sorted(path.name.split("-", 2)[2] for path in (root.parent / "cache").glob("pets-*.*"))
    assert [name for name in names if not name.endswith(".lock")] == ["8px-test.npy", "8px-train.npy", "8px.json"]
    assert read(root).sha256 == images.sha256


def test_another_cut_decodes_nothing(tmp_path: Path, no_decoding: None, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make(tmp_path / "pets", {"train/cat": 6, "train/dog": 8})
    with monkeypatch.context() as patch:
        patch.setattr(image_folder, "load_image", load_image)
        images = read(root)
    assert read(root, split_seed=1).sha256 != images.sha256
    assert read(root).sha256 == images.sha256


@pytest.mark.parametrize("change", ["content", "added", "removed", "renamed", "touched"])
def test_cache_follows_the_files(root: Path, change: str, caplog: pytest.LogCaptureFixture) -> None:
    before = read(root)
    first, size = root / "train/cat/0.png", len(list((root.parent / "cache").iterdir()))
    if change == "content":
        Image.fromarray(picture(999)).save(first)
    elif change == "added":
        Image.fromarray(picture(999)).save(root / "train/cat/9.png")
    elif change == "removed":
        first.unlink()
    elif change == "renamed":
        first.rename(root / "train/cat/9.png")
    else:
        os.utime(first, ns=(0, 0))
    after = read(root)
    assert "files were added, removed or changed" in caplog.text
    assert len(after.train_images) == {"added": 8, "removed": 6}.get(change, 7)
    assert (after.sha256 == before.sha256) == (change == "touched")
    assert len(list((root.parent / "cache").iterdir())) == size  # replaced, not piled up


def test_sizes_and_folders_have_their_own_cache(root: Path, tmp_path: Path) -> None:
    other = make(tmp_path / "elsewhere" / "pets", {"train/cat": 2, "train/dog": 2})
    assert read(root).train_images.shape == (7, 3, 8, 8)
    assert read(root, image_size=4).train_images.shape == (7, 3, 4, 4)
    assert len(read(other, cache_dir=str(root.parent / "cache")).train_images) == 2
    assert len(list((root.parent / "cache").glob("*.json"))) == 3


@pytest.mark.parametrize("suffix", [".json", "-train.npy", "-test.npy"])
@pytest.mark.parametrize("damage", ["empty", "half", "zeros", "garbage", "missing"])
def test_torn_cache_is_made_anew(root: Path, suffix: str, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    expected = read(root).sha256
    (file,) = (root.parent / "cache").glob(f"*{suffix}")
    content = file.read_bytes()
    if damage == "missing":
        file.unlink()
    else:
        half = len(content) // 2
        zeros = content[:half] + bytes(len(content) - half)
        file.write_bytes({"empty": b"", "half": content[:half], "zeros": zeros, "garbage": b"[1]"}[damage])
    assert read(root).sha256 == expected
    assert damage == "missing" or "is made anew" in caplog.text
    assert file.read_bytes() == content


def test_cache_that_cannot_be_written(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    expected = read(root).sha256
    (root.parent / "file").touch()
    cache_dir = root.parent / "file" / "below"
    assert read(root, cache_dir=str(cache_dir)).sha256 == expected
    assert f"data.cache_dir={cache_dir} cannot be written" in caplog.text
    assert [record.levelname for record in caplog.records if "cannot be written" in record.message] == ["WARNING"]


def test_disk_that_fills_up(root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def full(file: Any, array: np.ndarray) -> None:
        file.write(b"some")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(image_folder.np, "save", full)
    assert len(read(root).train_images) == 7
    assert "No space left on device" in caplog.text
    assert [path.suffix for path in (root.parent / "cache").iterdir() if path.suffix != ".lock"] == []


# Corrupt pictures


@pytest.fixture
def corrupt(root: Path) -> list[str]:
    (root / "train/cat/1.png").write_text("no picture")
    torn = root / "test/cat/0.png"
    torn.write_bytes(torn.read_bytes()[:100])
    return ["train/cat/1.png", "test/cat/0.png"]


def test_corrupt_picture_stops(root: Path, corrupt: list[str]) -> None:
    with pytest.raises(ValueError, match=r"train/cat/1.png is corrupt: .*data.on_corrupt=skip") as caught:
        read(root)
    assert "\n" not in str(caught.value)
    assert not list((root.parent / "cache").glob("*.json"))


def test_corrupt_pictures_are_skipped(root: Path, corrupt: list[str], caplog: pytest.LogCaptureFixture) -> None:
    for start in ("decoded", "cached"):
        caplog.clear()
        images = read(root, on_corrupt="skip")
        assert images.skipped == tuple(corrupt), start
        assert images.train_labels.tolist() == [0] * 3 + [1] * 3 and images.test_labels.tolist() == [0, 1]
        seeds = [100, 102, 103, 0, 1, 2]
        assert np.array_equal(images.train_images.numpy(), [picture(seed).transpose(2, 0, 1) for seed in seeds])
        assert "2 of 10 pictures" in caplog.text and all(path in caplog.text for path in corrupt)
    with pytest.raises(ValueError, match=r"train/cat/1.png is corrupt: .*cannot be read as a picture"):
        read(root, on_corrupt="raise")  # the cache remembers


def test_class_with_corrupt_pictures_only(root: Path) -> None:
    (root / "test/dog/0.png").write_text("no picture")
    with pytest.raises(ValueError, match=r"no picture in test/dog can be decoded"):
        read(root, on_corrupt="skip")


# What a person can get wrong


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("on_corrupt", "ignore", "raise .* or skip"),
        ("image_size", 0, "a whole number of pixels, at least 1"),
        ("image_size", 32.5, "a whole number of pixels, at least 1"),
        ("test_size", 0, "above 0 and below 1"),
        ("test_size", 1.0, "above 0 and below 1"),
        ("split_seed", -1, "a whole number, at least 0"),
        ("workers", -1, "0 is one for each core"),
    ],
)
def test_values_that_are_not_allowed(root: Path, key: str, value: Any, allowed: str) -> None:
    with pytest.raises(ValueError, match=f"data.{key}={value} is not allowed: it must be .*{allowed}"):
        read(root, **{key: value})


def test_root_that_is_no_folder(tmp_path: Path) -> None:
    missing, file, empty = tmp_path / "missing", tmp_path / "file", tmp_path / "empty"
    file.touch()
    empty.mkdir()
    with pytest.raises(FileNotFoundError, match=rf"data.root={missing} does not exist.*{missing}/train/<class>/"):
        read(missing)
    with pytest.raises(NotADirectoryError, match=rf"data.root={file} is a file.*train/<class>/"):
        read(file)
    with pytest.raises(FileNotFoundError, match=rf"data.root={empty} holds no folder train, no folder at all"):
        read(empty)
    with pytest.raises(ValueError, match=r"data.root is empty"):
        read_image_folder("", 8, 0.1, 0, "raise", 0, str(tmp_path))


def test_unreadable_folder(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Any) -> Any:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(image_folder.os, "scandir", refuse)
    with pytest.raises(PermissionError, match=rf"data.root={root}: {root} cannot be read \(Permission denied\)"):
        read(root)


def test_classes_right_below_root(tmp_path: Path) -> None:
    root = make(tmp_path / "pets", {"cat": 1, "dog": 1})
    with pytest.raises(
        FileNotFoundError, match=rf"only cat, dog. The layout is {root}/train/<class>/.* Move the class"
    ):
        read(root)


def test_classes_that_do_not_fit(root: Path) -> None:
    (root / "test/dog").rename(root / "test/dogs")
    with pytest.raises(ValueError, match=r"dog is only in train and dogs only in test"):
        read(root)


def test_one_class(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"train holds 1 class folders; at least 2"):
        read(make(tmp_path / "pets", {"train/cat": 3}))


def test_class_without_a_picture(root: Path) -> None:
    for file in (root / "train/dog").iterdir():
        file.rename(file.with_suffix(".txt"))
    with pytest.raises(ValueError, match=r"train/dog holds no picture. Pictures end in .*\.jpeg .*\.png"):
        read(root)


def test_log_of_a_cold_start(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        read(root)
    assert f"Decoding 7 + 3 pictures of {root}, once." in caplog.text
    (index,) = (root.parent / "cache").glob("*.json")
    assert set(json.loads(index.read_text())) == {"fingerprint", "train", "test"}

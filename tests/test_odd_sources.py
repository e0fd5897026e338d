"""Is nothing lost in silence of odd shards, folders, pictures and videos?"""

from __future__ import annotations

import io
import struct
import tarfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from own_files import png
from PIL import Image

from vitok_core.data import OwnData, Scan, open_prepared, prepare_own, scan
from vitok_core.data._pixels import read_square


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VITOK_SCANS", str(tmp_path / "scans"))


# --- shards -------------------------------------------------------------------------------------


def scanned(folder: Path, members: list[tuple[str, bytes]], **more: bool) -> Scan:
    """The scan of one shard with some members."""
    folder.mkdir(exist_ok=True)
    with tarfile.open(folder / "a.tar", "w") as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return scan(OwnData(name="own", kind="webdataset", place=str(folder / "a.tar"), **more))


def held(found: Scan) -> list[tuple[str, int]]:
    """Name and label of each sample."""
    return [
        (found.name(index), int(found.entries["label"][index])) for index in range(found.samples)
    ]


def left(found: Scan) -> dict[str, int]:
    return {why: count for why, (count, _) in found.left_out.items()}


def picture(number: int) -> bytes:
    return png(number)


N = range(6)


@pytest.mark.parametrize("stem", ["{:04d}", "{:04d}.v2", "split/{:04d}", "a.b/{:04d}"])
@pytest.mark.parametrize("order", ["together", "pictures first", "labels first"])
def test_labels_are_found_by_key_in_any_order(tmp_path: Path, stem: str, order: str) -> None:
    pictures = [(f"{stem.format(k)}.png", picture(k)) for k in N]
    labels = [(f"{stem.format(k)}.cls", str(k % 3).encode()) for k in N]
    members = {
        "together": [one for pair in zip(pictures, labels, strict=True) for one in pair],
        "pictures first": pictures + labels,
        "labels first": labels + pictures[::-1],
    }[order]
    found = scanned(tmp_path / "s", members)
    assert sorted(held(found)) == [(f"a.tar/{stem.format(k)}.png", k % 3) for k in N]
    assert left(found) == {} and found.classes == 3


def test_two_views_of_a_key_are_two_samples_with_its_label(tmp_path: Path) -> None:
    views = [(f"{k}.{side}.png", picture(k)) for k in N for side in ("left", "right")]
    found = scanned(tmp_path / "s", views + [(f"{k}.cls", str(k % 2).encode()) for k in N])
    assert held(found) == [(f"a.tar/{name}", int(name[0]) % 2) for name, _ in views]


def test_another_picture_of_a_sample_is_counted_and_the_plain_one_is_taken(tmp_path: Path) -> None:
    members = [
        (f"{k}.{ending}", picture(k) if ending != "cls" else b"1")
        for k in N
        for ending in ("mask.png", "png", "jpg", "cls")
    ]
    found = scanned(tmp_path / "s", members)
    assert held(found) == [(f"a.tar/{k}.png", 1) for k in N]
    assert left(found) == {"another picture of its sample": 2 * len(N)}
    assert found.left_out["another picture of its sample"][1][:2] == (
        "a.tar/0.mask.png",
        "a.tar/0.jpg",
    )


def test_a_dotted_picture_with_a_label_of_its_own_is_a_sample(tmp_path: Path) -> None:
    members = [("0.png", picture(0)), ("0.cls", b"1"), ("0.b.png", picture(1)), ("0.b.cls", b"2")]
    assert held(scanned(tmp_path / "s", members)) == [("a.tar/0.png", 1), ("a.tar/0.b.png", 2)]


def test_what_is_no_picture_is_counted_by_its_reason(tmp_path: Path) -> None:
    members = [
        *(("0.png", picture(0)), ("0.cls", b"0"), ("0.json", b"{}"), ("0.txt", b"a cat")),
        *(("README", b"x"), ("9.cls", b"4"), ("._0.png", b"x"), ("__MACOSX/0.png", b"x")),
        *(("d/.DS_Store", b"x"), ("Thumbs.db", b"x")),
    ]
    found = scanned(tmp_path / "s", members)
    assert held(found) == [("a.tar/0.png", 0)]
    assert left(found) == {
        "not read: .json": 1,
        "not read: .txt": 1,
        "not read: no ending": 1,
        "label without a picture": 1,
        "hidden": 2,
        "left by an operating system or a tool": 2,
    }
    # A second scan reads nothing again and still says so.
    assert left(scan(found.own)) == left(found)
    without = scanned(tmp_path / "s", members, labels=False)
    assert left(without)["label, not read because of labels: false"] == 2


def test_a_name_that_occurs_twice_is_two_samples(tmp_path: Path) -> None:
    members = [
        *(("0.png", picture(0)), ("0.cls", b"0"), ("1.png", picture(1)), ("1.cls", b"1")),
        *(("0.png", picture(2)), ("0.cls", b"2")),
    ]
    found = scanned(tmp_path / "s", members)
    assert held(found) == [("a.tar/0.png", 0), ("a.tar/1.png", 1), ("a.tar/0.png", 2)]


def test_links_in_a_shard_are_counted(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    folder.mkdir()
    with tarfile.open(folder / "a.tar", "w") as archive:
        info = tarfile.TarInfo("0.png")
        info.size = len(picture(0))
        archive.addfile(info, io.BytesIO(picture(0)))
        link = tarfile.TarInfo("1.png")
        link.type, link.linkname = tarfile.SYMTYPE, "0.png"
        archive.addfile(link)
    found = scan(OwnData(name="own", kind="webdataset", place=str(folder / "a.tar")))
    assert found.samples == 1 and left(found) == {"no regular file": 1}


# --- folders ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["__MACOSX", "@eaDir", "$RECYCLE.BIN", "lost+found", ".cache"])
def test_litter_folders_are_no_classes(tmp_path: Path, name: str) -> None:
    for place in ("cat", "dog", name):
        (tmp_path / "set" / place).mkdir(parents=True)
        (tmp_path / "set" / place / "0.png").write_bytes(png(1))
        (tmp_path / "set" / place / "1.png").write_bytes(png(2))
    found = scan(OwnData(name="own", kind="folder", place=str(tmp_path / "set")))
    assert found.class_names == ("cat", "dog") and found.samples == 4
    assert [names for _, names in found.left_out.values()] == [(name,)]


# --- pictures -----------------------------------------------------------------------------------


def chunk(kind: bytes, content: bytes) -> bytes:
    checked = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checked)


LONG = zlib.compress(b"<x/>" * 600_000)
TEXTS = {
    "XMP": chunk(b"iTXt", b"XML:com.adobe.xmp\0\x01\0\0\0" + LONG),
    "comment": chunk(b"zTXt", b"Comment\0\0" + LONG),
    "plain": chunk(b"tEXt", b"Comment\0" + b"x" * 3_000_000),
    "profile": chunk(b"iCCP", b"wide\0\0" + LONG),
    "many": b"".join(
        chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(10**6))) for _ in range(80)
    ),
}


@pytest.mark.parametrize("kind", TEXTS)
@pytest.mark.parametrize("before", [b"IDAT", b"IEND"])
def test_text_of_any_size_makes_no_picture_damaged(kind: str, before: bytes) -> None:
    plain = png(1, 40, 40)
    at = plain.index(before) - 4
    found = read_square(plain[:at] + TEXTS[kind] + plain[at:], resolution=32, crop="adm")
    assert np.array_equal(found.pixels, read_square(plain, resolution=32, crop="adm").pixels)


# --- videos -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "codec", "pixels"),
    [
        *(("a.mov", "qtrle", "argb"), ("b.mov", "png", "rgba"), ("c.mkv", "ffv1", "bgra")),
        ("d.webm", "libvpx-vp9", "yuva420p"),
    ],
)
def test_alpha_of_a_video_is_put_on_white_as_that_of_a_picture(
    tmp_path: Path, name: str, codec: str, pixels: str
) -> None:
    av = pytest.importorskip("av")
    if codec not in av.codecs_available:
        pytest.skip(f"this PyAV has no {codec}")
    frame = np.zeros((48, 48, 4), np.uint8)
    frame[:, 24:, :3], frame[:, 24:, 3] = 60, 255  # left: transparent, black below; right: grey
    (tmp_path / "set").mkdir()
    with av.open(str(tmp_path / "set" / name), "w") as container:
        stream = container.add_stream(codec, rate=8)
        stream.width = stream.height = 48
        stream.pix_fmt = pixels
        for number in range(4):
            shown = av.VideoFrame.from_ndarray(frame, format="rgba")
            shown.pts = number
            container.mux(stream.encode(shown))
        container.mux(stream.encode())
    own = OwnData(name="own", kind="videos", place=str(tmp_path / "set"), labels=False)
    info = prepare_own(scan(own), resolution=48, images=1, frames=2, folder=tmp_path / "out")
    clip = open_prepared(tmp_path / "out").batch(np.arange(1))[0]
    assert abs(clip[..., 4:20].astype(int) - 255).max() <= 2
    assert abs(clip[..., 28:44].astype(int) - 60).max() <= 2
    assert info.handled == {"alpha, put on white": 1}
    one = Image.fromarray(frame, "RGBA")
    still = io.BytesIO()
    one.save(still, "PNG")
    square = read_square(still.getvalue(), resolution=48, crop="adm")
    assert square.notes == ("alpha, put on white",) and square.pixels[24, 8].tolist() == [255] * 3


# Kr and Kb of the matrix from RGB to luma, and FFmpeg's number of it in streams and in frames.
MATRICES = {"bt601": (0.299, 0.114, 6, 5), "bt709": (0.2126, 0.0722, 1, 1)}
COLOURS = ((255, 0, 0), (0, 255, 0), (0, 0, 255), (220, 140, 40))


@pytest.mark.parametrize("whole", [False, True], ids=["limited", "full"])
@pytest.mark.parametrize("matrix", MATRICES)
def test_colors_of_a_video_follow_its_matrix_and_range(
    tmp_path: Path, matrix: str, whole: bool
) -> None:
    """PyAV below 17 took every matrix for BT.601: up to 23 levels wrong in BT.709."""
    av = pytest.importorskip("av")
    red, blue, of_stream, of_frame = MATRICES[matrix]
    (tmp_path / "set").mkdir()
    with av.open(str(tmp_path / "set" / "colors.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=8, options={"qp": "0"})
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        context = stream.codec_context
        context.colorspace, context.color_range = of_stream, 2 if whole else 1
        for number in range(2 * len(COLOURS)):
            r, g, b = (value / 255 for value in COLOURS[number // 2])
            y = red * r + (1 - red - blue) * g + blue * b
            u, v = (b - y) / (2 * (1 - blue)), (r - y) / (2 * (1 - red))
            levels = (255 * y, 128 + 255 * u, 128 + 255 * v)
            if not whole:
                levels = (16 + 219 * y, 128 + 224 * u, 128 + 224 * v)
            planes = np.empty((96, 64), np.uint8)
            planes[:64], planes[64:80], planes[80:] = (min(255, round(one)) for one in levels)
            frame = av.VideoFrame.from_ndarray(planes, format="yuv420p")
            frame.colorspace, frame.color_range = of_frame, 2 if whole else 1
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    own = OwnData(name="own", kind="videos", place=str(tmp_path / "set"), labels=False)
    prepare_own(scan(own), resolution=32, images=1, frames=8, folder=tmp_path / "out")
    clip = open_prepared(tmp_path / "out").batch(np.arange(1))[0]
    for number, color in enumerate(COLOURS):
        shown = clip[:, 2 * number, 8:24, 8:24].astype(int)
        assert abs(shown - np.reshape(color, (3, 1, 1))).max() <= 3

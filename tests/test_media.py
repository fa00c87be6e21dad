"Untrusted files: each bad one gives one sentence, each odd one gives the right frames and says what was odd."
import struct, subprocess, sys, zlib
from pathlib import Path
import numpy as np
import pytest
from PIL import Image, ImageFile
from deepfake_nb.core import MediaError
from deepfake_nb.see.media import Limits, evenly_spaced, iter_frames, open_video, read_image, read_media, read_video, sniff_kind, write_video

ORANGE = (250, 120, 20)


def numbered(n, height=48, width=64):
    "Frames that carry their number: the brightness of the left half is its low digit (base 16), of the right half its high one."
    halves = [np.uint8([[15*(i%16) + 8, 15*(i//16) + 8]]) for i in range(n)]
    return [o.repeat(width//2, 1).repeat(height, 0)[..., None].repeat(3, 2) for o in halves]


def number(frame):
    low, high = (round((float(o.mean()) - 8)/15) for o in (frame[8:-8, 8:24], frame[8:-8, 40:56]))
    return low + 16*high


def picture():
    "Black at the left, orange at the right."
    pixels = np.zeros((48, 64, 3), np.uint8)
    pixels[:, 32:] = ORANGE
    return Image.fromarray(pixels)


def refused(path, *words, limits=Limits()):
    "The sentence of the error: one line that names the file, what was found and what is accepted."
    with pytest.raises(MediaError) as caught: read_media(path, limits=limits)
    sentence = str(caught.value)
    assert sentence.startswith(f"{path}: ") and "Accepted: " in sentence and "\n" not in sentence
    for word in words: assert word in sentence
    return sentence


# ---- what is refused

def test_missing_path(tmp_path): refused(tmp_path / "nobody.mp4", "no such file")
def test_directory(tmp_path): refused(tmp_path, "a directory")


@pytest.mark.parametrize("name", ["a.mp4", "a.jpg", "a"])
def test_empty_file(tmp_path, name):
    (tmp_path / name).touch()
    refused(tmp_path / name, "an empty file")


@pytest.mark.parametrize("content,words", [
    (b"just some text\n" * 50, "text, not"), (b"<!DOCTYPE html><html>404", "web page"), (b"%PDF-1.7\n", "PDF"),
    (b"PK\3\4" + bytes(50), "ZIP"), (bytes(1000), "unknown kind"), (b"\x80\x04\x95" + bytes(50), "unknown kind"),
    (b"#EXTM3U\n#EXTINF:10,\n/etc/passwd\n", "text"), (b"ffconcat version 1.0\nfile other.mp4\n", "text")])
def test_not_media_called_mp4(tmp_path, content, words):
    (tmp_path / "clip.mp4").write_bytes(content)
    refused(tmp_path / "clip.mp4", words)


def test_truncated_mp4_without_index(tmp_path):
    whole = write_video(tmp_path / "whole.mp4", numbered(32)).read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[:len(whole) // 2])
    refused(tmp_path / "cut.mp4", "truncated MP4", "moov")


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
@pytest.mark.parametrize("kept", [.04, .5, .9])
def test_truncated_image(tmp_path, format, kept):
    noise = np.random.default_rng(0).integers(0, 256, (120, 160, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "whole", format)
    whole = (tmp_path / "whole").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[:int(len(whole)*kept)])
    refused(tmp_path / "cut.jpg", "truncated", format)


def png(width, height):
    "A small PNG file whose header claims this size."
    chunk = lambda name, data: struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
            + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b""))


def test_decompression_bomb(tmp_path, recwarn):
    (tmp_path / "bomb.png").write_bytes(png(30_000, 30_000))
    refused(tmp_path / "bomb.png", "30000 x 30000", "100,000,000")
    assert not recwarn.list


def test_limits(tmp_path):
    video = write_video(tmp_path / "a.mp4", numbered(32), fps=10)
    refused(video, "bytes", limits=Limits(max_bytes=100))
    refused(video, "64 x 48", limits=Limits(max_video_pixels=3000))
    refused(video, "minutes", limits=Limits(max_duration=3.))
    assert len(read_video(video, limits=Limits(max_duration=3.3)).frames) == 32


def test_wrong_reader(tmp_path):
    picture().save(tmp_path / "a.png")
    with pytest.raises(MediaError, match="an image"): read_video(tmp_path / "a.png")
    with pytest.raises(MediaError, match="a video"): read_image(write_video(tmp_path / "a.mp4", numbered(2)))


def test_sound_only(tmp_path):
    av = pytest.importorskip("av")
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), format="fltp", layout="stereo")
        frame.sample_rate = 44100
        for packet in (*stream.encode(frame), *stream.encode()): container.mux(packet)
    refused(tmp_path / "sound.mp4", "without a video stream")


def test_nothing_on_standard_error(tmp_path):
    "Neither FFmpeg nor OpenCV speaks, and neither import nor use changes the environment."
    (tmp_path / "cut.mp4").write_bytes(write_video(tmp_path / "a.mp4", numbered(32)).read_bytes()[:800])
    # OpenCV itself sets a path when it is imported, so it comes first
    code = (f"import os, cv2; before = dict(os.environ)\nfrom deepfake_nb.see.media import read_media, MediaError\nfor name in ('a', 'cut', 'none'):\n"
            f"    try: read_media(rf'{tmp_path}/' + name + '.mp4')\n    except MediaError: print('refused')\nassert before == dict(os.environ)")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, ["refused"]*2, "")


# ---- images that are odd, and fine

def test_jpeg_called_mp4(tmp_path):
    picture().save(tmp_path / "a.mp4", "JPEG", quality=95)
    media = read_media(tmp_path / "a.mp4")
    assert (media.kind, media.format, sniff_kind(tmp_path / "a.mp4")) == ("image", "JPEG", "image")
    assert "name says video" in media.notes[0]
    assert np.allclose(media.frames[0][24, 50], ORANGE, atol=6)


def test_mp4_called_jpg(tmp_path):
    write_video(tmp_path / "a.mp4", numbered(8)).rename(tmp_path / "a.jpg")
    media = read_media(tmp_path / "a.jpg", frames=2)
    assert (media.kind, [number(o) for o in media.frames]) == ("video", [2, 6])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path, orientation):
    "The eight orientations of the EXIF standard, undone with numpy."
    upright = np.zeros((32, 48, 3), np.uint8)
    upright[:16, :24], upright[16:, 24:] = 250, 120  # bright top left, grey bottom right
    turn_left, turn_right = (lambda o: np.rot90(o, 1)), (lambda o: np.rot90(o, -1))
    stored = {1: lambda o: o, 2: lambda o: o[:, ::-1], 3: lambda o: o[::-1, ::-1], 4: lambda o: o[::-1], 5: lambda o: o.transpose(1, 0, 2),
              6: turn_left, 7: lambda o: o.transpose(1, 0, 2)[::-1, ::-1], 8: turn_right}[orientation](upright)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / "a.jpg", exif=exif, quality=95)
    media = read_image(tmp_path / "a.jpg")
    assert np.abs(media.frames[0].astype(int) - upright).max() < 30
    assert (media.width, media.height, len(media.notes)) == (48, 32, int(orientation > 1))


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG"])
def test_read_image_gives_the_first_frame_of_an_animation(tmp_path, format):
    first, *others = [Image.new("RGB", (16, 16), o) for o in ("red", "blue", "lime")]
    first.save(tmp_path / "a", format, save_all=True, append_images=others, duration=50)
    media = read_image(tmp_path / "a")
    assert np.allclose(media.frames[0], (255, 0, 0), atol=4) and len(media.frames) == 1
    assert "first frame" in media.notes[0]


def test_16_bit_png(tmp_path):
    Image.fromarray(np.array([[0, 257, 25700, 65535]], np.uint16)).save(tmp_path / "a.png")
    media = read_image(tmp_path / "a.png")
    assert media.frames[0][0, :, 0].tolist() == [0, 1, 100, 255] and "16 bits" in media.notes[0]


def test_cmyk_jpeg(tmp_path):
    picture().convert("CMYK").save(tmp_path / "a.jpg", quality=95)
    media = read_image(tmp_path / "a.jpg")
    assert np.allclose(media.frames[0][24, 50], ORANGE, atol=6) and np.allclose(media.frames[0][24, 10], 0, atol=6)
    assert "CMYK" in media.notes[0]


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_lies_over_white(tmp_path, mode):
    image = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    image.paste((40, 40, 40, 255), (0, 0, 4, 8))
    if mode == "P":
        image = Image.new("P", (8, 8), 0)
        image.putpalette([0, 0, 0, 40, 40, 40])
        image.paste(1, (0, 0, 4, 8))
        image.save(tmp_path / "a.png", transparency=0)
    else: image.convert(mode).save(tmp_path / "a.png")
    media = read_image(tmp_path / "a.png")
    assert media.frames[0][4, 2].tolist() == [40]*3 and media.frames[0][4, 6].tolist() == [255]*3
    assert any("over white" in o for o in media.notes)


def test_heic(tmp_path):
    heif = pytest.importorskip("pillow_heif")
    heif.register_heif_opener()
    picture().save(tmp_path / "a.jpg", "HEIF", quality=95)
    media = read_media(tmp_path / "a.jpg")
    assert media.format == "HEIF" and np.allclose(media.frames[0][24, 50], ORANGE, atol=10)


# ---- videos

def test_8_of_32_are_evenly_spaced(tmp_path):
    media = read_video(write_video(tmp_path / "a.mp4", numbered(32), fps=8), frames=8)
    assert [number(o) for o in media.frames] == [2, 6, 10, 14, 18, 22, 26, 30] == media.indices
    assert np.allclose(media.times, [.25, .75, 1.25, 1.75, 2.25, 2.75, 3.25, 3.75])


@pytest.mark.parametrize("total", [1, 2, 7, 31, 32, 33, 1000])
def test_evenly_spaced_leaves_no_part_out(total):
    for n in (1, 2, 8, 32):
        chosen = evenly_spaced(total, n)
        assert chosen == sorted(set(chosen)) and len(chosen) == min(n, total) and 0 <= chosen[0] <= chosen[-1] < total
        gaps = np.diff([-1, *chosen, total])
        assert gaps.max() <= total/min(n, total) + 1


def test_one_frame_video(tmp_path):
    media = read_video(write_video(tmp_path / "a.mp4", numbered(1)))
    assert (len(media.frames), media.times, media.frame_count) == (1, [0.], 1)


def test_frames_while_decoding(tmp_path):
    path = write_video(tmp_path / "a.mp4", numbered(32), fps=10)
    stream = iter_frames(path, frames=4)
    index, seconds, frame = next(stream)
    assert (index, round(seconds, 6), number(frame)) == (4, .4, 4)
    stream.close()
    assert [number(o) for _, _, o in iter_frames(open_video(path), frames=4)] == [4, 12, 20, 28]


def test_truncated_mkv_uses_what_decodes(tmp_path):
    cv2 = pytest.importorskip("cv2")
    writer = cv2.VideoWriter(str(tmp_path / "whole.mkv"), cv2.CAP_FFMPEG, cv2.VideoWriter_fourcc(*"mp4v"), 10, (64, 48))
    for frame in numbered(32): writer.write(frame)
    writer.release()
    whole = (tmp_path / "whole.mkv").read_bytes()
    (tmp_path / "cut.mkv").write_bytes(whole[:len(whole)*6//10])
    media = read_video(tmp_path / "cut.mkv", frames=4)
    assert 4 < media.frame_count < 32
    assert [number(o) for o in media.frames] == evenly_spaced(media.frame_count, 4)
    assert "truncated" in media.notes[0]


@pytest.mark.parametrize("degrees,matrix,corner", [(90, (0, 1, -1, 0), (0, -1)), (180, (-1, 0, 0, -1), (-1, -1)), (270, (0, -1, 1, 0), (-1, 0))])
def test_container_rotation(tmp_path, degrees, matrix, corner):
    "The bright top left corner of the stored frame goes where the matrix sends it."
    frame = np.zeros((48, 64, 3), np.uint8)
    frame[:24, :32] = 240
    data = bytearray(write_video(tmp_path / "a.mp4", [frame]*4).read_bytes())
    at, (a, b, c, d) = data.find(b"tkhd") + 44, matrix
    data[at:at+36] = struct.pack(">9i", a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)
    (tmp_path / "turned.mp4").write_bytes(data)
    media = read_video(tmp_path / "turned.mp4", frames=2)
    height, width = media.frames[0].shape[:2]
    assert (width, height) == (media.width, media.height) == ((64, 48) if degrees == 180 else (48, 64))
    inner = media.frames[0][[8, -9]][:, [8, -9], 0] > 120  # the four corners, a little inwards
    assert inner.sum() == 1 and inner[corner]
    assert f"{degrees} degrees" in media.notes[0]


def test_names_are_never_patterns_or_addresses(tmp_path):
    "A name that OpenCV would take for a numbered series, and one with a colon, are plain files."
    for name in ("frame_%03d.mp4", "http:clip.mp4", "ä ö.mp4"):
        path = write_video(tmp_path / name, numbered(8))
        assert [number(o) for o in read_media(path, frames=2).frames] == [2, 6]


def test_it_shows_itself_and_escapes_names(tmp_path):
    path = tmp_path / "<script>.png"
    picture().save(path)
    shown = read_media(path)._repr_html_()
    assert "<script>" not in shown and "&lt;script&gt;" in shown


def test_real_videos(shared):
    for path in sorted((shared / "data/eval/ffpp_video").glob("*/*.mp4"))[:1]:
        media = read_video(path, frames=4)
        assert media.indices == evenly_spaced(media.frame_count, 4) and media.notes == []
        assert all(o.shape == (media.height, media.width, 3) and o.std() > 5 for o in media.frames)


def test_a_truncated_image_is_refused_whatever_other_libraries_switched_on(tmp_path, monkeypatch):
    "WeasyPrint makes Pillow fill what is missing with grey, for the whole process: a verdict must not rest on that."
    Image.effect_noise((64, 64), 90).convert("RGB").save(tmp_path/"whole.png")
    (tmp_path/"half.png").write_bytes((tmp_path/"whole.png").read_bytes()[:2000])
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with pytest.raises(MediaError, match="truncated or damaged"): read_image(tmp_path/"half.png")

"Pictures and animations from strangers: each is right, or one sentence says why not, and nothing in Pillow is changed for it."
import io, struct, threading, time, zlib
import numpy as np
import pytest
from PIL import Image, ImageCms, ImageFile
from deepfake_nb.see import animation, image
from deepfake_nb.core import MediaError
from deepfake_nb.see.behind import jpeg_end
from deepfake_nb.see.image import read_image, verify_image
from deepfake_nb.see.media import Limits, read_media, sniff_kind

NOISE = np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8)
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")


def smooth(width=160, height=120):
    "A picture without sharp edges, which every codec keeps nearly as it is."
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return np.stack([x, y, 255 - x], -1).astype(np.uint8)


def saved(path, pixels, format, **kwargs):
    Image.fromarray(pixels).save(path, format, **kwargs)
    return path


def chunk(name, data): return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def refused(path, *words, limits=Limits(), read=read_media):
    "The sentence of the error: one line that names the file, what was found and what is accepted."
    with pytest.raises(MediaError) as caught: read(path, limits=limits)
    sentence = str(caught.value)
    assert sentence.startswith(f"{path}: ") and "Accepted: " in sentence
    for word in words: assert word in sentence, sentence
    return sentence


# ---- complete or an error, whatever Pillow's switches say

@pytest.fixture(params=[False, True], ids=["strict", "lenient"])
def switch(request, monkeypatch):
    "Pillow's switch for everybody, off and on; it is found as it was left."
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", request.param)
    before = Image.MAX_IMAGE_PIXELS
    yield request.param
    assert ImageFile.LOAD_TRUNCATED_IMAGES is request.param and Image.MAX_IMAGE_PIXELS == before


@pytest.mark.parametrize("format,options", [*((o, {}) for o in FORMATS), ("JPEG", dict(progressive=True)), ("TIFF", dict(compression="tiff_deflate")),
    ("TIFF", dict(compression="jpeg")), ("PNG", dict(icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()))])
def test_cut_off_anywhere(tmp_path, switch, format, options):
    whole = saved(tmp_path / "whole", NOISE, format, **options)
    data, expected = whole.read_bytes(), read_image(whole).frames[0]
    assert verify_image(whole) == (128, 96)
    for kept in [*np.linspace(1, len(data) - 1, 25).astype(int), len(data) - 2, len(data) - 20]:
        (tmp_path / "cut").write_bytes(data[:kept])
        for read in (read_image, verify_image):
            try: result = read(tmp_path / "cut")
            except MediaError as error: assert "Accepted: " in str(error)
            else: assert kept > .97 * len(data) and (read is verify_image or (result.frames[0] == expected).all()), kept


def test_damaged_in_the_middle(tmp_path, switch):
    "The stream of a PNG is broken: not half a picture, an error."
    data = bytearray(saved(tmp_path / "a.png", NOISE, "PNG").read_bytes())
    at = data.index(b"IDAT") + 4
    body = data[at:at + 20000] ; body[9000:9100] = bytes(100)
    data[at:at + 20000] = body
    length = struct.unpack(">I", data[at - 8:at - 4])[0]
    data[at + length:at + length + 4] = struct.pack(">I", zlib.crc32(data[at - 4:at + length]))  # the checksum of the chunk is right
    (tmp_path / "a.png").write_bytes(data)
    refused(tmp_path / "a.png", "damaged PNG")


def test_the_switch_of_another_thread(tmp_path, monkeypatch):
    "Somebody turns the switch on and off meanwhile: neither is he disturbed nor are we."
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", False)
    data = saved(tmp_path / "whole.jpg", NOISE, "JPEG").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(data[:len(data) // 2])
    stop, disturbed = threading.Event(), []
    def other():
        while not stop.is_set():
            for value in (True, False):
                ImageFile.LOAD_TRUNCATED_IMAGES = value
                time.sleep(0)
                if ImageFile.LOAD_TRUNCATED_IMAGES is not value: disturbed.append(value)
    thread = threading.Thread(target=other)
    thread.start()
    try:
        for _ in range(100): refused(tmp_path / "cut.jpg", "truncated")
    finally: stop.set(); thread.join()
    assert not disturbed


# ---- size

@pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP"])
@pytest.mark.parametrize("width,height", [(1, 1), (1, 16000), (16000, 1)])
def test_extreme_sizes(tmp_path, format, width, height):
    path = saved(tmp_path / "a", np.full((height, width, 3), 90, np.uint8), format)
    media = read_media(path)
    assert (media.width, media.height) == (width, height) and media.frames[0].shape == (min(height, 4096), min(width, 4096), 3)
    assert abs(media.frames[0].astype(int) - 90).max() <= 4


def test_a_column_of_65535_pixels(tmp_path):
    path = saved(tmp_path / "a.jpg", np.full((65500, 1, 3), 90, np.uint8), "JPEG")
    assert read_media(path).frames[0].shape == (4096, 1, 3)
    data = path.read_bytes()
    at = data.index(b"\xff\xc0") + 5
    path.write_bytes(data[:at] + struct.pack(">HH", 65535, 65535) + data[at + 4:])
    refused(path, "65535 x 65535", "300,000,000")


def test_large_photo_is_read_smaller(tmp_path):
    "By the decoder, not after it: three times as large as what is decoded in full."
    pixels, few = smooth(), Limits(max_pixels=10_000, max_image_side=40)
    media = read_media(saved(tmp_path / "a.jpg", pixels, "JPEG", quality=95), limits=few)
    assert (media.width, media.height, media.frames[0].shape, media.scale) == (160, 120, (30, 40, 3), .25)
    expected = pixels.reshape(30, 4, 40, 4, 3).mean((1, 3))
    assert abs(media.frames[0] - expected).max() < 6
    assert media.notes == ["Scaled down from 160 x 120 to 40 x 30 pixels."]
    exif = Image.Exif()
    exif[0x0112] = 6  # lying on its side
    turned = read_media(saved(tmp_path / "b.jpg", np.rot90(pixels).copy(), "JPEG", quality=95, exif=exif), limits=few)
    assert (turned.width, turned.height) == (160, 120) and abs(turned.frames[0] - expected).max() < 6
    assert verify_image(tmp_path / "a.jpg", few) == (160, 120)
    for format, options in (("PNG", {}), ("JPEG", dict(progressive=True)), ("WEBP", {}), ("TIFF", {})):
        refused(saved(tmp_path / "a", pixels, format, **options), "160 x 120", "at most 10,000 pixels", limits=few)
    refused(tmp_path / "a.jpg", "at most 15,000 pixels", limits=Limits(max_pixels=5000))


def test_an_odd_size_read_smaller(tmp_path):
    "Boxes found in the frame lie right in the file's pixels, at every reduction."
    for width, height in ((801, 603), (1601, 1), (333, 1000)):
        media = read_media(saved(tmp_path / "a.jpg", smooth(width, height), "JPEG"), limits=Limits(max_image_side=100))
        assert (media.width, media.height) == (width, height) and media.scale == 100 / max(width, height)
        assert media.frames[0].shape[1::-1] == tuple(max(1, round(o * media.scale)) for o in (width, height))


def test_a_webp_is_measured_before_it_is_opened(tmp_path):
    vp8x = b"VP8X" + struct.pack("<IB3x", 10, 0) + (16382).to_bytes(3, "little")*2
    (tmp_path / "a.webp").write_bytes(b"RIFF" + struct.pack("<I", 4 + len(vp8x)) + b"WEBP" + vp8x)
    refused(tmp_path / "a.webp", "16383 x 16383")


def test_many_scans(tmp_path):
    "A progressive JPEG that repeats its scans is refused at once."
    data = saved(tmp_path / "a.jpg", smooth(), "JPEG", progressive=True).read_bytes()
    assert jpeg_end(data).at == len(data) and 2 < jpeg_end(data).scans < 20
    at = data.rindex(b"\xff\xda")
    (tmp_path / "a.jpg").write_bytes(data[:at] + data[at:-2] * 300 + data[-2:])
    refused(tmp_path / "a.jpg", "scans")


# ---- what else is in the file

def test_motion_photo(tmp_path):
    path = saved(tmp_path / "a.jpg", smooth(), "JPEG")
    assert read_media(path).notes == []
    path.write_bytes(path.read_bytes() + b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom" + bytes(5000))
    media = read_media(path)
    assert "a motion photo" in media.notes[0] and "not looked at" in media.notes[0]


def test_pictures_one_after_the_other(tmp_path):
    path = saved(tmp_path / "a.mjpg", smooth(), "JPEG")
    path.write_bytes(path.read_bytes() * 6)
    assert any("followed by 5 more JPEG pictures" in o for o in read_media(path).notes)
    first, second = Image.fromarray(smooth()), Image.fromarray(255 - smooth())
    first.save(tmp_path / "b.jpg", "MPO", save_all=True, append_images=[second])  # announced: a second view
    assert any("followed by 1 more JPEG picture " in o for o in read_media(tmp_path / "b.jpg").notes)


def tiff(pages, order="<"):
    "A TIFF of uncompressed pages. Each is (pixels or bytes, tags); a tag of the name 'below' holds further pages."
    data, places = bytearray(b"II*\0" if order == "<" else b"MM\0*") + bytearray(4), {}
    def write(content, tags, following):
        tags, below = dict(tags), [write(*o, 0) for o in tags.get("below", ())]
        tags.pop("below", None)
        if isinstance(content, np.ndarray):
            height, width = content.shape[:2]
            tags = {256: width, 257: height, 258: 8, 259: 1, 262: 2, 277: 3, 278: height} | tags
            content = content.tobytes()
        for place, length in (tags.pop("place", (273, 279)),): tags |= {place: len(data), length: len(content)}
        data.extend(content + bytes(len(content) % 2))
        if below: tags[330] = below
        lists = {}
        for tag, value in tags.items():
            if isinstance(value, list) and len(value) > 1: lists[tag] = len(data); data.extend(struct.pack(order + "I" * len(value), *value))
        at = len(data)
        data.extend(struct.pack(order + "H", len(tags)))
        for tag, value in sorted(tags.items()):
            values = value if isinstance(value, list) else [value]
            data.extend(struct.pack(order + "HHII", tag, 4, len(values), lists.get(tag, values[0])))
        data.extend(struct.pack(order + "I", following))
        return at
    following = 0
    for content, tags in reversed(pages): following = write(content, tags, following)
    data[4:8] = struct.pack(order + "I", following)
    return bytes(data)


def jpeg(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


PHOTO, PREVIEW = smooth(), np.full((30, 40, 3), 200, np.uint8)
MOSAIC = (bytes(160 * 120), {254: 0, 256: 160, 257: 120, 258: 8, 259: 1, 262: 32803, 277: 1, 278: 120})  # the sensor's own data


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("pages", [
    [(PREVIEW, {254: 1, "below": [(PHOTO, {254: 0})]})], [(PREVIEW, {254: 1, "below": [(PREVIEW, {254: 1}), (PHOTO, {254: 0})]})],
    [(PREVIEW, {254: 1, 50706: 0x0401}), (PHOTO, {254: 0})], [(PREVIEW, {"below": [(PHOTO, {})]})]], ids=["below", "two below", "behind", "unsaid"])
def test_raw_photo(tmp_path, order, pages):
    (tmp_path / "a.dng").write_bytes(tiff(pages, order))
    media = read_media(tmp_path / "a.dng")
    assert (media.width, media.height, media.notes) == (160, 120, []) and (media.frames[0] == PHOTO).all()
    assert verify_image(tmp_path / "a.dng") == (160, 120)


def test_raw_photo_lying_on_its_side(tmp_path):
    "What the first page says of the camera holds for the photo."
    (tmp_path / "a.dng").write_bytes(tiff([(PREVIEW, {254: 1, 274: 6, "below": [(np.rot90(PHOTO).copy(), {254: 0})]})]))
    assert (read_media(tmp_path / "a.dng").frames[0] == PHOTO).all()


def test_raw_photo_that_cannot_be_decoded(tmp_path):
    "The thumbnail is never taken for it; the camera's own JPEG of the same size is."
    (tmp_path / "a.dng").write_bytes(tiff([(PREVIEW, {254: 1, "below": [MOSAIC]})]))
    refused(tmp_path / "a.dng", "a raw photo of 160 x 120 pixels", "preview")
    (tmp_path / "a.nef").write_bytes(tiff([(PREVIEW, {254: 1, "below": [MOSAIC, (jpeg(PHOTO), {254: 1, "place": (513, 514)})]})]))
    media = read_media(tmp_path / "a.nef")
    assert media.width == 160 and abs(media.frames[0].astype(int) - PHOTO).max() < 8
    (tmp_path / "b.nef").write_bytes(tiff([(PREVIEW, {254: 1, "below": [MOSAIC, (jpeg(PREVIEW), {254: 1, "place": (513, 514)})]})]))
    refused(tmp_path / "b.nef", "a raw photo of 160 x 120 pixels")


def test_pages_of_a_document_and_smaller_copies(tmp_path):
    "The first page is the picture where nothing says otherwise."
    (tmp_path / "a.tif").write_bytes(tiff([(PREVIEW, {}), (PHOTO, {})]))
    media = read_media(tmp_path / "a.tif")
    assert (media.width, media.notes) == (40, ["Only the first of its pages was looked at."])
    (tmp_path / "b.tif").write_bytes(tiff([(PHOTO, {"below": [(PREVIEW, {254: 1})]})]))
    assert (read_media(tmp_path / "b.tif").frames[0] == PHOTO).all()


def test_pages_that_point_at_each_other(tmp_path):
    data = bytearray(tiff([(PREVIEW, {254: 1, "below": [(PHOTO, {254: 0})]})]))
    data[-4:] = data[4:8]  # the next page is the first
    (tmp_path / "a.dng").write_bytes(data)
    assert read_media(tmp_path / "a.dng").width == 160


# ---- colours

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def ink_profile():
    "CMYK by a table with two steps for each ink: what is white, and what is black."
    white, black = (255, 128, 128), (0, 128, 128)  # Lab
    table = b"".join(bytes(black if any(o) else white) for o in np.ndindex(2, 2, 2, 2))
    identity = bytes(range(256))
    lut = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + b"".join(struct.pack(">i", 65536 * o) for o in (1, 0, 0, 0, 1, 0, 0, 0, 1)) + identity * 4 + table + identity * 3
    white_point = b"XYZ \0\0\0\0" + b"".join(struct.pack(">i", round(65536 * o)) for o in (.9642, 1, .8249))
    tags, at, body = b"", 132 + 12 * 2, b""
    for name, content in ((b"A2B0", lut), (b"wtpt", white_point)):
        content += bytes(-len(content) % 4)
        tags, body = tags + name + struct.pack(">II", at + len(body), len(content)), body + content
    head = struct.pack(">I4sI4s4s4s12x4s", at + len(body), b"none", 0x02400000, b"prtr", b"CMYK", b"Lab ", b"acsp").ljust(68, b"\0")
    return head + white_point[8:] + bytes(48) + struct.pack(">I", 2) + tags + body


def test_inks_by_their_profile(tmp_path):
    inks = Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    inks.save(tmp_path / "a.jpg", icc_profile=ink_profile())
    media = read_media(tmp_path / "a.jpg")
    assert media.frames[0].max() < 10 and media.notes == ["Its colours were brought to sRGB by its colour profile."]  # cyan ink is black here
    inks.save(tmp_path / "b.jpg")
    plain = read_media(tmp_path / "b.jpg")
    assert plain.frames[0][0, 0, 2] > 200 and "CMYK" in plain.notes[0]


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_random_profiles_and_exif(tmp_path, format):
    "Metadata of random bytes change no pixel, and are told."
    plain = read_media(saved(tmp_path / "plain", smooth(), format)).frames[0]
    for seed in range(12):
        rng = np.random.default_rng(seed)
        profile = bytearray(SRGB if seed % 2 else rng.bytes(300))
        for at in rng.integers(0, len(profile), 60): profile[at] = rng.integers(256)
        exif = b"Exif\0\0" + rng.bytes(200)
        media = read_media(saved(tmp_path / "a", smooth(), format, icc_profile=bytes(profile), **({} if format in ("TIFF", "AVIF") else dict(exif=exif))))
        if any("damaged or made for other pixels" in o for o in media.notes): assert (media.frames[0] == plain).all()
        else: assert media.frames[0].shape == plain.shape
    media = read_media(saved(tmp_path / "a", smooth(), format, icc_profile=SRGB))
    assert (media.frames[0] == plain).all() and media.notes == []


def with_chunk(path, *chunks):
    data = path.read_bytes()
    path.write_bytes(data[:33] + b"".join(chunks) + data[33:])  # behind the header
    return read_media(path)


def test_png_numbers(tmp_path):
    path = saved(tmp_path / "a.png", np.full((4, 4, 3), 55, np.uint8), "PNG")
    data = path.read_bytes()
    for chunks, expected in ((chunk(b"gAMA", struct.pack(">I", 100_000)), 128), (chunk(b"gAMA", struct.pack(">I", 45455)), 55), (chunk(b"gAMA", bytes(4)), 55),
                             (chunk(b"gAMA", struct.pack(">I", 100_000)) + chunk(b"sRGB", b"\0"), 55), (chunk(b"cICP", b"\1\x08\0\1"), 128), (chunk(b"cICP", b"\x0c\x0d\0\1"), 55),
                             (chunk(b"gAMA", struct.pack(">I", 100_000)) + chunk(b"cHRM", bytes(32)), 55)):
        path.write_bytes(data)
        assert (with_chunk(path, chunks).frames[0] == expected).all()
    path.write_bytes(data)
    assert "HDR" in with_chunk(path, chunk(b"cICP", b"\x09\x10\0\1")).notes[0]
    saved(path, np.full((4, 4, 3), (234, 51, 35), np.uint8), "PNG")
    assert abs(with_chunk(path, chunk(b"cICP", b"\x0c\x0d\0\1")).frames[0].astype(int) - (255, 0, 0)).max() <= 3  # P3's way to say sRGB's red


def test_avif_numbers(tmp_path):
    path = saved(tmp_path / "a.avif", np.full((16, 16, 3), (234, 51, 35), np.uint8), "AVIF", quality=100, subsampling="4:4:4")
    data = bytearray(path.read_bytes())
    assert abs(read_media(path).frames[0].astype(int) - (234, 51, 35)).max() <= 3
    at = data.index(b"colrnclx") + 8
    data[at:at + 2] = struct.pack(">H", 12)
    path.write_bytes(data)
    assert abs(read_media(path).frames[0].astype(int) - (255, 0, 0)).max() <= 6


def test_adobe_rgb_by_exif(tmp_path):
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA001] = 2
    media = read_media(saved(tmp_path / "a.jpg", np.full((16, 16, 3), (219, 0, 0), np.uint8), "JPEG", quality=100, exif=exif))
    assert abs(media.frames[0].astype(int) - (255, 0, 0)).max() <= 3 and "brought to sRGB" in media.notes[0]


# ---- animations

def shades(n, size=(64, 48)): return [Image.new("RGB", size, (8 * i, 255 - 8 * i, 60)) for i in range(n)]


def moving(path, pictures, **kwargs):
    pictures[0].save(path, save_all=True, append_images=pictures[1:], **kwargs)
    return path


ANIMATED = [("a.gif", {}), ("a.png", {}), ("a.webp", dict(lossless=True)), ("a.avif", dict(quality=100))]


@pytest.mark.parametrize("name,options", ANIMATED)
def test_an_animation_is_a_film(tmp_path, name, options):
    path = moving(tmp_path / name, shades(21), duration=80, **options)
    passes = []
    media = read_media(path, 7, through=lambda found: passes.append(1) or found)
    assert (media.kind, sniff_kind(path), media.frame_count, passes) == ("video", "video", 21, [1])
    assert media.indices == [1, 4, 7, 10, 13, 16, 19] and np.allclose(media.times, .08 * np.array(media.indices)) and abs(media.duration - 1.68) < 1e-6
    for index, frame in zip(media.indices, media.frames): assert abs(frame.astype(int) - (8 * index, 255 - 8 * index, 60)).max() <= 4


@pytest.mark.parametrize("name,options", ANIMATED)
def test_an_animation_cut_off_anywhere(tmp_path, switch, name, options):
    "What is shown of it is right, and that the rest is missing is told."
    noise = [Image.fromarray(np.roll(NOISE, 7 * i, 1)) for i in range(6)]
    data, cut = moving(tmp_path / name, noise, duration=100, **options).read_bytes(), tmp_path / f"cut{name[1:]}"
    whole = read_media(tmp_path / name)
    assert len(whole.frames) == 6 and whole.notes == []
    for kept in np.linspace(1, len(data) - 1, 20).astype(int):
        cut.write_bytes(data[:kept])
        try: media = read_media(cut)
        except MediaError as error: assert "Accepted: " in str(error); continue
        for index, frame in zip(media.indices, media.frames): assert (frame == whole.frames[index]).all()
        assert len(media.frames) == 6 or media.kind == "image" or any("were looked at" in o for o in media.notes) or media.frame_count == len(media.frames)


def test_an_apng_that_announces_too_much(tmp_path):
    path = moving(tmp_path / "a.png", shades(8), duration=100)
    data = bytearray(path.read_bytes())
    at = data.index(b"acTL")
    data[at - 4:at + 16] = chunk(b"acTL", struct.pack(">II", 0x7fffffff, 0))
    path.write_bytes(data)
    start = time.perf_counter()
    media = read_media(path, 4)
    assert media.indices == [1, 3, 5, 7] and media.frame_count == 8 and time.perf_counter() - start < 20


def test_a_picture_in_front_of_an_apng(tmp_path):
    "Programs that know no APNG show it instead; it is looked at too."
    path = moving(tmp_path / "a.png", [Image.new("RGB", (64, 48), "white"), *shades(4)], duration=100, default_image=True)
    media = read_media(path)
    assert len(media.frames) == 5 and media.frames[0].min() == 255 and (media.frames[1][0, 0] == (0, 255, 60)).all()


@pytest.mark.parametrize("bomb", [None, 178_956_970 // 2])
def test_bounds_of_an_animation(tmp_path, monkeypatch, bomb):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", bomb)  # Pillow's own bound is not relied upon
    path = moving(tmp_path / "a.gif", shades(20), duration=100)
    monkeypatch.setattr(animation, "_most_pixels", 10 * 64 * 48)
    media = read_media(path, 5)
    assert media.indices == [1, 3, 5, 7, 9] and "Only the first 10 of its 20 frames" in media.notes[0] and abs(media.duration - 2) < 1e-6
    refused(path, "64 x 48", limits=Limits(max_video_pixels=3000))
    big = bytearray(path.read_bytes())
    at = big.index(b"\x2c", 13 + 3 * 256)
    while big[at:at + 5] != b"\x2c\0\0\0\0": at = big.index(b"\x2c", at + 1)
    big[at + 5:at + 9] = struct.pack("<HH", 65535, 65535)
    path.write_bytes(big)
    start = time.process_time()
    media = read_media(path)  # one frame is far larger than the picture that it belongs to: only those before it are shown
    assert time.process_time() - start < 5 and "cut off or damaged" in media.notes[0] and str(tmp_path) not in media.notes[0]
    assert all((o[0, 0] == (8 * i, 255 - 8 * i, 60)).all() for i, o in zip(media.indices, media.frames))


def test_one_frame_and_pages_are_pictures(tmp_path):
    for name in ("a.gif", "a.png", "a.webp", "a.avif"):
        shades(1)[0].save(tmp_path / name)
        assert (read_media(tmp_path / name).kind, sniff_kind(tmp_path / name)) == ("image", "image")
    moving(tmp_path / "a.tif", shades(3))
    assert sniff_kind(tmp_path / "a.tif") == "image"


def test_transparent_and_coloured_frames(tmp_path):
    "What shines through is white in each frame, and the profile holds for all of them."
    glass = [Image.new("RGBA", (32, 32), (200, 0, 0, 0 if i else 255)) for i in range(3)]
    media = read_media(moving(tmp_path / "a.webp", glass, duration=100, lossless=True))
    assert (media.frames[1] == 255).all() and media.notes == ["Transparent parts were laid over white."]

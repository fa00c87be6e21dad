"Films that are odd, and fine; films that lie; and films made to lead somewhere else. Each gives the right frames with the right times, or one sentence."
import hashlib, os, struct, subprocess, sys
from fractions import Fraction
from pathlib import Path
import av, cv2, numpy as np, pytest
from deepfake_nb.see.capture import Capture, SourceError
from deepfake_nb.core import MediaError
from deepfake_nb.see.faces import FaceDetector
from deepfake_nb.see.files import FILM_FORMATS, open_container, sniff_format
from deepfake_nb.see.film import iter_frames, open_video, read_video
from deepfake_nb.see.media import Limits, read_media, sniff_kind, write_video
from deepfake_nb.see.look import look_at

PATTERN = 0xAB  # what memory is filled with, to see whether it comes back as a picture


def scene(n=24, width=128, height=96, shift=0):
    "A bright square that moves to the right over a ramp; each frame is different."
    frames = []
    for i in range(n):
        frame = np.zeros((height, width, 3), np.uint8)
        frame[..., 0] = np.linspace(20, 120, width)[None]
        frame[..., 1], frame[..., 2] = np.linspace(30, 150, height)[:, None], 60 + shift
        frame[30:60, 10 + 3*i:40 + 3*i] = (220, 200 - shift, 180)
        frames.append(frame)
    return frames


def encode(container, stream, frames, stamps=None, base=None):
    "Packets of frames; stamps in units of `base`."
    for i, pixels in enumerate(frames):
        frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format=stream.pix_fmt)
        frame.pts = i if stamps is None else stamps[i]
        if base: frame.time_base = base
        yield from stream.encode(frame)
    yield from stream.encode(None)


def film(path, frames, codec="libx264", fps=12, pix_fmt="yuv420p", options=None, format=None, tags=(), stamps=None, base=None, aspect=None):
    "A film by PyAV, with whatever is odd about it."
    if codec not in av.codecs_available: pytest.skip(f"this FFmpeg has no {codec}")
    with av.open(str(path), "w", format=format) as container:
        stream = container.add_stream(codec, rate=fps, options=options or {})
        stream.width, stream.height, stream.pix_fmt = frames[0].shape[1], frames[0].shape[0], pix_fmt
        if base: stream.codec_context.time_base = base
        if aspect: stream.codec_context.sample_aspect_ratio = aspect
        for name, value in dict(tags).items(): setattr(stream.codec_context, name, value)
        for packet in encode(container, stream, frames, stamps, base): container.mux(packet)
    return path


def likeness(media, frames):
    "The mean difference of what was read from what was written."
    return max(float(np.abs(o.astype(int) - frames[i]).mean()) for i, o in zip(media.indices, media.frames))


def digest(media): return hashlib.sha256(b"".join(o.tobytes() for o in media.frames)).hexdigest()


def fill_memory():
    "Allocate, fill and free memory of the sizes that decoders ask for."
    blocks = [np.full(n, PATTERN, np.uint8) for n in (96*128*3, 96*128, 600*512*3, 600*512, 1 << 16, 1 << 20) for _ in range(20)]
    return sum(int(o[0]) for o in blocks)


@pytest.fixture(scope="session")
def cases():
    "Films that peers' users sent in; they lie beside the repository."
    folder = Path(__file__).parents[2] / "shared" / "cases"
    if not (folder / "2_fakeil.mp4").is_file(): pytest.skip(f"{folder} is not here")
    return folder


# ---- memory that was not written

class Nobody(FaceDetector):
    name = sha256 = note = ""
    first_side, second_side = 640, 1280
    def _look(self, frame, side, second=False): return []
    def _worth_second_look(self, frame): return False


def streamed(path):
    frames = []
    with Capture(path, every_frame=True) as capture:
        while not capture.ended:
            if (frame := capture.read()) is not None: frames.append(frame.image)
    return hashlib.sha256(b"".join(o.tobytes() for o in frames)).hexdigest()


WAYS = dict(read=lambda path: digest(read_video(path, 12)), pipeline=lambda path: digest(look_at(path, Nobody(), 12).media), stream=streamed)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["2_fakeil.mp4", "2_fs_ictcp.mp4", "base_real.mp4"])
def test_what_is_decoded_does_not_depend_on_what_was_decoded_before(cases, name, way):
    "A real film that claims to be interlaced once showed the pictures of the film before it."
    read, answers = WAYS[way], set()
    for before in (None, "base_forged.mp4", "base_real.mp4", "1_turn_rf.webm"):
        if before: read(cases / before)
        fill_memory()
        answers.add(read(cases / name))
    fresh = subprocess.run([sys.executable, "-c", "import hashlib, sys\nfrom deepfake_nb.see.film import read_video\n"
                            "print(hashlib.sha256(b''.join(o.tobytes() for o in read_video(sys.argv[1], 12).frames)).hexdigest())", str(cases / name)], capture_output=True, text=True)
    assert len(answers) == 1, fresh.stderr
    if way != "stream": assert answers == {fresh.stdout.strip()}


def test_a_false_flag_changes_little(cases):
    "Interlaced by its header only, and tagged with colours that nobody converts: the pictures are those of the plain films."
    plain, flagged, tagged, forged = (read_video(cases / o, 12) for o in ("base_real.mp4", "2_fakeil.mp4", "2_fs_ictcp.mp4", "base_forged.mp4"))
    assert likeness(flagged, dict(zip(plain.indices, plain.frames))) < 2.5 and "interlaced" in flagged.notes[0]
    assert digest(tagged) == digest(forged) and "ICtCp" in tagged.notes[0] and not forged.notes


@pytest.mark.parametrize("codec,options,name", [("libx264", dict(flags="+ildct+ilme", **{"x264-params": "tff=1"}), "a.mp4"), ("mpeg2video", dict(flags="+ildct+ilme", qscale="2"), "a.mpg"),
                                                ("mpeg2video", dict(flags="+ildct+ilme", qscale="2"), "a.ts"), ("mpeg4", dict(flags="+ildct+ilme", qscale="2"), "a.avi")])
def test_interlaced_films(tmp_path, codec, options, name):
    frames = scene()
    fill_memory()
    media = read_video(film(tmp_path / name, frames, codec, fps=25, options=options), 8)
    assert len(media.frames) == 8 and likeness(media, frames) < 9 and any("de-interlaced" in o for o in media.notes)
    assert not any((o == PATTERN).all(2).mean() > .2 for o in media.frames)


def test_combs_are_gone(tmp_path):
    "Two half pictures that were taken one after the other."
    whole = scene(48)
    woven = [a.copy() for a in whole[::2]]
    for o, later in zip(woven, whole[1::2]): o[1::2] = later[1::2]
    media = read_video(film(tmp_path / "a.mp4", woven, options=dict(flags="+ildct+ilme", crf="12", **{"x264-params": "tff=1"})), 8)
    comb = lambda o: np.abs(o[1:-1].astype(float) - (o[:-2].astype(float) + o[2:])/2)[32:56].mean()
    assert max(map(comb, media.frames)) < .5*comb(woven[4])


@pytest.mark.parametrize("matrix", [3, 8, 10, 11, 12, 13, 14, 15])
def test_colour_tags_that_nobody_converts(tmp_path, matrix):
    "Only the tag differs; the pictures are those without it, or at least near (constant luminance is taken as BT.2020)."
    frames = scene()
    fill_memory()
    try: path = film(tmp_path / "a.mkv", frames, "ffv1", pix_fmt="yuv444p", tags=dict(colorspace=matrix))
    except (av.FFmpegError, ValueError): pytest.skip("this FFmpeg does not write the tag")
    media = read_video(path, 6)
    assert likeness(media, frames) < 12 and len(media.frames) == 6


@pytest.mark.parametrize("transfer,said", [(9, False), (10, False), (16, True), (18, True), (1, False)])
def test_transfer_tags(tmp_path, transfer, said):
    "Logarithmic ones are left out; HDR is brought to ordinary video, and told."
    frames = scene()
    media = read_video(film(tmp_path / "a.mkv", frames, "ffv1", pix_fmt="yuv444p10le", tags=dict(color_trc=transfer, color_primaries=9 if said else 1, colorspace=9 if said else 1)), 4)
    assert any("HDR" in o for o in media.notes) == said
    if said: assert all(o.std() > 5 and o.mean() > 3 for o in media.frames)
    else: assert likeness(media, frames) < 12


# ---- which way is up, and how large

def with_matrix(path, out, matrix):
    data = bytearray(path.read_bytes())
    at, (a, b, c, d) = data.find(b"tkhd") + 44, matrix
    data[at:at+36] = struct.pack(">9i", a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)
    out.write_bytes(data)
    return out


@pytest.mark.parametrize("matrix,undone,words", [((-1, 0, 0, 1), lambda o: o[:, ::-1], "Mirrored, as"), ((1, 0, 0, -1), lambda o: o[::-1], "Mirrored and turned by 180"),
                                                 ((0, 1, 1, 0), lambda o: o.transpose(1, 0, 2), "Mirrored and turned by 90")])
def test_mirrored(tmp_path, matrix, undone, words):
    frames = scene()
    path = with_matrix(write_video(tmp_path / "a.mp4", frames), tmp_path / "b.mp4", matrix)
    media = read_video(path, 4)
    assert likeness(media, [undone(o) for o in frames]) < 4 and words in media.notes[0]
    with Capture(path, every_frame=True) as capture: first = capture.read(20.)
    assert np.abs(first.image.astype(int) - undone(frames[0])).mean() < 4


def test_turned_with_pixels_that_are_not_square(tmp_path):
    path = film(tmp_path / "a.mp4", scene(width=128, height=96), aspect=Fraction(2))
    media = read_video(with_matrix(path, tmp_path / "b.mp4", (0, 1, -1, 0)), 2)
    assert (media.width, media.height) == (48, 128) and media.frames[0].shape == (128, 48, 3)
    with Capture(tmp_path / "b.mp4", every_frame=True) as capture: assert capture.read(20.).image.shape == (128, 48, 3)


def test_the_size_changes_in_mid_film(tmp_path):
    "A phone that is turned while it records: each frame keeps its own shape."
    lying, standing = scene(12), [o.transpose(1, 0, 2).copy() for o in scene(12, shift=20)]
    if "libvpx" not in av.codecs_available: pytest.skip("this FFmpeg has no VP8 encoder")
    with av.open(str(tmp_path / "a.webm"), "w") as container:
        stream = container.add_stream("libvpx", rate=12, options=dict(crf="4", b="4M"))
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
        for packet in encode(container, stream, lying): container.mux(packet)
        other = av.CodecContext.create("libvpx", "w")
        other.width, other.height, other.pix_fmt, other.time_base, other.options = 96, 128, "yuv420p", Fraction(1, 12), dict(crf="4", b="4M")
        for packet in encode(container, other, standing, range(12, 24)):
            packet.stream = stream
            container.mux(packet)
    media = read_video(tmp_path / "a.webm", 8)
    assert [o.shape[:2] for o in media.frames] == [(96, 128)]*4 + [(128, 96)]*4
    assert likeness(media, lying + standing) < 6 and any("changes its size" in o for o in media.notes) and (media.width, media.height) == (128, 96)


# ---- times

@pytest.mark.parametrize("name", ["a.mkv", "a.mp4", "a.ts"])
@pytest.mark.parametrize("stamps", [[0, 40, 80, 130_080, 130_120, 130_160], [7_300_000 + 40*i for i in range(6)], [0, 40, 500, 540, 2000, 2040]], ids=["pause", "late", "vary"])
def test_times_are_those_of_the_file(tmp_path, name, stamps):
    "Compared with PyAV's own, less the first."
    path = film(tmp_path / name, scene(6), "mpeg4", fps=25, stamps=stamps, base=Fraction(1, 1000), options=dict(qscale="2"))
    with av.open(str(path)) as container: known = [float(o.pts*container.streams.video[0].time_base) for o in container.decode(video=0)]
    media = read_video(path, 6)
    assert media.times == pytest.approx([o - known[0] for o in known], abs=1e-3) and media.times[0] == 0 and media.notes == []
    assert media.duration >= media.times[-1] and media.looked_at["frames"] == media.looked_at["frames_in_file"] == 6


@pytest.mark.parametrize("name,codec", [("a.avi", "libx264"), ("a.h264", "libx264"), ("a.avi", "mpeg4")])
def test_formats_that_do_not_say_when_a_frame_is_shown(tmp_path, name, codec):
    "Frames that are stored in another order than they are shown, with stamps that are only guessed."
    frames = scene(40)
    media = read_video(film(tmp_path / name, frames, codec, fps=25, options=dict(bf="2", qscale="2") if codec == "mpeg4" else dict(bf="3", crf="10"), format=None), 40)
    assert media.indices == list(range(40)) and np.allclose(np.diff(media.times), .04, atol=1e-3) and likeness(media, frames) < 5


def test_recordings_joined_end_to_end(tmp_path):
    "The stamps of the second one begin anew."
    one = film(tmp_path / "one.ts", scene(24), "mpeg2video", fps=25, options=dict(qscale="2", g="6"))
    two = film(tmp_path / "two.ts", scene(24, shift=30), "mpeg2video", fps=25, options=dict(qscale="2", g="6"))
    (tmp_path / "both.ts").write_bytes(one.read_bytes() + two.read_bytes())
    media = read_video(tmp_path / "both.ts", 48)
    assert media.frame_count == 48 and media.duration == pytest.approx(48/25, abs=.1)
    assert np.allclose(np.diff(media.times), 1/25, atol=.002) and any("jump" in o for o in media.notes)
    assert likeness(media, scene(24) + scene(24, shift=30)) < 8


def test_a_pause_with_much_sound_is_not_the_end(cases):
    media = read_video(cases / "10_vfrgap.mp4", 48)
    assert (media.frame_count, media.notes) == (48, []) and max(np.diff(media.times)) > 120


# ---- what a header says

def test_long_headers_do_not_refuse_short_films(cases, tmp_path):
    media = read_video(cases / "8_long.webm", 32)
    assert media.frame_count == 32 and media.duration == pytest.approx(2.67, abs=.02) and "36000.0 s" in media.notes[0]
    data = bytearray(film(tmp_path / "a.avi", scene(), "mjpeg", pix_fmt="yuvj420p").read_bytes())
    for name, offset in ((b"avih", 24), (b"strh", 40)):
        at = data.find(name) + offset
        data[at:at+4] = struct.pack("<i", 2_000_000_000)
    (tmp_path / "b.avi").write_bytes(data)
    assert read_video(tmp_path / "b.avi", 4).frame_count == 24


def test_cover_pictures_are_no_films(cases):
    for name in ("11_cover1s.m4a", "11_cover.ogg"):
        with pytest.raises(MediaError, match="sound and a cover picture"): read_media(cases / name)


def test_second_streams_are_looked_at(tmp_path):
    first, second = scene(24), scene(12, 96, 64, shift=40)
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        streams = []
        for frames in (first, second):
            streams.append(container.add_stream("libx264", rate=12, options=dict(crf="12")))
            streams[-1].width, streams[-1].height, streams[-1].pix_fmt = frames[0].shape[1], frames[0].shape[0], "yuv420p"
        for stream, frames in zip(streams, (first, second)):
            for packet in encode(container, stream, frames): container.mux(packet)
    media = read_video(tmp_path / "a.mp4", 8)
    assert [o.shape[1] for o in media.frames] == [128]*4 + [96]*4 and likeness(media, first + second) < 6
    assert media.times == sorted(media.times) and media.times[4] > 2 and media.indices[4] == 24 + 1
    assert (media.looked_at["streams"], media.looked_at["streams_in_file"], media.frame_count) == (2, 2, 36)
    assert "2 picture streams" in media.notes[0]


# ---- damaged

def test_a_recording_that_begins_in_the_middle(tmp_path):
    "Cut between packets, before the first key frame: what decodes is used, and how much that is is told."
    if "libx264" not in av.codecs_available: pytest.skip("this FFmpeg has no libx264")
    path = film(tmp_path / "a.ts", scene(60), fps=25, options={"x264-params": "keyint=20:min-keyint=20:scenecut=0:repeat-headers=1", "crf": "10"})
    data = path.read_bytes()
    (tmp_path / "cut.ts").write_bytes(data[188*(len(data)//188//4):])
    media = read_video(tmp_path / "cut.ts", 8)
    assert sniff_kind(tmp_path / "cut.ts") == "video" and 20 <= media.frame_count <= 56 and len(media.frames) == 8
    assert all(o.std() > 20 for o in media.frames)
    assert any("frames can be decoded" in o for o in media.notes) or media.frame_count > 50


def test_streams_without_their_parameters_get_a_sentence(cases):
    with pytest.raises(MediaError, match="no frame can be decoded"): read_media(cases / "9_cut60.ts")
    assert read_media(cases / "9_cutmis.ts", 8).frame_count == 100


@pytest.mark.parametrize("box", [b"\0\0\0\x10skip" + bytes(8), b"\0\0\0\x0cfree" + bytes(4), b"\0\0\0\x18uuid" + bytes(range(16)), b"\0\0\0\x14pnot" + bytes(12)])
def test_films_that_begin_with_another_box(tmp_path, box):
    frames = scene()
    data = bytearray(write_video(tmp_path / "a.mp4", frames).read_bytes())
    at = data.find(b"stco") + 8
    for i in range(int.from_bytes(data[at:at+4], "big")):
        place = slice(at + 4 + 4*i, at + 8 + 4*i)
        data[place] = (int.from_bytes(data[place], "big") + len(box)).to_bytes(4, "big")
    (tmp_path / "b.mov").write_bytes(box + data)
    media = read_media(tmp_path / "b.mov", 6)
    assert (media.format, sniff_format(tmp_path / "b.mov")) == ("MP4", "MP4") and likeness(media, frames) < 4 and media.notes == []


def test_random_bytes_are_no_film(tmp_path):
    for seed in range(8):
        (tmp_path / "a.mp4").write_bytes(np.random.default_rng(seed).integers(0, 256, 60_000, dtype=np.uint8).tobytes())
        with pytest.raises(MediaError): read_media(tmp_path / "a.mp4")


# ---- made to lead elsewhere

@pytest.mark.parametrize("text", ["#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{film}\n#EXT-X-ENDLIST\n", "ffconcat version 1.0\nfile '{film}'\n",
                                  "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
                                  '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"><Period><BaseURL>{film}</BaseURL></Period></MPD>'])
def test_nothing_else_is_opened(tmp_path, text):
    "Neither by the front door nor by the reader itself, whatever the file is called."
    path = write_video(tmp_path / "film.mp4", scene())
    for name in ("a.m3u8", "a.mp4", "a.sdp", "a%03d.ts"):
        (tmp_path / name).write_text(text.format(film=path))
        with pytest.raises(MediaError): read_media(tmp_path / name)
        with pytest.raises((av.FFmpegError, OSError)):
            with open_container(tmp_path / name): pass
    assert not {"hls", "concat", "dash", "image2", "sdp", "rtsp", "lavfi"} & set(FILM_FORMATS)


# ---- names

def test_a_name_that_is_no_utf8(tmp_path):
    folder = os.fsdecode(os.fsencode(tmp_path) + b"/dir\xe9")
    try: os.mkdir(folder)
    except OSError: pytest.skip("this file system takes UTF-8 names only")
    frames = scene()
    path = write_video(os.path.join(folder, os.fsdecode(b"caf\xe9.mp4")), frames)
    assert sniff_kind(path) == "video" and likeness(read_media(path, 4), frames) < 4 and len(list(iter_frames(path, 4))) == 4
    with Capture(path, every_frame=True) as capture: assert capture.read(20.).image.shape == (96, 128, 3)
    (Path(folder) / os.fsdecode(b"x\xff.mp4")).write_bytes(b"\0\0\0\x18ftypisom")
    with pytest.raises(MediaError, match="Accepted"): read_media(Path(folder) / os.fsdecode(b"x\xff.mp4"))


# ---- as found

def test_global_switches_stay_as_they_were(tmp_path):
    from concurrent.futures import ThreadPoolExecutor
    path = write_video(tmp_path / "a.mp4", scene())
    before = cv2.utils.logging.getLogLevel(), av.logging.get_level(), dict(os.environ)
    with ThreadPoolExecutor(8) as pool: list(pool.map(lambda _: read_video(path, 4), range(32)))
    with Capture(99, attempts=1) as capture:
        with pytest.raises(SourceError, match="no such camera"):
            for _ in range(100): capture.read(1.)
    assert before == (cv2.utils.logging.getLogLevel(), av.logging.get_level(), dict(os.environ))


def test_frames_that_serve_no_other_are_skipped_and_nothing_changes(tmp_path, monkeypatch):
    "Fewer frames are decoded, and the wanted ones are the same, bit for bit."
    if "libx264" not in av.codecs_available: pytest.skip("this FFmpeg has no libx264")
    path = film(tmp_path / "a.mp4", scene(30, 320, 240)*4, options=dict(bf="3", crf="20"))
    import deepfake_nb.see.film as module
    counted, original = [], module._decode
    monkeypatch.setattr(module, "_decode", lambda context, packet: counted.append(len(found := original(context, packet))) or found)
    media = read_video(path, 6)
    skipped = sum(counted)
    counted.clear()
    monkeypatch.setattr(module, "_skipping", ())
    plain = read_video(path, 6)
    assert digest(media) == digest(plain) and media.indices == plain.indices and skipped < .75*sum(counted), (skipped, sum(counted))

"Films count seconds, their frames are known by their stamps, and no decoder stands still."
import hashlib, subprocess, sys, textwrap
from fractions import Fraction
from pathlib import Path
import av, numpy as np, pytest
from deepfake_nb.see.film import open_video, read_video

ROOT = Path(__file__).resolve().parents[1]
CODECS = dict(h264=("libx264", "a.mp4", "yuv420p", {}), hevc=("libx265", "a.mp4", "yuv420p", {"x265-params": "log-level=-1"}),
              vp9=("libvpx-vp9", "a.webm", "yuv420p", {"cpu-used": "8", "deadline": "realtime"}), av1=("libsvtav1", "a.mp4", "yuv420p", {"preset": "12"}),
              prores=("prores_ks", "a.mov", "yuv422p10le", {}))


def room(number, width=320, height=240):
    "A picture with detail that moves, and that differs from frame to frame."
    rng = np.random.default_rng(7)
    base = np.clip(rng.normal(120, 40, (height//8, width//8, 3)), 0, 255).repeat(8, 0).repeat(8, 1).astype(np.uint8)
    return np.roll(base, 3*number, 1)


def film(path, codec, pix_fmt, options, frames=48, stamps=None):
    "A film of this codec; stamps in milliseconds, else 25 frames a second."
    if codec not in av.codecs_available: pytest.skip(f"this FFmpeg has no {codec}")
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = 320, 240, pix_fmt
        if stamps: stream.codec_context.time_base = Fraction(1, 1000)
        for i in range(len(stamps or range(frames))):
            frame = av.VideoFrame.from_ndarray(room(i), format="rgb24").reformat(format=pix_fmt)
            frame.pts = stamps[i] if stamps else i
            if stamps: frame.time_base = Fraction(1, 1000)
            for packet in stream.encode(frame): container.mux(packet)
        for packet in stream.encode(): container.mux(packet)
    return path


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    "One film of each codec, made when it is asked for."
    folder, made = tmp_path_factory.mktemp("films"), {}
    def get(name):
        codec, file, pix_fmt, options = CODECS[name]
        if name not in made: made[name] = film(folder / f"{name}_{file}", codec, pix_fmt, options)
        return made[name]
    return get


# ---- no decoder stands still, none loses a frame

STRESS = """
    import faulthandler, sys
    from deepfake_nb.see.again import read_at
    from deepfake_nb.see.film import open_video
    film = open_video(sys.argv[1])
    for i in range(int(sys.argv[2])):
        faulthandler.cancel_dump_traceback_later(); faulthandler.dump_traceback_later(40, exit=True)
        assert len(read_at(film, [(3 + i) % (film.frame_count - 4)])) == 1
    print("done")
"""


@pytest.mark.parametrize("codec", CODECS)
def test_a_decoder_that_is_dropped_in_mid_film_does_not_stand_still(films, codec):
    "Each look ends somewhere in the film, with frames under way in the decoder's threads."
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(STRESS), str(films(codec)), "60"], capture_output=True, text=True, timeout=240, cwd=ROOT)
    assert done.stdout.strip() == "done", done.stderr[-2000:]


def test_no_object_of_python_rides_through_the_threads_of_a_decoder():
    "Whatever a decoder gives back when it is dropped must not need the lock of whoever drops it."
    for path in (ROOT / "deepfake_nb").rglob("*.py"):
        assert ".opaque" not in path.read_text(encoding="utf-8"), path


RACE = """
    import hashlib, sys, threading
    from deepfake_nb.see.again import read_at
    from deepfake_nb.see.film import open_video, read_video
    digest = lambda o: hashlib.md5(o.tobytes()).hexdigest()
    def look(path):
        media, film = read_video(path, 8), open_video(path)
        return [(i, t, digest(x)) for i, t, x in zip(media.indices, media.times, media.frames)], [(p, t, digest(x)) for p, t, x in read_at(film, list(range(3, film.frame_count, 7)))], media.notes
    expected, different = {o: look(o) for o in sys.argv[1:]}, []
    def work(path):
        for _ in range(8):
            if look(path) != expected[path]: different.append(path)
    threads = [threading.Thread(target=work, args=(o,)) for o in sys.argv[1:]]
    for o in threads: o.start()
    for o in threads: o.join()
    print(different)
"""


def test_films_that_are_read_at_the_same_time_do_not_disturb_each_other(films):
    paths = [str(films(o)) for o in ("h264", "vp9", "hevc")]
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(RACE), *paths], capture_output=True, text=True, timeout=240, cwd=ROOT)
    assert done.stdout.strip() == "[]", (done.stdout, done.stderr[-2000:])


# ---- seconds, not frames

def test_moments_are_evenly_spaced_in_seconds_when_frames_are_not(tmp_path):
    "Half of the time 50 frames a second, then 5: as much is looked at in the one half as in the other."
    stamps = [*range(0, 4000, 20), *range(4000, 8000, 200)]
    media = read_video(film(tmp_path / "a.mkv", "libx264", "yuv420p", {}, stamps=stamps), 16)
    assert len(media.frames) == 16 and sum(o < 4 for o in media.times) == 8
    np.testing.assert_allclose(np.diff(media.times), .5, atol=.21)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
@pytest.mark.parametrize("stamps", [[*range(0, 10_000, 40), 10_000, 70_000], [0, *range(60_000, 70_000, 40)], [*range(0, 5000, 40), 65_000, *range(65_040, 70_000, 40)]],
                         ids=["at the end", "at the beginning", "in the middle"])
def test_a_picture_that_stands_for_a_minute_counts_a_minute(tmp_path, name, stamps):
    media = read_video(film(tmp_path / name, "libx264", "yuv420p", {}, stamps=stamps), 32)
    longest = int(np.argmax(np.diff(stamps)))
    share = media.indices.count(longest)/len(media.indices)
    assert share > .8 and media.longest_still > 59 and media.looked_at["longest_still"] == pytest.approx(media.longest_still, abs=.01)
    assert media.times == sorted(media.times) and media.looked_at["longest_gap"] < 3
    pictures = {i: o for i, o in zip(media.indices, media.frames)}
    assert all((pictures[i] == o).all() for i, o in zip(media.indices, media.frames))


def test_frames_at_a_steady_rate_are_those_that_counting_gives(tmp_path):
    from deepfake_nb.see.files import evenly_spaced
    path = film(tmp_path / "a.mp4", "libx264", "yuv420p", {}, frames=100)
    for n in (1, 7, 32, 99, 100, 200): assert read_video(path, n).indices == evenly_spaced(100, n)


def test_no_real_while_one_picture_stands_for_most_of_a_film(tmp_path):
    "And none while a long stretch was not looked at."
    from deepfake_nb.judge.verdict import coverage_reasons
    stood = read_video(film(tmp_path / "a.mp4", "libx264", "yuv420p", {}, stamps=[*range(0, 4000, 40), 4000, 40_000]), 32)
    assert coverage_reasons(stood.looked_at) == ["PICTURE_STOOD"]
    steady = read_video(film(tmp_path / "b.mp4", "libx264", "yuv420p", {}, frames=250), 32)
    assert coverage_reasons(steady.looked_at) == []
    assert coverage_reasons(read_video(tmp_path / "b.mp4", 1).looked_at) == ["STRETCH_NOT_SEEN"]


# ---- what follows an error

def damaged(source, target, hit, seed=1):
    "A copy whose packets with these numbers have some bytes changed."
    rng, data = np.random.default_rng(seed), bytearray(source.read_bytes())
    with av.open(str(source)) as container: found = [(o.pos, o.size) for o in container.demux(container.streams.video[0]) if o.size]
    for position, size in (found[o] for o in hit):
        for at in rng.integers(size//4, size, max(4, size//40)): data[position + at] ^= 1 << int(rng.integers(8))
    target.write_bytes(data)
    return target


TELLING = dict(h264=("libx264", "a.mp4", {"g": "24", "bf": "2", "sc_threshold": "0"}), hevc=("libx265", "a.mp4", {"x265-params": "log-level=-1:keyint=24:min-keyint=24:scenecut=0"}),
               mpeg4=("mpeg4", "a.mp4", {"g": "24", "b": "2M"}), mpeg2=("mpeg2video", "a.mkv", {"g": "24", "b": "4M"}), av1=("libsvtav1", "a.mp4", {"preset": "12", "g": "24"}))


@pytest.mark.parametrize("codec", TELLING)
def test_what_follows_an_error_is_not_judged_until_the_next_key_frame(tmp_path, codec):
    "Of three pieces the second is damaged in its first third: what is looked at is as it was written."
    name, file, options = TELLING[codec]
    whole = film(tmp_path / f"whole_{file}", name, "yuv420p", options, frames=72)
    media = read_video(whole, 72)
    sound = dict(zip(media.indices, media.frames))
    assert len(sound) == 72 and not media.looked_at["undecoded"]
    torn = read_video(damaged(whole, tmp_path / file, range(28, 34)), 72)
    for place, picture in zip(torn.indices, torn.frames):
        assert np.abs(picture.astype(int) - sound[place]).mean() < 1, place
    assert .1 < torn.looked_at["undecoded"] < .5 and any("can be decoded" in o for o in torn.notes), (torn.looked_at, torn.notes)
    assert {0, 12, 60, 71} <= set(torn.indices) and not {34, 38, 42} & set(torn.indices)


def test_a_film_that_is_mostly_unread_is_neither_real_nor_fake(tmp_path):
    from deepfake_nb.judge.verdict import coverage_reasons, judge
    from deepfake_nb.core import FaceVerdict
    whole = film(tmp_path / "whole.mp4", "libx264", "yuv420p", {"g": "200", "sc_threshold": "0"}, frames=72)
    torn = read_video(damaged(whole, tmp_path / "a.mp4", range(6, 60)), 32)
    assert torn.looked_at["undecoded"] > .5 and "FILM_DAMAGED" in coverage_reasons(torn.looked_at)
    for score in (.01, .99):
        assert judge([FaceVerdict(0, "REAL", score, (0, 0, 1, 1))], .7, 0, coverage_reasons(torn.looked_at))[0] == "INCONCLUSIVE"


def test_lost_packets_of_a_broadcast(tmp_path):
    "One packet of 188 bytes in a hundred is missing."
    path = film(tmp_path / "whole.ts", "libx264", "yuv420p", {"g": "24", "crf": "10"}, frames=96)
    data = path.read_bytes()
    pieces = [data[i:i + 188] for i in range(0, len(data), 188)]
    (tmp_path / "a.ts").write_bytes(b"".join(o for i, o in enumerate(pieces) if i < 100 or i % 101))
    media = read_video(path, 96)
    sound = {round(t, 2): o for t, o in zip(media.times, media.frames)}
    torn = read_video(tmp_path / "a.ts", 96)
    assert torn.looked_at["undecoded"] > .03 and any("can be decoded" in o for o in torn.notes)
    off = lambda t, o: min(np.abs(o.astype(int) - sound[near]).mean() for near in sound if abs(near - t) < .09)  # a lost stamp may move it by a frame
    assert all(off(t, o) < 1 for t, o in zip(torn.times, torn.frames))


@pytest.mark.parametrize("name", ["flip.mp4", "vfr_hold.mp4"])
def test_films_of_the_third_round_are_never_real(shared, name):
    from deepfake_nb import Detector
    path = shared / "cases" / "three" / name
    if not path.is_file(): pytest.skip(f"{path} is not here")
    found = Detector().predict(path)
    assert found.decision == ("INCONCLUSIVE" if name == "flip.mp4" else "FAKE"), found


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_the_last_picture_counts_as_long_as_it_stands(tmp_path, name):
    "Two seconds of film, and then one picture for twenty, of which the file says only how long it is."
    stamps = [*range(0, 2000, 40), 2000, 22_000]
    whole = film(tmp_path / f"whole_{name}", "libx264", "yuv420p", {"bf": "0"}, stamps=stamps)
    with av.open(str(whole)) as container, av.open(str(tmp_path / name), "w") as out:
        stream = container.streams.video[0]
        copy = out.add_stream_from_template(stream)
        for packet in [o for o in container.demux(stream) if o.size][:-1]:
            if packet.pts*packet.time_base > 1.99: packet.duration = int(20/packet.time_base)
            packet.stream = copy
            out.mux(packet)
    media = read_video(tmp_path / name, 32)
    assert media.duration == pytest.approx(22, abs=.2) and media.indices.count(50) > 25, (media.duration, media.indices)


def test_an_animation_of_which_one_picture_stands_says_so(tmp_path):
    from PIL import Image
    from deepfake_nb.judge.verdict import coverage_reasons
    from deepfake_nb.see.media import read_media
    pictures = [Image.fromarray(room(i, 64, 48)) for i in range(12)]
    for name in ("a.gif", "a.webp", "a.png"):
        pictures[0].save(tmp_path / name, save_all=True, append_images=pictures[1:], duration=[100]*11 + [20_000])
        media = read_media(tmp_path / name, 32)
        assert media.longest_still == pytest.approx(20) and coverage_reasons(media.looked_at) == ["PICTURE_STOOD"], media.looked_at

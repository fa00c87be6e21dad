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

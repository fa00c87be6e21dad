"A live picture, on real connections: cut and restored, too slow, without secrets, with bounded memory."
import json, math, os, shutil, signal, socket, subprocess, sys, threading, time
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
import cv2, numpy as np, pytest, torch
from matplotlib.cbook import get_sample_data
from PIL import Image
from deepfake_nb.see.capture import Backoff, Capture, hide_credentials, parse_source
from deepfake_nb.core import DeepfakeError
from deepfake_nb.see.faces import Face
from deepfake_nb.see.follow import Follower
from deepfake_nb.see.media import read_video, write_video
from deepfake_nb.model.scorer import create_scorer, save_scorer
from deepfake_nb.judge.predict import Detector
from deepfake_nb.shell import run_command
from deepfake_nb.serve.stream import LiveScorer, SteadyVerdict, Stream, StreamSettings

portrait = np.array(Image.open(get_sample_data("grace_hopper.jpg", asfileobj=False)).convert("RGB").resize((256, 300)))
LONG = 90.  # seconds after which a live test gives up; it needs a fraction of that on a quiet machine


@pytest.fixture(scope="module")
def folder(tmp_path_factory): return tmp_path_factory.mktemp("stream")


@pytest.fixture(scope="module")
def weights(folder):
    torch.manual_seed(0)
    return save_scorer(create_scorer("test_efficientnet", "mean", clip_length=4, image_size=64), folder/"small.safetensors")


@pytest.fixture(scope="module")
def detector(weights): return Detector(weights, device="cpu", face_detector="haar")


@pytest.fixture(scope="module")
def film(folder):
    "Two seconds; each frame has its number in it, as grey of the lowest rows."
    frames = [np.roll(portrait, i, 1) for i in range(50)]
    for i, o in enumerate(frames): o[-24:] = 4*i + 20
    return write_video(folder/"film.mp4", frames, fps=25)


def free_port():
    with socket.socket() as o:
        o.bind(("127.0.0.1", 0))
        return o.getsockname()[1]


class FfmpegServer:
    "A film over and over as MPEG-TS over HTTP, for one viewer."
    def __init__(self, film, port):
        command = f"ffmpeg -nostdin -loglevel quiet -re -stream_loop -1 -i {film} -c:v mpeg2video -q:v 3 -g 12 -f mpegts -listen 1 http://127.0.0.1:{port}/"
        self.process = subprocess.Popen(command.split())

    def close(self): self.process.kill(); self.process.wait()


class MjpegServer:
    "A film over and over as JPEGs over HTTP, as cheap cameras do it."
    def __init__(self, film, port):
        pictures = [cv2.imencode(".jpg", o[..., ::-1])[1].tobytes() for o in read_video(film, frames=50).frames]
        self.alive = threading.Event()

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_): pass
            def do_GET(handler):
                handler.send_response(200)
                handler.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
                handler.end_headers()
                i = 0
                try:
                    while not self.alive.wait(.04):
                        picture = pictures[i % len(pictures)]
                        handler.wfile.write(b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(picture) + picture + b"\r\n")
                        i += 1
                except OSError: pass

        class Server(ThreadingHTTPServer): allow_reuse_address = daemon_threads = True
        self.server = Server(("127.0.0.1", port), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def close(self):
        self.alive.set()
        self.server.shutdown()
        self.server.server_close()


@pytest.mark.parametrize("server", [pytest.param(FfmpegServer, marks=pytest.mark.skipif(not shutil.which("ffmpeg"), reason="no ffmpeg")), MjpegServer])
def test_a_stream_that_is_cut_and_restored_is_picked_up(server, film, detector):
    port, events = free_port(), []
    address = f"http://admin:s3cret@127.0.0.1:{port}/live?token=s3cret"
    capture = Capture(address, attempts=1000, timeout=5, backoff=Backoff(first=.1, jitter=0, most=.2))
    running, stage, seen = server(film, port), "first", dict(first=0, cut=0, again=0)  # pictures with a person in each stage
    try:
        for result in Stream(capture, detector, StreamSettings(rate=8), seconds=LONG):
            events += result.events
            seen[stage] += bool(result.people)
            if stage == "first" and seen[stage] >= 3: stage = running.close() or "cut"
            elif stage == "cut" and events[-1].kind == "waiting": running, stage = server(film, port), "again"
            elif seen["again"] >= 3: break
    finally: running.close()
    kinds = [o.kind for o in events]
    assert (stage, result.reconnects, result.state) == ("again", 1, "live"), events
    assert [o for o in kinds if o != "waiting"] == ["connected", "lost", "connected"]  # until it listens, there is waiting
    assert not any("s3cret" in o.text for o in events) and "s3cret" not in json.dumps(result.to_dict())


# ---- nothing is queued

def number(image):
    "The number of a film's frame, from its lowest rows."
    return round((float(image[-16:-8, 100:150].mean()) - 20)/4)


def test_a_slow_reader_gets_the_newest_frame(film):
    "Each frame that is read is the one that the film's clock asks for, however long the pauses."
    with Capture(film) as capture:
        late, kept = [], []
        while not capture.ended:
            if (frame := capture.read()) is None: continue
            assert abs(number(frame.image) - frame.number) <= 1  # the codec changes greys a little
            late.append(capture.clock() - frame.time)
            kept.append(frame.number)
            time.sleep(.3)
    assert 3 <= len(kept) <= 8 and capture.dropped == capture.received - len(kept) == 50 - len(kept)
    assert all(b - a >= 5 for a, b in zip(kept[:-1], kept[1:-1]))  # 7.5 frames in 0.3 s
    assert np.median(late) < .3


def test_a_slow_scorer_delays_no_picture(film, detector):
    class Slow(LiveScorer):
        running = most = 0
        def _work(self, jobs):
            Slow.running += 1
            Slow.most = max(Slow.most, Slow.running)
            time.sleep(.6)
            Slow.running -= 1
            return super()._work(jobs)
    stream = Stream(film, detector, StreamSettings(share=1., detect_side=320))
    stream._scorer.__class__ = Slow
    results = [o for o in stream if o.image is not None]
    last = results[-1]
    assert Slow.most == 1 and last.scored <= 4
    assert len(results) > 2*max(1, last.scored)  # the picture went on
    assert last.received - last.dropped - len(results) in (0, 1) and last.dropped > 20
    assert np.median([o.latency for o in results]) < .5
    assert all(len(o.samples) <= stream.length for o in stream.opinions.values())


def test_going_through_a_file_is_reproducible(film, detector):
    def told(): return [(o.time, [(p.person, p.decision, p.probability, p.box) for p in o.people]) for o in Stream(film, detector, every_frame=True)]
    first, second = told(), told()
    assert first[:-1] == second[:-1] and len(first) > 15 and first[-2][1][0][2] is not None
    assert [o[0] for o in first[:-1]] == sorted({o[0] for o in first[:-1]})


def test_memory_has_a_maximum():
    "A crowd of forty that changes all the time."
    class Crowd:
        def detect(self, frames):
            corners = np.random.default_rng(int(frames[0][0, 0, 0])).uniform(0, 250, (40, 2))
            return [[Face((x, y, 40., 50.)) for x, y in corners] for _ in frames]
    follower = Follower(Crowd(), every=1, most=10, forget=2)
    noise = np.random.default_rng(0).integers(0, 255, (300, 300, 3), dtype=np.uint8)
    for i in range(40):
        noise[0, 0, 0] = i//4  # the same crowd for four frames
        follower.update(np.roll(noise, 1, 1), i/10)
        assert len(follower.people) <= 10
        assert all(len(o.faces) <= 8 and len(o.times) <= 8 for o in follower.people)
    assert follower._number >= 3  # people came and went


def test_who_comes_back_after_a_long_pause_is_somebody_new(detector):
    "A gap in the picture says nothing about who stands there afterwards; a short one is bridged."
    follower = Follower(detector.face_detector, every=2, forget=2)
    told = [[o.number for o in follower.update(np.roll(portrait, i, 1), moment)] for i, moment in enumerate((0, .1, .2, .9, 1., 5., 5.1, 5.2))]
    assert told[1:5] == [[1]]*4 and told[-1] == [2]


# ---- smoothing and hysteresis, by hand

def test_smoothing_is_exponential_in_log_odds():
    "Threshold .8 (log odds ln 4); half-life 3 s. Odds of the scores: 16, 4, 1."
    steady, four = SteadyVerdict(.8, half_life=3, band=0, dwell=0), math.log(4)
    logodds = lambda: math.log(steady.probability/(1 - steady.probability))
    steady.update(10, 16/17, [])
    assert logodds() == pytest.approx(2*four)
    steady.update(13, 4/5, [])  # a half-life later: (2 + 1)/2
    assert logodds() == pytest.approx(1.5*four)
    steady.update(19, 1/2, [])  # two half-lives later: 1.5/4 + 0
    assert logodds() == pytest.approx(.375*four)
    assert steady.decision == "REAL" and steady.probability == pytest.approx(4**.375/(1 + 4**.375))


def test_one_wild_score_is_limited():
    steady = SteadyVerdict(.5, half_life=1, band=.4, dwell=0)
    steady.update(0, 1., [])
    assert steady.probability == pytest.approx(1/(1 + math.exp(-5)))
    steady.update(1, .1, [])  # (5 - ln 9)/2 = 1.4014
    assert (steady.decision, steady.probability) == ("FAKE", pytest.approx(1/(1 + math.exp(-(5 - math.log(9))/2))))


@pytest.mark.parametrize("dwell, expected", [(0, "FRFRFRFRFRFR"), (1, "IIIIIIIIIIII")])
def test_a_label_does_not_flicker(dwell, expected):
    steady, said = SteadyVerdict(.5, half_life=1e-9, dwell=dwell), ""
    for i in range(12):
        steady.update(i*.5, (.9, .1)[i % 2], [])
        said += steady.decision[0]
    assert said == expected


def test_who_is_not_seen_well_has_no_number():
    steady = SteadyVerdict(.5, dwell=.5)
    for moment, probability, reasons in ((0, .9, []), (.5, .9, []), (1, None, ["FACE_TOO_SMALL"])): steady.update(moment, probability, reasons)
    assert (steady.decision, steady.probability is None) == ("FAKE", False)  # not for half a second yet
    steady.update(1.5, None, ["FACE_TOO_SMALL"])
    assert (steady.decision, steady.probability, steady.reasons) == ("INCONCLUSIVE", None, ["FACE_TOO_SMALL"])


# ---- sources and secrets

@pytest.mark.parametrize("address", ["rtsp://admin:s3cret@camera/1", "http://camera/a?user=x&pwd=s3cret", "rtsp://camera/user=x&password=s3cret&channel=1",
    "rtsp://a:s3cret/s3cret@camera/", "http://a:s3cret?s3cret@camera/", "http://a:b#s3cret@camera/s3cret@x", "rtsps://camera/?s3cret", "http://x#s3cret"])
def test_no_secret_is_shown(address):
    assert "s3cret" not in hide_credentials(address)
    try: assert "s3cret" not in repr(parse_source(address)) + repr(Capture(address).source)
    except DeepfakeError as e: assert "s3cret" not in str(e)


@pytest.mark.parametrize("source", ["file:///etc/passwd", "concat:a|b", "concat://a|b", "subfile://x", "crypto+http://h/", "udp://239.0.0.1:1", "http://", "http:///x", "rtsp://a b/", "http://h:0/", "-1", ""])
def test_what_is_no_source_is_refused(source):
    with pytest.raises(DeepfakeError, match="Accepted"): parse_source(source)


def test_command_answers_with_sentences(folder, weights, capfd):
    (folder/"text.mp4").write_text("Dear Sir or Madam, no video. " * 50)
    port = free_port()
    for source, code, found in (("ftp://admin:s3cret@h/", 2, "'ftp' is not used"), (folder/"text.mp4", 1, "text"), (folder/"none.mp4", 1, "no such file"),
                                (f"http://admin:s3cret@127.0.0.1:{port}/a?token=s3cret", 1, "connection refused")):
        got, out, error = run_command("deepfake_stream", str(source), "--weights", str(weights))
        assert got == code and found in error and "s3cret" not in out + error and "Traceback" not in error, error
    assert error.count("next attempt") == 2  # the third attempt is the last
    assert "s3cret" not in "".join(capfd.readouterr())  # what the libraries below print


def test_command_writes_json_and_film(folder, weights, film):
    code, out, error = run_command("deepfake_stream", str(film), "--fast", "--json", str(folder/"out.jsonl"), "--save", str(folder/"out.mp4"), "--every", "0", "--weights", str(weights))
    assert (code, out) == (0, ""), error
    first, *lines = map(json.loads, (folder/"out.jsonl").read_text().splitlines())
    assert first["stream"]["weights"]["sha256"] and first["stream"]["settings"]["every_frame"] is True
    assert lines[-1]["state"] == "ended" and lines[-1]["received"] == 50 and lines[-1]["dropped"] == 0
    assert {p["decision"] for o in lines for p in o["people"]} <= {"REAL", "FAKE", "INCONCLUSIVE"}
    drawn = read_video(folder/"out.mp4", frames=100)
    assert drawn.duration == pytest.approx(2, abs=.2) and drawn.width == 256


def test_ctrl_c_leaves_whole_files(folder, weights, film):
    "Ctrl-C in the middle of a film of forty seconds."
    code = "import sys; from deepfake_nb.cli import deepfake_stream\nif __name__ == '__main__': sys.exit(deepfake_stream())"
    script = folder/"deepfake-stream"
    script.write_text(code)
    long = write_video(folder/"long.mp4", [np.roll(portrait, i, 1) for i in range(40)], fps=1)
    process = subprocess.Popen([sys.executable, str(script), str(long), "--rate", "5", "--save", str(folder/"cut.mp4"), "--weights", str(weights)], stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, env=os.environ | dict(DEEPFAKE_NB_FACE_DETECTOR="haar"))
    lines = [process.stdout.readline() for _ in range(3)]
    assert not (folder/"cut.mp4").exists()
    process.send_signal(signal.SIGINT)
    rest, error = process.communicate(timeout=LONG)
    assert process.returncode == 0 and "Traceback" not in error, error
    assert all(map(json.loads, [*lines, *rest.splitlines()]))
    assert len(read_video(folder/"cut.mp4", frames=5).frames) >= 1 and not list(folder.glob(".*.mp4"))


class Recorder:
    "A recorder that plays over RTSP: says how long it plays, sends MPEG-TS in RTP over the same connection, at the rate of the film, and may fall silent before."
    def __init__(self, film, claims, seconds):
        import av, io
        out = io.BytesIO()
        with av.open(str(film)) as given, av.open(out, "w", format="mpegts") as made:
            stream = made.add_stream("mpeg2video", rate=25, options=dict(g="12"))
            stream.width, stream.height, stream.pix_fmt, stream.bit_rate = 256, 300, "yuv420p", 2_000_000
            frames = [o.to_ndarray(format="rgb24") for o in given.decode(video=0)]
            for number in range(int(25*seconds)):
                picture = av.VideoFrame.from_ndarray(frames[number % len(frames)], format="rgb24")
                picture.pts, picture.time_base = number, Fraction(1, 25)
                made.mux(stream.encode(picture))
            made.mux(stream.encode(None))
        self.data, self.claims, self.seconds, self.visits, self.over = out.getvalue(), claims, seconds, 0, False
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.address = f"rtsp://127.0.0.1:{self.socket.getsockname()[1]}/replay"
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self):
        self.over = True
        self.socket.close()

    def _serve(self):
        while not self.over:
            try: link, _ = self.socket.accept()
            except OSError: return
            threading.Thread(target=self._talk, args=(link,), daemon=True).start()

    def _talk(self, link):
        asked = link.makefile("rb")
        with link:
            try:
                while line := asked.readline().decode():
                    method, headers = line.split(" ")[0], {}
                    while (field := asked.readline().decode().strip()): headers.update([field.lower().split(": ", 1)])
                    self._answer(link, method, headers)
                    if method == "PLAY": return self._play(link)
            except OSError: pass

    def _answer(self, link, method, headers):
        sdp = f"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=replay\r\nt=0 0\r\na=range:npt=0-{self.claims}\r\nm=video 0 RTP/AVP 33\r\na=control:track\r\n"
        more = dict(OPTIONS="Public: OPTIONS, DESCRIBE, SETUP, PLAY\r\n", DESCRIBE=f"Content-Type: application/sdp\r\nContent-Base: {self.address}/\r\nContent-Length: {len(sdp)}\r\n",
                    SETUP="Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\nSession: 7\r\n", PLAY="Session: 7\r\nRange: npt=0-\r\n").get(method, "")
        link.sendall(f"RTSP/1.0 200 OK\r\nCSeq: {headers['cseq']}\r\n{more}\r\n{sdp if method == 'DESCRIBE' else ''}".encode())

    def _play(self, link):
        self.visits += 1
        pieces, start = [self.data[i:i + 7*188] for i in range(0, len(self.data), 7*188)], time.monotonic()
        for number, piece in enumerate(pieces):
            at = number/len(pieces)*self.seconds
            time.sleep(max(0, start + at - time.monotonic()))
            packet = bytes([0x80, 33]) + (number % 65536).to_bytes(2, "big") + int(at*90_000).to_bytes(4, "big") + b"\0\0\0\7" + piece
            link.sendall(b"$\0" + len(packet).to_bytes(2, "big") + packet)


def watched(recorder, seconds, **settings):
    "Kinds of the events of watching it for so long, and how."
    with Capture(recorder.address, backoff=Backoff(first=.2, jitter=0, most=.2), timeout=5, **settings) as capture:
        end, times = time.monotonic() + seconds, []
        while not capture.ended and time.monotonic() < end:
            if (frame := capture.read(.2)) is not None: times.append(frame.time)
        return [o.kind for o in capture.take_events()], capture.state, times


def test_a_recorder_that_falls_silent_before_its_end_is_lost_and_tried_again(film):
    "It says a minute and plays two seconds: that is no end."
    recorder = Recorder(film, claims=60, seconds=2)
    try: events, state, times = watched(recorder, LONG/4)
    finally: recorder.close()
    assert events[:3] == ["connected", "lost", "connected"] and "ended" not in events[:-1] and recorder.visits > 1 and times == sorted(times), (events, state)


def test_a_recorder_that_plays_to_its_end_is_at_its_end(film):
    recorder = Recorder(film, claims=3, seconds=3)
    try: events, state, times = watched(recorder, LONG)
    finally: recorder.close()
    assert events == ["connected", "ended"] and recorder.visits == 1, (events, state)

"""Damaged and odd files, made by a program, and what the library does with them.

    python tests/fuzz.py --count 400            the long run, by hand
    python tests/fuzz.py --count 40 --keep DIR  a few, kept to look at

Each file goes through `Detector.predict` and the app's engine in a process of its own that is watched from outside, and the
whole folder through `deepfake-scan`. Asked for: a verdict or one sentence for every file, within limits of time and memory; no
crash, no traceback, nothing left behind, and no frame that holds memory which belonged to something else.
"""
import argparse, contextlib, io, json, os, random, signal, struct, subprocess, sys, tempfile, threading, time, zlib
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from matplotlib.cbook import get_sample_data
from PIL import Image

os.environ.setdefault("SVT_LOG", "1")  # errors alone
SECONDS, MEGABYTES = 60, 3000  # for one file; the process itself, with torch and the weights, takes some 900 MB
TOKEN = bytes.fromhex("a55ac33c9669f00f1be4d827b14e728d")  # what the memory is filled with before each file


# ---- whole files, one of each kind

def portrait(size=160):
    "A real face, public domain, (size, size, 3) uint8."
    with Image.open(get_sample_data("grace_hopper.jpg", asfileobj=False)) as image:
        return np.asarray(image.crop((120, 20, 420, 320)).resize((size, size)))


def film(path, codec, container, frames=8, size=160):
    "A short film of the portrait, moved a little from frame to frame."
    face = portrait(size)
    with av.open(str(path), "w", format=container) as out:
        stream = out.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = size, size, "yuvj420p" if codec == "mjpeg" else "yuv420p"
        for i in range(frames):
            for packet in stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(np.roll(face, 2*i, 1)), format="rgb24")): out.mux(packet)
        for packet in stream.encode(): out.mux(packet)


def whole_files(folder):
    "One sound file of each kind: name -> bytes."
    films = dict(mp4=("libx264", "mp4"), mov=("mpeg4", "mov"), mkv=("libx264", "matroska"), webm=("libvpx", "webm"), avi=("mjpeg", "avi"), ts=("mpeg2video", "mpegts"), mpg=("mpeg1video", "mpeg"), flv=("flv1", "flv"))
    for suffix, (codec, container) in films.items(): film(folder/f"film.{suffix}", codec, container)
    face = Image.fromarray(portrait())
    turned = [face.rotate(o) for o in (2, 4, 6)]
    for suffix, settings in dict(jpg=dict(quality=90), png={}, webp={}, gif={}, tif=dict(compression="tiff_lzw"), bmp={}, avif={}).items():
        try: face.save(folder/f"still.{suffix}", **settings)
        except (KeyError, OSError): continue  # a Pillow without this format
    face.save(folder/"progressive.jpg", progressive=True)
    face.copy().save(folder/"eyes.jpg", "MPO", save_all=True, append_images=[turned[0].copy()])
    face.copy().save(folder/"pages.tif", save_all=True, append_images=[turned[0].copy()], compression="jpeg")
    with contextlib.suppress(ImportError):
        import pillow_heif
        file = pillow_heif.from_pillow(face)
        file.save(folder/"still.heic")
        file.add_from_pillow(turned[0])
        file.save(folder/"two.heic")
    for suffix in ("gif", "webp", "png"): face.save(folder/f"moving.{suffix}", save_all=True, append_images=turned, duration=100)
    found = {o.name: o.read_bytes() for o in sorted(folder.iterdir())}
    for path in folder.iterdir(): path.unlink()
    return found


# ---- damage

def boxes(data, start=0, end=None):
    "Where the boxes of an MP4 or MOV begin, those inside others too."
    at, end = start, len(data) if end is None else end
    while at + 8 <= end:
        size, kind = int.from_bytes(data[at:at+4], "big"), data[at+4:at+8]
        yield at
        if kind in (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts", b"udta"): yield from boxes(data, at + 8, min(at + size, end))
        if size < 8: return
        at += size


def truncated(rng, data): return data[:rng.randrange(len(data))]
def flipped(rng, data):
    out = bytearray(data)
    for _ in range(rng.choice((1, 4, 32, 256))): out[rng.randrange(len(out))] = rng.randrange(256)
    return bytes(out)
def head_flipped(rng, data):
    out = bytearray(data)
    for _ in range(rng.choice((1, 3, 12))): out[rng.randrange(min(len(out), 400))] = rng.choice((0, 255, 128, rng.randrange(256)))
    return bytes(out)
def hole(rng, data):
    a = rng.randrange(len(data)); b = min(len(data), a + rng.randrange(1, 4000))
    return data[:a] + rng.choice((bytes(b - a), b"", rng.randbytes(b - a))) + data[b:]
def doubled(rng, data):
    a = rng.randrange(len(data)); b = min(len(data), a + rng.randrange(1, 4000))
    return data[:b] + data[a:b]*rng.choice((1, 3)) + data[b:]
def numbers(rng, data):
    "Some 32-bit numbers become extreme."
    out = bytearray(data)
    for _ in range(rng.choice((1, 2, 6))):
        at = rng.randrange(max(1, len(out) - 4))
        out[at:at+4] = struct.pack(rng.choice((">I", "<I")), rng.choice((0, 1, 0x7fffffff, 0xffffffff, 0x80000000, 65535, 30000)))
    return bytes(out[:len(data)])


def box_damage(rng, data):
    "Truncated at a box, or with a box that lies about its size or kind."
    at, out = rng.choice(list(boxes(data))), bytearray(data)
    kind = rng.randrange(3)
    if kind == 0: return data[:at] or data[:4]
    if kind == 1: out[at:at+4] = struct.pack(">I", rng.choice((0, 1, 7, 8, 0xffffffff, len(data)*2)))
    else: out[at+4:at+8] = rng.choice((b"free", b"skip", b"\0\0\0\0", rng.randbytes(4)))
    return bytes(out)


def with_metadata(rng, _):
    "A picture with EXIF, ICC or text of random bytes."
    face, out = Image.fromarray(portrait()), io.BytesIO()
    junk = rng.randbytes(rng.choice((1, 16, 200, 60_000)))
    kind = rng.choice(("JPEG", "PNG", "WEBP", "TIFF"))
    settings = {} if kind == "TIFF" else dict(exif=rng.choice((b"Exif\0\0" + junk[:60_000], b"Exif\0\0II*\0\x08\0\0\0" + junk[:60_000])))
    face.save(out, kind, icc_profile=junk, **settings)
    return out.getvalue()


def huge_header(rng, _):
    "A small PNG, GIF, BMP or JPEG that announces enormous sizes."
    width, height = rng.choice(((65535, 65535), (1, 65535), (65535, 1), (30_000, 30_000), (0, 10), (2**31 - 1, 1)))
    chunk = lambda name, data: struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
    small = lambda v: struct.pack("<H", v & 0xffff)
    return rng.choice((
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b""),
        b"GIF89a" + small(width) + small(height) + b"\x80\0\0" + bytes(6) + b"," + bytes(4) + small(width) + small(height) + b"\0\x02\x02L\x01\0;",
        b"BM" + struct.pack("<IIIIiiHHIIiiII", 1000, 0, 54, 40, min(width, 2**31 - 1), height, 1, 24, 0, 0, 0, 0, 0, 0) + bytes(900),
        b"\xff\xd8\xff\xc0\0\x11\x08" + struct.pack(">HH", height & 0xffff, width & 0xffff) + b"\x03\x01\x22\0\x02\x11\x01\x03\x11\x01\xff\xd9"))


def wrong_head(rng, data):
    "The first bytes of one kind, the rest of another, or of none."
    heads = (b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"RIFF\xff\xff\xff\x7fWEBPVP8 ", b"\0\0\0\x18ftypmp42", b"\x1aE\xdf\xa3", b"OggS", b"\0\0\1\xba", b"FLV\1", b"II*\0", b"#EXTM3U\n", b"ffconcat version 1.0\n", b"G")
    return rng.choice(heads) + rng.choice((data, data[16:], rng.randbytes(3000), b""))


def png_chunk(name, data): return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def with_text(rng, _):
    "A PNG with texts: megabytes, bombs, halves, orientation in XMP."
    out, face = io.BytesIO(), Image.fromarray(portrait())
    face.save(out, "PNG")
    data, name = out.getvalue(), rng.choice((b"tEXt", b"zTXt", b"iTXt", b"iCCP", b"eXIf"))
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="%d"/></x:xmpmeta>' % rng.randrange(12)
    text = rng.choice((b"x" * rng.choice((10, 70_000, 3 << 20)), xmp, rng.randbytes(3000)))
    packed = zlib.compress(text * rng.choice((1, 20)))
    content = {b"tEXt": b"a\0" + text, b"zTXt": b"a\0\0" + packed, b"iTXt": b"XML:com.adobe.xmp\0" + rng.choice((b"\0\0\0\0" + text, b"\1\0\0\0" + packed)), b"iCCP": b"p\0\0" + packed, b"eXIf": text}[name]
    at = rng.choice((33, len(data) - 12))
    return data[:at] + png_chunk(name, content[:rng.choice((len(content), len(content) // 2))]) * rng.choice((1, 3)) + data[at:]


def with_xmp(rng, _):
    "A picture whose text, EXIF or both say how it is to be turned."
    out, face, options = io.BytesIO(), Image.fromarray(portrait()), {}
    kind = rng.choice(("JPEG", "WEBP", "AVIF"))
    if rng.random() < .5:
        options["exif"] = Image.Exif()
        options["exif"][0x0112] = rng.choice((1, 3, 6, 8, 9, 255))
    try: face.save(out, kind, xmp=b'<x:xmpmeta><rdf:Description tiff:Orientation="%d"/></x:xmpmeta>' % rng.randrange(12), **options)
    except (KeyError, OSError): face.save(out, "JPEG")
    return out.getvalue()


def with_alpha(rng, _):
    "A picture of which all, nothing or anything shines through."
    out, face = io.BytesIO(), Image.fromarray(portrait()).convert("RGBA")
    alpha = rng.choice((Image.new("L", face.size, 0), Image.new("L", face.size, 254), Image.frombytes("L", face.size, rng.randbytes(face.width * face.height))))
    face.putalpha(alpha)
    try: face.save(out, rng.choice(("PNG", "WEBP", "TIFF", "AVIF")))
    except (KeyError, OSError): face.save(out, "PNG")
    return flipped(rng, out.getvalue()) if rng.random() < .3 else out.getvalue()


def with_more(rng, data):
    "Films, pictures and boxes behind a file, whole and broken."
    out = io.BytesIO()
    Image.fromarray(portrait(64)).save(out, rng.choice(("JPEG", "PNG")))
    head = b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom"
    more = rng.choice((out.getvalue(), out.getvalue()[:300], head + rng.randbytes(500), b"moov\0\0\0lmvhd" + rng.randbytes(200), b"\x1aE\xdf\xa3" + rng.randbytes(100)))
    size = rng.choice((8 + len(more), 0, 7, 1, 0xffffffff))
    return data + rng.choice((b"", rng.randbytes(40), struct.pack(">I", size) + rng.choice((b"mpvd", b"moov", b"uuid", b"sefd")))) + more * rng.choice((1, 1, 3))


def middle_hole(rng, data):
    "Only what makes the picture is damaged: its head and its end stay."
    a = rng.randrange(len(data) // 3, max(len(data) // 3 + 1, len(data) - 400))
    n = rng.choice((1, 16, 400))
    return data[:a] + rng.choice((bytes(n), rng.randbytes(n), data[:n], b"")) + data[a + n:]


def glued(rng, data, others):
    "Two files in one."
    return data + rng.choice(others)


CODECS = dict(libx264=("mp4", "yuv420p"), libx265=("mp4", "yuv420p"), mpeg4=("avi", "yuv420p"), prores_ks=("mov", "yuv422p10le"),
              mjpeg=("mov", "yuvj420p"), mpeg2video=("mpegts", "yuv420p"), **{"libvpx-vp9": ("webm", "yuv420p"), "libsvtav1": ("matroska", "yuv420p")})
QUICK = {"libx265": {"x265-params": "log-level=none:pools=1"}, "libvpx-vp9": {"cpu-used": "8", "deadline": "realtime"}, "libsvtav1": {"preset": "12"}}


def coded(codec, container, pixels, stamps, tracks=1, size=128, colour="rgb24"):
    "A film whose frames have these stamps, in hundredths of a second; of several tracks each shows its own."
    out, face = io.BytesIO(), portrait(size)
    with av.open(out, "w", format=container) as film:
        streams = [film.add_stream(codec, rate=25, options=QUICK.get(codec, {})) for _ in range(tracks)]
        for o in streams: o.width, o.height, o.pix_fmt, o.codec_context.time_base = size, size, pixels, Fraction(1, 100)
        for turn, stream in enumerate(streams):
            for i, stamp in enumerate(stamps):
                picture = np.ascontiguousarray(np.roll(face, 2*i + 20*turn, 1))
                if colour == "rgba": picture = np.dstack([picture, np.full(face.shape[:2], 255*(i % 2), np.uint8)])
                frame = av.VideoFrame.from_ndarray(picture, format=colour)
                frame.pts, frame.time_base = stamp, Fraction(1, 100)
                for packet in stream.encode(frame): film.mux(packet)
            for packet in stream.encode(): film.mux(packet)
    return out.getvalue()


def some_stamps(rng, count=10):
    "Steady, held, jumping, nearly all at once, or each at its own distance; always rising, as encoders want it."
    steps = rng.choice(([4]*count, [4]*(count - 2) + [6000, 4], [4, 360_000] + [4]*(count - 2), [1]*count, [rng.randrange(1, 400) for _ in range(count)]))
    begin = rng.choice((0, 0, 500))
    return [begin + sum(steps[:i]) for i in range(count)]


def try_coded(rng, *settings, **more):
    "The film, or one that every encoder makes where this one cannot."
    try: return coded(*settings, **more)
    except (av.FFmpegError, ValueError, TypeError): return coded("mpeg4", "avi", "yuv420p", [4*i for i in range(10)])


def with_stamps(rng, _):
    "A film in any codec whose time does not run evenly, sometimes with a stamp overwritten."
    codec = rng.choice(sorted(CODECS))
    data = try_coded(rng, codec, *CODECS[codec], some_stamps(rng))
    return numbers(rng, data) if rng.random() < .4 else data


def damaged_film(rng, _):
    "A film in any codec with flipped or missing bytes behind its first third, where the pictures are."
    codec = rng.choice(sorted(CODECS))
    return middle_hole(rng, try_coded(rng, codec, *CODECS[codec], [4*i for i in range(12)]))


def see_through(rng, _):
    "A film of which every other frame is transparent, in codecs that can say so."
    codec, container, pixels = rng.choice((("libvpx-vp9", "webm", "yuva420p"), ("prores_ks", "mov", "yuva444p10le"), ("qtrle", "mov", "argb"), ("png", "mov", "rgba")))
    return try_coded(rng, codec, container, pixels, some_stamps(rng), colour="rgba")


def two_tracks(rng, _):
    "A film with further picture tracks."
    codec = rng.choice(("libx264", "mpeg4", "libvpx-vp9"))
    data = try_coded(rng, codec, rng.choice(("matroska", "mp4")), "yuv420p", some_stamps(rng), tracks=rng.choice((2, 3, 7)))
    return truncated(rng, data) if rng.random() < .3 else data


DAMAGE = (truncated, flipped, head_flipped, hole, doubled, numbers, with_metadata, huge_header, wrong_head,
          with_text, with_xmp, with_alpha, with_more, middle_hole, with_stamps, damaged_film, see_through, two_tracks)


def corpus(folder, count=200, seed=0):
    "Write `count` files; the same ones for the same seed. Returns their paths."
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    rng, sound, paths = random.Random(seed), whole_files(folder), []
    names = sorted(sound)
    for i in range(count):
        name = names[i % len(names)]
        data = sound[name]
        kind = rng.choice((*DAMAGE, glued, *([box_damage]*4 if name.endswith((".mp4", ".mov")) else ())))
        damaged = glued(rng, data, list(sound.values())) if kind is glued else kind(rng, data)
        if rng.random() < .15: name = name.rsplit(".", 1)[0] + rng.choice((".jpg", ".mp4", ".dng", "", ".txt"))
        path = folder/f"{i:04d}-{kind.__name__}-{name}"
        path.write_bytes(damaged)
        paths.append(path)
    return paths


# ---- one process that looks at files, and one that watches it

def fill_memory():
    "Leave memory behind that holds the token, in pieces as large as frames."
    block = TOKEN*4096
    pieces = [bytearray(block*n) for n in (1, 2, 4, 8, 16, 64)]
    del pieces


def foreign(frame): # does a frame hold memory that it was not written to?
    return TOKEN*2 in frame.tobytes()


def look():
    "Reads paths from standard input, writes one line of JSON for each."
    from deepfake_nb.core import DeepfakeError
    from deepfake_nb.serve.engine import Engine, EngineError
    from deepfake_nb.see.media import read_media
    from deepfake_nb.judge.predict import Detector
    detector, engine = Detector(), Engine()
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        path, told = json.loads(line), {}
        fill_memory()
        try:
            media = read_media(path)
            told["read"], told["foreign"] = len(media.frames), any(foreign(o) for o in media.frames)
        except DeepfakeError as e: told["read"] = str(e)
        for name, ask in dict(predict=lambda: detector.predict(path).decision, engine=lambda: engine.examine(path, Path(path).name).prediction.decision).items():
            try: told[name] = ask()
            except (DeepfakeError, EngineError) as e: told[name] = str(e)
            except Exception as e: told[name] = f"traceback {type(e).__name__}: {e}"
        print(json.dumps(told), flush=True)


def memory(pid): # MB, the most there was; 0 where the system does not tell
    try: return int(next(o for o in Path(f"/proc/{pid}/status").read_text().splitlines() if o.startswith("VmHWM")).split()[1])/1024
    except (OSError, StopIteration): return 0.


class Watched:
    "The process that looks; started anew when it died."
    def __init__(self): self.process = None

    def start(self):
        self.process = subprocess.Popen([sys.executable, __file__, "--look"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        threading.Thread(target=self._errors, args=(self.process, lines := []), daemon=True).start()
        self.lines = lines
        assert json.loads(self.process.stdout.readline() or "null") == "ready", "".join(lines)

    def _errors(self, process, lines): lines.extend(process.stderr)

    def ask(self, path):
        "What is said of one file, with seconds and MB; `crash` where the process died or took too long."
        if self.process is None or self.process.poll() is not None: self.start()
        begun, timer = time.monotonic(), threading.Timer(SECONDS, lambda: self.process.send_signal(signal.SIGKILL))
        timer.start()
        self.process.stdin.write(json.dumps(str(path)) + "\n"); self.process.stdin.flush()
        answer = self.process.stdout.readline()
        timer.cancel()
        seconds, most = time.monotonic() - begun, memory(self.process.pid)
        told = json.loads(answer) if answer else dict(crash=f"exit {self.process.wait()} after {seconds:.0f} s")
        return told | dict(seconds=round(seconds, 2), megabytes=round(most))

    def close(self):
        if self.process is not None and self.process.poll() is None:
            self.process.stdin.close()
            self.process.wait(30)


def faults(told):
    "What is wrong with one answer."
    if "crash" in told: yield f"crash: {told['crash']}"
    if told.get("foreign"): yield "a frame holds memory that was not written"
    if told["seconds"] > SECONDS: yield f"{told['seconds']} seconds"
    if told["megabytes"] > MEGABYTES: yield f"{told['megabytes']} MB"
    for name in ("read", "predict", "engine"):
        if "traceback" in str(told.get(name, "")) or "unexpected" in str(told.get(name, "")): yield f"{name}: {told[name]}"


def run(folder, count=200, seed=0):
    "Make the files, look at each, scan them all. Returns a summary and the faults by file."
    folder, watched, bad, answers = Path(folder), Watched(), {}, []
    paths = corpus(folder/"files", count, seed)
    before = sorted(os.listdir(tempfile.gettempdir()))
    begun = time.monotonic()
    for path in paths:
        told = watched.ask(path)
        answers.append(told)
        if found := list(faults(told)): bad[path.name] = found
    watched.close()
    looked = time.monotonic() - begun
    left = {o for o in sorted(os.listdir(tempfile.gettempdir())) if o not in before and o.startswith("deepfake")}
    if left: bad["(left behind)"] = sorted(left)
    command = "import sys; from deepfake_nb.shell import run_command; code, out, err = run_command('deepfake_scan', *sys.argv[1:]); print(out, err); sys.exit(code)"
    done = subprocess.run([sys.executable, "-c", command, str(folder/"files"), "--out", str(folder/"scan"), "--workers", "1", "--seconds", str(SECONDS)],
                          capture_output=True, text=True)
    said = done.stdout + done.stderr
    if done.returncode or "Traceback" in said: bad["(scan)"] = [f"exit {done.returncode}: {said[-600:]}"]
    slowest = max(answers, key=lambda o: o["seconds"])
    verdicts = [o.get("predict") for o in answers]
    summary = dict(files=len(paths), read=sum(isinstance(o.get("read"), int) for o in answers), judged=sum(o in ("REAL", "FAKE", "INCONCLUSIVE") for o in verdicts),
                   seconds=round(looked, 1), slowest=slowest["seconds"], megabytes=max(o["megabytes"] for o in answers), faults=len(bad))
    return summary, bad


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", help="a folder for the files; by default a temporary one")
    parser.add_argument("--look", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.look: return look()
    with tempfile.TemporaryDirectory() as folder:
        summary, bad = run(args.keep or folder, args.count, args.seed)
    print(json.dumps(summary))
    for name, found in bad.items(): print(name, *found, sep="\n  ")
    return int(bool(bad))


if __name__ == "__main__": sys.exit(main())

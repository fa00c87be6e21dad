"A sample of damaged and odd files: a verdict or a sentence for each. The long run is `python tests/fuzz.py --count 400`."
import tempfile
import fuzz
from test_engine import tiny_weights


def test_the_same_files_come_out_for_the_same_seed(tmp_path):
    names = lambda folder: [(o.name, o.read_bytes()) for o in fuzz.corpus(folder, 30, seed=3)]
    films = ("film", "stamps", "see_through", "two_tracks")
    pictures = lambda found: [o for o in found if not any(word in o[0] for word in films)]  # an encoder may write a date into a film
    assert pictures(names(tmp_path / "a")) == pictures(names(tmp_path / "b"))
    assert len(list((tmp_path / "a").iterdir())) == 30


def test_films_of_every_codec_are_made():
    "None of the generators falls back on another codec unnoticed."
    for codec, (container, pixels) in fuzz.CODECS.items():
        assert len(fuzz.coded(codec, container, pixels, range(0, 40, 4))) > 500, codec
    for settings in (("libvpx-vp9", "webm", "yuva420p"), ("prores_ks", "mov", "yuva444p10le"), ("qtrle", "mov", "argb"), ("png", "mov", "rgba")):
        assert len(fuzz.coded(*settings, [0, 4, 8], colour="rgba")) > 500, settings
    assert len(fuzz.coded("libx264", "matroska", "yuv420p", [0, 4, 8], tracks=3)) > 500


def test_memory_of_something_else_would_be_seen():
    import numpy as np
    frame = np.zeros((40, 40, 3), np.uint8)
    assert not fuzz.foreign(frame)
    frame.reshape(-1)[100:100 + 4*len(fuzz.TOKEN)] = np.frombuffer(fuzz.TOKEN*4, np.uint8)
    assert fuzz.foreign(frame)


def test_damaged_files_get_a_verdict_or_a_sentence(tmp_path, monkeypatch):
    place = tmp_path / "temporary"  # its own, since other tests may run beside it
    place.mkdir()
    monkeypatch.setenv("TMPDIR", str(place))
    monkeypatch.setenv("DEEPFAKE_NB_WEIGHTS", str(tiny_weights(tmp_path)))  # what reads files is on trial, not the network
    monkeypatch.setattr(tempfile, "tempdir", None)
    summary, bad = fuzz.run(tmp_path, count=40, seed=1)
    assert not bad, bad
    assert summary["files"] == 40 and summary["read"] > 5

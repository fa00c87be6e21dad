"What a film's container says beside its packets: transparency, encryption, colours of its own kind, and pieces without a beginning."
import av, numpy as np, pytest
from test_clock import film, room
from deepfake_nb.core import MediaError
from deepfake_nb.see.film import open_video, read_video
from deepfake_nb.see.media import sniff_kind


def see_through(path, codec, pix_fmt, opacity, container=None, options=None):
    "A film of which the left half has this opacity; the right half can be seen."
    if codec not in av.codecs_available: pytest.skip(f"this FFmpeg has no {codec}")
    with av.open(str(path), "w", format=container) as out:
        stream = out.add_stream(codec, rate=25, options=options or {})
        stream.width, stream.height, stream.pix_fmt = 320, 240, pix_fmt
        for i in range(12):
            alpha = np.full((240, 320, 1), 255, np.uint8)
            alpha[:, :160] = opacity
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(np.concatenate([room(i)//2, alpha], 2)), format="rgba").reformat(format=pix_fmt)
            frame.pts = i
            for packet in stream.encode(frame): out.mux(packet)
        for packet in stream.encode(): out.mux(packet)
    return path


TRANSPARENT = dict(vp9=("libvpx-vp9", "yuva420p", "a.webm", {"cpu-used": "8", "deadline": "realtime", "auto-alt-ref": "0"}), vp8=("libvpx", "yuva420p", "a.webm", {"auto-alt-ref": "0"}),
                   prores=("prores_ks", "yuva444p10le", "a.mov", {"profile": "4"}), qtrle=("qtrle", "argb", "a.mov", {}), png=("png", "rgba", "a.mov", {}))


@pytest.mark.parametrize("codec", TRANSPARENT)
def test_transparent_parts_of_a_film_are_laid_over_white(tmp_path, codec):
    name, pix_fmt, file, options = TRANSPARENT[codec]
    media = read_video(see_through(tmp_path / file, name, pix_fmt, 0, options=options), 6)
    assert all(o[:, :150].mean() > 250 and o[:, 170:].mean() < 100 for o in media.frames)
    assert "Transparent parts were laid over white." in media.notes and "ALPHA" in media.contents
    whole = read_video(see_through(tmp_path / f"whole_{file}", name, pix_fmt, 255, options=options), 6)
    assert all(o[:, :150].mean() < 100 for o in whole.frames) and whole.notes == []


def test_a_decoder_that_does_not_tell_what_is_transparent_keeps_the_film_from_a_verdict(tmp_path, monkeypatch):
    import deepfake_nb.see.film as module
    name, pix_fmt, file, options = TRANSPARENT["vp9"]
    path = see_through(tmp_path / file, name, pix_fmt, 0, options=options)
    monkeypatch.setattr(module, "_with_alpha", lambda stream: None)
    assert read_video(path, 6).contents.reasons() == ["TRANSPARENCY_UNREAD"]


def test_a_film_without_colour_says_so(tmp_path):
    with av.open(str(tmp_path / "a.mp4"), "w") as out:
        stream = out.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        for i in range(12):
            frame = av.VideoFrame.from_ndarray(room(i)[..., :1].repeat(3, 2), format="rgb24")
            for packet in stream.encode(frame): out.mux(packet)
        for packet in stream.encode(): out.mux(packet)
    media = read_video(tmp_path / "a.mp4", 6)
    assert media.notes == ["Greyscale: there is no colour to judge by."] and "GREY" in media.contents
    assert "GREY" not in read_video(film(tmp_path / "b.mp4", "mpeg4", "yuv420p", {}), 6).contents


def test_encrypted_films_are_called_so(tmp_path):
    path = film(tmp_path / "a.mp4", "libx264", "yuv420p", {})
    data = bytearray(path.read_bytes())
    at = data.index(b"avc1", data.index(b"stsd"))
    data[at:at + 4] = b"encv"
    path.write_bytes(data)
    with pytest.raises(MediaError, match="encrypted"): open_video(path)


def test_colours_that_only_dolby_vision_knows(tmp_path):
    path = film(tmp_path / "a.mp4", "libx264", "yuv420p", {})
    data = bytearray(path.read_bytes())
    name = next(o for o in (b"pasp", b"btrt") if o in data)
    at = data.index(name)
    data[at:at + 9] = b"dvcC" + bytes([1, 0, 5 << 1, 0, 0])
    path.write_bytes(data)
    media = read_video(path, 6)
    assert media.contents.reasons() == ["COLOURS_UNKNOWN"] and any("Dolby Vision profile 5" in o for o in media.notes)


def test_pieces_of_a_stream(tmp_path):
    "The whole is read; its beginning alone and a piece alone are called what they are."
    path = film(tmp_path / "whole.mp4", "libx264", "yuv420p", {"g": "12"})
    with av.open(str(path)) as container, av.open(str(tmp_path / "f.mp4"), "w", options=dict(movflags="frag_keyframe+empty_moov+default_base_moof")) as out:
        stream = container.streams.video[0]
        copy = out.add_stream_from_template(stream)
        for packet in container.demux(stream):
            if packet.dts is None: continue
            packet.stream = copy
            out.mux(packet)
    data = (tmp_path / "f.mp4").read_bytes()
    cut = data.index(b"moof") - 4
    assert len(read_video(tmp_path / "f.mp4", 8).frames) == 8
    (tmp_path / "piece.m4s").write_bytes(data[cut:])
    (tmp_path / "styp.m4s").write_bytes(b"\0\0\0\x10stypmsdh\0\0\0\0" + data[cut:])
    (tmp_path / "init.mp4").write_bytes(data[:cut])
    for name in ("piece.m4s", "styp.m4s"):
        with pytest.raises(MediaError, match="without its beginning"): sniff_kind(tmp_path / name)
    with pytest.raises(MediaError, match="without its pieces"): open_video(tmp_path / "init.mp4")

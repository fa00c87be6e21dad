"Real films: searching everywhere now and then finds the same people, in the same places, as searching everywhere in each frame."
from pathlib import Path
import numpy as np, pytest
from deepfake_nb.see.faces import box_iou, load_face_detector, track_faces
from deepfake_nb.see.media import read_video
from deepfake_nb.see.look import look_at
from deepfake_nb.see.pipeline import film_detector

films = Path(__file__).parents[2]/"shared"/"data"/"eval"/"ffpp_video"
some = [films/"real"/"004.mp4", films/"fake"/"634_660.mp4"]


@pytest.mark.parametrize("path", some, ids=lambda o: o.stem)
def test_same_people_in_the_same_places(path):
    if not path.is_file(): pytest.skip(f"{path} is not here")
    detector = load_face_detector("haar")
    media, film = (look := look_at(path, detector, frames=12)).media, film_detector(detector)
    found, expected = film.detect(media.frames), detector.detect(media.frames)
    assert look.faces == found  # decoded meanwhile or not
    assert film.searches <= 5  # of 12 frames
    ours, theirs = (track_faces(o, media.times, media.frames)[0] for o in (found, expected))
    assert [o.frame_indices for o in ours] == [o.frame_indices for o in theirs]
    same = [box_iou(a.box, b.box) for x, y in zip(ours, theirs) for a, b in zip(x.faces, y.faces)]
    assert np.median(same) > .93 and min(same) > .8, same


def test_the_thread_hands_over_what_is_read():
    path = some[0]
    if not path.is_file(): pytest.skip(f"{path} is not here")
    class Counting(type(load_face_detector("haar"))):
        def _look(self, frame, side, second=False): return []
        def _worth_second_look(self, frame): return False
    media = look_at(path, Counting(), frames=5).media
    plain = read_video(path, 5)
    assert media.times == plain.times and media.indices == plain.indices and media.notes == plain.notes
    assert all((a == b).all() for a, b in zip(media.frames, plain.frames))


def test_a_film_without_faces_is_not_searched_forever():
    "Second looks are taken at four frames at most, as without following."
    frames = [np.full((360, 640, 3), i, np.uint8) for i in range(12)]
    film, looks = film_detector(load_face_detector("haar")), []
    original = film.detector._look
    film.detector._look = lambda frame, side, second=False: looks.append(second) or original(frame, side, second)
    assert film.detect(frames) == [[]]*12 and sum(looks) <= 4 and film.searches <= 4

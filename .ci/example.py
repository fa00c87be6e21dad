"Draw the picture of the README, nbs/images/example.jpg: a portrait, a forgery of it, what was replaced, where the default weights looked."
import sys, tempfile
from pathlib import Path
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from deepfake_nb import Detector, explain
from deepfake_nb.forge.demo import forge_portrait, write_demo

PLACE = Path(__file__).resolve().parents[1] / "nbs" / "images" / "example.jpg"
TITLES = "a real face", "its self-blended forgery", "what was replaced", "where the network looked"
WIDTH, GAP, HEAD = 264, 6, 24  # pixels: of each picture, between them, of the titles


def replaced(real, forged):
    "The place that differs, in red: what was replaced."
    change = np.abs(real.astype(float) - forged).max(-1)
    soft = np.array(Image.fromarray((change*8).clip(0, 255).astype(np.uint8)).resize((64, 75), Image.Resampling.BOX).resize(real.shape[1::-1], Image.Resampling.BICUBIC)) / 255.
    share = .7*np.clip(2*soft[..., None], 0, 1)
    return (real*(1 - share) + np.array([255., 0, 0])*share).round().astype(np.uint8)


def panel(pictures):
    "Pictures side by side, each with its title."
    small = [Image.fromarray(o).resize((WIDTH, round(WIDTH*o.shape[0]/o.shape[1])), Image.Resampling.LANCZOS) for o in pictures]
    sheet = Image.new("RGB", (len(small)*(WIDTH + GAP), small[0].height + HEAD + GAP), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(15)
    for i, (picture, title) in enumerate(zip(small, TITLES)):
        left = i*(WIDTH + GAP) + GAP//2
        sheet.paste(picture, (left, HEAD))
        draw.text((left + WIDTH/2, HEAD/2), title, fill="black", font=font, anchor="mm")
    return sheet


if __name__ == "__main__":
    place = Path(sys.argv[1]) if len(sys.argv) > 1 else PLACE
    detector = Detector(device="cpu")
    with tempfile.TemporaryDirectory() as folder:
        real, forged, *_ = write_demo(folder)
        prediction = detector.predict(forged)
        real, forged = (np.array(Image.open(o)) for o in (real, forged))
    looked = explain(detector, prediction).whole_picture()
    panel([real, forged, replaced(real, forge_portrait(real)[0]), looked]).save(place, quality=80)
    print(f"{place}: {prediction.decision}, {prediction.probability:.4f}, faces by {detector.face_detector.name}")

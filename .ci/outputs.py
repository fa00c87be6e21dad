"""Run notebooks and save the outputs that visible cells should have and have not: .ci/outputs.py NAME...; without a name, all that lack some.

Only what is missing is added, so that nothing else changes; with --again as the first word, all that the named ones show is saved anew."""
import base64, io, json, shutil, sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))
from project import NOTEBOOKS, UNSAVED, cells, lacking_output  # the rule by which the tests look

LARGEST, PHOTOGRAPH = 120_000, 40_000  # characters of one output; of a PNG from which on it becomes a JPEG


def as_jpeg(data):
    "A photograph that was saved as PNG, in a tenth of the room."
    from PIL import Image
    Image.open(io.BytesIO(base64.b64decode("".join(data.pop("image/png"))))).convert("RGB").save(buffer := io.BytesIO(), "JPEG", quality=80)
    return data | {"image/jpeg": base64.b64encode(buffer.getvalue()).decode()}


def small(output):
    "An output as it is saved: no times, no numbers of runs, no paths of this machine."
    if output["output_type"] == "error": raise SystemExit(f"{output['ename']}: {output['evalue']}")
    if "execution_count" in output: output["execution_count"] = None
    if len("".join(output.get("data", {}).get("image/png", ""))) > PHOTOGRAPH: output["data"] = as_jpeg(output["data"])
    text = json.dumps(output)
    if len(text) > LARGEST: raise SystemExit(f"an output of {len(text):,} characters; accepted: {LARGEST:,}")
    return json.loads(text.replace(str(ROOT), "..."))


def run(notebook):
    "The outputs of all cells, by their ids; the notebook itself stays as it is."
    import nbdev.test
    beside = notebook.with_name(f".outputs-{notebook.name}")
    try:
        shutil.copyfile(notebook, beside)
        passed, _ = nbdev.test.test_nb(beside, skip_flags=["slow", "gpu"], basepath=ROOT, save=True)
        if not passed: raise SystemExit(f"{notebook.relative_to(ROOT)} failed")
        return {o["id"]: o.get("outputs", []) for o in json.loads(beside.read_text(encoding="utf-8"))["cells"]}
    finally: beside.unlink(missing_ok=True)


def fill(notebook, again=False):
    "Run one notebook, and save what is missing."
    missing = {cell.raw["id"] for cell in lacking_output(notebook)}
    if again: missing |= {cell.raw["id"] for cell in cells(notebook) if cell.raw.get("outputs")}
    if not missing: return
    outputs, kept, filled = run(notebook), json.loads(notebook.read_text(encoding="utf-8")), 0
    for cell in kept["cells"]:
        if cell.get("id") in missing and outputs[cell["id"]]:
            cell["outputs"] = [small(o) for o in outputs[cell["id"]]]
            filled += 1
    notebook.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"{notebook.relative_to(ROOT)}: {filled} of {len(missing)} outputs saved", flush=True)


if __name__ == "__main__":
    names = sys.argv[1:]
    again = names[:1] == ["--again"]
    if again: names = names[1:]
    for notebook in NOTEBOOKS:
        if notebook.name in UNSAVED: continue
        if any(o in str(notebook) for o in names) or not names and not again: fill(notebook, again)

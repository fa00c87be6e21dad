// A film above the curve of its scores. The film is the file that lies in this browser already; nothing of it is fetched.
const LEFT = 60, RIGHT = 690, WIDTH = 700;  // of the drawing, where the curve begins and ends

function render({ model, el }) {
  const film = document.createElement("video"), curve = document.createElement("div"), people = document.createElement("div"), said = document.createElement("p");
  let url = null;
  Object.assign(film, { controls: true, preload: "metadata", playsInline: true });
  film.setAttribute("aria-label", "The film");
  curve.className = "dn-curve";
  curve.tabIndex = 0;
  people.className = said.className = "dn-soft";
  for (const [name, value] of Object.entries({ role: "slider", "aria-label": "Place in the film", "aria-valuemin": 0 })) curve.setAttribute(name, value);
  el.append(film, said, curve, people);
  const playable = () => !film.hidden;

  function mark(time) {
    const line = curve.querySelector(".dn-now"), end = model.get("end"), x = LEFT + (RIGHT - LEFT) * Math.min(1, Math.max(0, time / end));
    if (line) for (const name of ["x1", "x2"]) line.setAttribute(name, x.toFixed(1));
    curve.setAttribute("aria-valuemax", end);
    curve.setAttribute("aria-valuenow", time.toFixed(1));
    curve.setAttribute("aria-valuetext", `${time.toFixed(1)} of ${end.toFixed(1)} seconds`);
  }

  function go(time) {
    time = Math.min(model.get("end"), Math.max(0, time));
    if (playable()) film.currentTime = time;
    mark(time);
    model.send({ kind: "seek", time });
  }

  function draw() {
    curve.innerHTML = model.get("drawing");  // made by the server out of numbers
    const groups = [...curve.querySelectorAll("[data-person]")];
    people.replaceChildren(...(groups.length < 2 ? [] : groups.map((group) => {
      const label = document.createElement("label"), box = document.createElement("input");
      Object.assign(box, { type: "checkbox", checked: true });
      box.addEventListener("change", () => { group.style.display = box.checked ? "" : "none"; });
      label.append(box, ` Person ${group.dataset.person} `);
      return label;
    })));
    mark(model.get("time"));
  }

  function load() {
    const file = globalThis.deepfakeFiles?.get(model.get("upload")), address = model.get("address");
    if (url) URL.revokeObjectURL(url);
    url = file ? URL.createObjectURL(file) : null;
    said.textContent = "";
    film.hidden = !(url || address);
    el.hidden = !model.get("drawing");
    if (film.hidden) film.removeAttribute("src"); else film.src = url || address;
  }

  film.addEventListener("error", () => {
    if (film.hidden) return;
    film.hidden = true;
    said.textContent = "This browser cannot play this film. Its scores and frames can be looked at all the same.";
  });
  film.addEventListener("timeupdate", () => mark(film.currentTime));
  curve.addEventListener("click", (event) => {
    const box = curve.getBoundingClientRect();
    go(model.get("end") * ((event.clientX - box.left) / box.width * WIDTH - LEFT) / (RIGHT - LEFT));
  });
  curve.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1 }[event.key], end = model.get("end");
    const now = Number(curve.getAttribute("aria-valuenow"));
    if (step) go(now + step * Math.max(.1, end / 50)); else if (event.key === "Home") go(0); else if (event.key === "End") go(end); else return;
    event.preventDefault();
  });
  const onTime = () => {  // a frame was chosen below
    if (playable() && film.paused) film.currentTime = model.get("time");
    mark(model.get("time"));
  };
  const heard = [["change:drawing", () => { draw(); load(); }], ["change:upload", load], ["change:address", load], ["change:time", onTime]];
  for (const [name, run] of heard) model.on(name, run);
  draw();
  load();
  return () => { for (const [name, run] of heard) model.off(name, run); if (url) URL.revokeObjectURL(url); };
}

export default { render };

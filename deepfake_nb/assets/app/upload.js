// Sends chosen files one after another, each in pieces; the next piece, and the next file, go when the server asks for them.
const PIECE = 4 * 1024 * 1024;

function render({ model, el }) {
  const label = document.createElement("label");
  const input = document.createElement("input");
  const title = document.createElement("span");
  const hint = document.createElement("span");
  label.className = "dn-drop";
  title.className = "dn-drop-title";
  hint.className = "dn-drop-hint";
  input.type = "file";
  input.multiple = true;
  input.accept = model.get("accept");
  title.textContent = model.get("title");
  hint.textContent = model.get("hint");
  label.append(input, title, hint);
  el.classList.add("dn-upload");
  el.append(label);

  let file = null, upload = 0, waiting = [], of = 0;

  function start(chosen) {
    if (!chosen.length) return;
    waiting = [...chosen];
    of = waiting.length;
    globalThis.deepfakeFiles = new Map();  // for the player: a film that is here already need not come back
    input.value = "";  // the same file may be chosen again
    next();
  }

  function next() {
    if (!waiting.length) return;
    file = waiting.shift();
    upload = Math.max(upload + 1, Date.now());
    globalThis.deepfakeFiles.set(upload, file);
    model.send({ kind: "start", upload, name: file.name, size: file.size, place: of - waiting.length - 1, of });
  }

  async function sendPiece(from) {
    const mine = upload;
    try {
      const piece = await file.slice(from, from + PIECE).arrayBuffer();
      if (mine === upload) model.send({ kind: "piece", upload, from }, undefined, [piece]);
    } catch (error) {
      model.send({ kind: "unreadable", upload });
    }
  }

  const onMessage = (message) => {
    if (message.kind === "next" && message.upload === upload) sendPiece(message.from);
    if (message.kind === "more") next();
    if (message.kind === "focus") input.focus();
  };
  const onBusy = () => {  // it stays where the focus is; the server says why it takes nothing
    const busy = model.get("shown_busy");
    input.setAttribute("aria-disabled", busy);
    label.classList.toggle("dn-busy", busy);
  };
  model.on("msg:custom", onMessage);
  model.on("change:shown_busy", onBusy);
  onBusy();
  input.addEventListener("change", () => start(input.files));
  for (const name of ["dragenter", "dragover"]) label.addEventListener(name, (event) => { event.preventDefault(); label.classList.add("dn-over"); });
  for (const name of ["dragleave", "drop"]) label.addEventListener(name, (event) => { event.preventDefault(); label.classList.remove("dn-over"); });
  label.addEventListener("drop", (event) => start(event.dataTransfer.files));
  return () => { model.off("msg:custom", onMessage); model.off("change:shown_busy", onBusy); };
}

export default { render };

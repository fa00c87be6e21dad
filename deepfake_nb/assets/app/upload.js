// Sends a chosen file in pieces; the next piece goes only when the last one was acknowledged.
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
  input.accept = model.get("accept");
  title.textContent = model.get("title");
  hint.textContent = model.get("hint");
  label.append(input, title, hint);
  el.classList.add("dn-upload");
  el.append(label);

  let file = null, upload = 0;
  const tell = (text) => model.send({ kind: "said", text });  // a message, since the same sentence may have to be said twice

  function start(chosen) {
    input.value = "";  // the same file may be chosen again
    if (!chosen) return;
    if (model.get("shown_busy")) return tell(`${chosen.name} was not taken: another file is being looked at. Accepted: to choose it again when that is done.`);
    if (chosen.size > model.get("shown_limit")) {
      tell(`${chosen.name}: this file has ${(chosen.size / 1e6).toFixed(1)} MB. At most ${(model.get("shown_limit") / 1e6).toFixed(0)} MB are accepted.`);
      return;
    }
    file = chosen;
    upload = Date.now();
    model.send({ kind: "start", upload, name: file.name, size: file.size });
  }

  async function sendPiece(from) {
    const mine = upload;
    try {
      const piece = await file.slice(from, from + PIECE).arrayBuffer();
      if (mine === upload) model.send({ kind: "piece", upload, from }, undefined, [piece]);
    } catch (error) {
      model.send({ kind: "stop", upload });
      tell(`${file.name}: the browser could not read this file. Accepted: a file that stays where it is during the upload.`);
    }
  }

  const onMessage = (message) => {
    if (message.kind === "next" && message.upload === upload) sendPiece(message.from);
    if (message.kind === "focus") input.focus();
  };
  const onBusy = () => {  // it stays where the focus is, and says why it takes nothing
    const busy = model.get("shown_busy");
    input.setAttribute("aria-disabled", busy);
    label.classList.toggle("dn-busy", busy);
  };
  model.on("msg:custom", onMessage);
  model.on("change:shown_busy", onBusy);
  onBusy();
  input.addEventListener("change", () => start(input.files[0]));
  for (const name of ["dragenter", "dragover"]) label.addEventListener(name, (event) => { event.preventDefault(); label.classList.add("dn-over"); });
  for (const name of ["dragleave", "drop"]) label.addEventListener(name, (event) => { event.preventDefault(); label.classList.remove("dn-over"); });
  label.addEventListener("drop", (event) => start(event.dataTransfer.files[0]));
  return () => { model.off("msg:custom", onMessage); model.off("change:shown_busy", onBusy); };
}

export default { render };
